"""Sends malformed requests over raw sockets, and one of them again: `cd tests && python -m abuse.fuzzer --help`."""

from __future__ import annotations

import argparse
import contextlib
import json
import select
import socket
import struct
import sys
import urllib.request
from urllib.parse import urlsplit

from abuse.malformed import Attack, Target, attack

SILENCE = "no answer"
_PATIENCE = 30.0
"""Seconds in which every answer comes, or the connection ends. Nothing that a node waits for takes as long."""
_PIECE = 1 << 16
_SHORTLY = 0.01
"""Seconds for an answer to bytes that are refused before they have all come."""


def answer_to(address: tuple[str, int], attacked: Attack) -> bytes:
    """All bytes that come back until the connection ends. Raises TimeoutError if it does not."""
    with socket.create_connection(address, timeout=_PATIENCE) as connection:
        with contextlib.suppress(ConnectionError):  # the node need not read all of it
            connection.sendall(attacked.sent)
        if attacked.vanishes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
            return b""
        if attacked.ends:
            select.select([connection], [], [], _SHORTLY)
            with contextlib.suppress(OSError):  # the node has ended it already
                connection.shutdown(socket.SHUT_WR)
        return _read(connection)


def _read(connection: socket.socket) -> bytes:
    received = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(_PIECE):
            received += piece
    return bytes(received)


def status_of(answer: bytes) -> str:
    """The status of the first answer, SILENCE if there is none."""
    return answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else SILENCE


def address_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 80


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of a node that runs")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--number", type=int, required=True, help="of the request")
    parser.add_argument("--model", required=True)
    parser.add_argument("--key", default="")
    asked = parser.parse_args()
    request = urllib.request.Request(f"{asked.url}/openapi.json", headers={"Authorization": f"Bearer {asked.key}"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
        target = Target(json.load(response), asked.model, asked.key)
    attacked = attack(target, asked.seed, asked.number)
    sys.stdout.write(f"{attacked.kind}\n{attacked.sent!r}\n\n{answer_to(address_of(asked.url), attacked)!r}\n")


if __name__ == "__main__":
    main()
