"""Which way leads to an NPU: a server that is named, the board under this node, or a server beside it."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

from exo.inference import Availability
from exo.types import ConfigurationError, host_and_port
from exo_rkllm.detection import Board, read_board
from exo_rkllm.runtime import NpuError, check_library
from exo_rkllm.settings import DEFAULT_SERVER_HOST, DEFAULT_SERVER_PORT, NpuSettings

CONNECT_TIMEOUT = 0.3
ANSWER_TIMEOUT = 0.5
_LONGEST_ANSWER = 1 << 16
_ALIKE = re.compile(rb"rkllama|ollama", re.IGNORECASE)


@dataclass(frozen=True)
class Way:
    """The way to take; `server` is host and port of the server to talk to, None for the NPU here or for no way."""

    availability: Availability
    server: tuple[str, int] | None = None

    @property
    def url(self) -> str | None:
        return None if self.server is None else url_of(*self.server)


def choose(env: Mapping[str, str], *, beside: tuple[str, int] = (DEFAULT_SERVER_HOST, DEFAULT_SERVER_PORT)) -> Way:
    """The first way that is there: RKLLM_SERVER_HOST or RKLLM_SERVER_PORT, a runtime library, the server `beside`.

    Blocks for as long as a server beside may take to answer, 1.6 seconds for each address of its name at most; never
    raises. What somebody has named is the only way: a server that is down, or a library that cannot be used, leads
    nowhere else.
    """
    try:
        settings = NpuSettings.from_env(env)
        if settings.server is not None:
            found = f"forwards to the rkllama server at {url_of(*settings.server)}"
            return Way(Availability(ok=True, reason=found), settings.server)
    except ConfigurationError as error:
        return Way(Availability(ok=False, reason=error.message))
    board = read_board(env)
    if board.library is not None or settings.lib is not None:
        return Way(npu_availability(env))
    if answers(*beside):
        return Way(Availability(ok=True, reason=f"forwards to the server at {url_of(*beside)}"), beside)
    return Way(Availability(ok=False, reason=_no_way(board, beside)))


def npu_availability(env: Mapping[str, str]) -> Availability:
    """Whether a library is here that can be used; loads nothing into this process, and never raises."""
    board = read_board(env)
    if board.library is None:
        named = board.problems[-1:] if env.get("RKLLM_LIB") else board.problems
        return Availability(ok=False, reason=" ".join(named) or "no librkllmrt.so was found")
    try:
        check_library(board.library, NpuSettings.from_env(env).abi)
    except (NpuError, ConfigurationError) as error:
        return Availability(ok=False, reason=error.message)
    version = board.library_version or "of unknown version"
    return Availability(ok=True, reason=f"librkllmrt {version} at {board.library}")


def url_of(host: str, port: int) -> str:
    """The address of a server. Raises ConfigurationError for a host that cannot be part of one."""
    if ":" in host:
        try:
            ipaddress.IPv6Address(host.strip("[]"))
        except ValueError:
            raise ConfigurationError(
                f"RKLLM_SERVER_HOST: expected a host name or an address without a port, got {host!r}. "
                "The port belongs into RKLLM_SERVER_PORT."
            ) from None
    return f"http://{host_and_port(host, port)}"


def answers(host: str, port: int) -> bool:
    """Whether a server there tells in half a second that it is rkllama, or speaks the same dialect. Never raises."""
    version = _get(host, port, "/api/version")
    if version is None:
        return False
    head, _, body = version.partition(b"\r\n\r\n")
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(body)
        if b" 200 " in head.split(b"\r\n")[0] + b" " and isinstance(found, dict) and "version" in found:
            return True
    return bool(_ALIKE.search(_get(host, port, "/") or b""))


def _get(host: str, port: int, path: str) -> bytes | None:
    """All that comes before the server closes or time is up; None if it cannot be reached."""
    try:
        with socket.create_connection((host, port), timeout=CONNECT_TIMEOUT) as connection:
            end = time.monotonic() + ANSWER_TIMEOUT
            head = f"GET {path} HTTP/1.0\r\nHost: {host_and_port(host, port)}\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode())
            found = b""
            with contextlib.suppress(OSError):
                while len(found) < _LONGEST_ANSWER and (left := end - time.monotonic()) > 0:
                    connection.settimeout(left)
                    piece = connection.recv(_LONGEST_ANSWER)
                    if not piece:
                        break
                    found += piece
            return found
    except (OSError, ValueError):
        return None


def _no_way(board: Board, beside: tuple[str, int]) -> str:
    return (
        "There is no way to an NPU: RKLLM_SERVER_HOST names no rkllama server, no librkllmrt.so was found here, and no "
        f"rkllama answers at {host_and_port(*beside)}. Set RKLLM_SERVER_HOST, or put the library into /usr/lib or "
        f"~/RKLLAMA/lib or set RKLLM_LIB, or start rkllama. {' '.join(board.problems)}"
    ).rstrip()
