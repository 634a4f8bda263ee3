"""One incarnation of a worker process: its socket, what it prints, and its end."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import re
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

from exo.types import ModelLoadError
from exo_rkllm.worker.frames import FrameReader, Kind, frame

_KEPT_LINES = 40
_SHOWN_LINES = 3
_EXIT_WAIT = 1.0
_VERSION_LINE = re.compile(r"rkllm-runtime version: ([^,\s]+)")
_LIMIT_LINE = re.compile(r"max_context_limit: ([0-9]{1,9})\b")

logger = logging.getLogger(__name__)


class NpuProcess:
    """A running worker. `closed` is done once its end of the socket is closed and all it sent was handed on."""

    def __init__(self, label: str, process: asyncio.subprocess.Process, link: _Link) -> None:
        self.label = label
        self.closed = link.closed
        self._process = process
        self._link = link
        self._lines: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        assert process.stdout is not None  # noqa: S101 - it was asked for
        self._log = asyncio.create_task(self._keep_lines(process.stdout), name=f"log of {label}")

    @classmethod
    async def spawn(cls, label: str, env: Mapping[str, str]) -> NpuProcess:
        """Raises ModelLoadError."""
        try:
            return await cls._spawn(label, env)
        except OSError as error:
            raise ModelLoadError(f"{label} could not be started: {error.strerror or error}.") from error

    @classmethod
    async def _spawn(cls, label: str, env: Mapping[str, str]) -> NpuProcess:
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as undo, theirs:
            undo.callback(ours.close)
            _, link = await asyncio.get_running_loop().create_unix_connection(_Link, sock=ours)
            undo.pop_all()
            undo.callback(link.close)
            process = await _spawn(theirs.fileno(), env)
            undo.pop_all()
        return cls(label, process, link)

    @property
    def pid(self) -> int | None:
        """None once it has ended."""
        return self._process.pid if self._process.returncode is None else None

    def on_frame(self, handler: Callable[[int, bytes], object]) -> None:
        """From now on hand every frame to `handler`: its kind and its body."""
        self._link.on_frame = handler

    def send(self, kind: Kind, body: bytes) -> None:
        self._link.send(frame(kind, body))

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def exited(self) -> int:
        """Wait until the process has ended and all it said was heard; returns its exit code.

        One that has closed its socket and does not end is killed.
        """
        exit_code = asyncio.ensure_future(self._process.wait())
        both: set[asyncio.Future[Any]] = {exit_code, self.closed}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait(both, timeout=_EXIT_WAIT)
        await self.end(0.0)
        return await exit_code

    async def end(self, grace: float) -> int:
        """Close the socket, wait for `grace` seconds, then kill; returns the exit code once the process is gone."""
        if grace:
            self._link.close()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._process.wait(), grace)
        self.kill()
        code = await self._process.wait()
        self._link.close()
        await asyncio.wait({self._log}, timeout=_EXIT_WAIT)  # a child of the runtime may keep the pipe open
        self._log.cancel()
        return code

    def forget(self) -> None:
        """What was printed so far belongs to something else."""
        self._lines.clear()

    def said(self) -> str:
        """What the runtime printed as errors, for the end of a message; empty if it printed none."""
        errors = [line for line in self._lines if line.startswith("E ") or "rror" in line]
        return f" The runtime said: {' / '.join(errors[-_SHOWN_LINES:])}." if errors else ""

    def version_said(self) -> str | None:
        """The version in the runtime's first log line."""
        return next((found[1] for line in self._lines if (found := _VERSION_LINE.search(line))), None)

    def context_limit_said(self) -> int | None:
        """The greatest context that the model was converted for, in tokens."""
        return next((int(found[1]) for line in self._lines if (found := _LIMIT_LINE.search(line))), None)

    async def _keep_lines(self, stream: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # a line over the reader's limit, which the reader has dropped
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            self._lines.append(text)
            logger.debug("%s: %s", self.label, text)


async def _spawn(descriptor: int, env: Mapping[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "exo_rkllm.worker", str(descriptor)),
        pass_fds=(descriptor,),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=env,
        cwd="/",  # `python -m` looks there first: whatever lies where the node was started stays out
        start_new_session=True,  # a Ctrl-C in the terminal is the node's to handle
    )


def _drop(kind: int, body: bytes) -> None:
    """Nobody listens yet."""


class _Link(asyncio.Protocol):
    """The node's end of the socket pair."""

    def __init__(self) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_frame: Callable[[int, bytes], object] = _drop
        self._reader = FrameReader()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            for kind, body in self._reader.feed(data):
                self.on_frame(kind, body)
        except ValueError:  # not a frame: the process has lost its way
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - however it was lost
        if not self.closed.done():
            self.closed.set_result(None)

    def send(self, data: bytes) -> None:
        self._transport.write(data)

    def close(self) -> None:
        self._transport.close()
