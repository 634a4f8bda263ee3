"""A node that answers what a test tells it to, over real HTTP, and keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, final

READY = {
    "ready": True,
    "slots": 2,
    "running": 1,
    "queued": 3,
    "queue_limit": 128,
    "loaded": ["qwen"],
    "draining": False,
}


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    key: str | None
    body: bytes


Reply = tuple[int, bytes]


@final
class ToldNode:
    """On a free port of loopback; a context manager. `replies` may be changed at any time, 404 is for other paths."""

    def __init__(self, replies: dict[str, Reply | Callable[[Asked], Reply]] | None = None) -> None:
        self.replies = replies if replies is not None else {"/ready": answer(READY)}
        self.asked: list[Asked] = []
        node = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                key = self.headers["authorization"]
                body = self.rfile.read(int(self.headers["content-length"] or 0))
                asked = Asked(self.command, self.path, key and key.removeprefix("Bearer "), body)
                node.asked.append(asked)
                reply = node.replies.get(self.path, (404, b"{}"))
                status, content = reply(asked) if callable(reply) else reply
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET  # noqa: N815 - as in the standard library

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the standard library
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> ToldNode:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def answer(value: object, status: int = 200) -> Reply:
    return status, json.dumps(value).encode()


def inventory(*nodes: ToldNode | int, extra: str = "") -> str:
    """The text of a cluster.toml with these nodes, or with nobody at these ports; they are called n1, n2 …"""
    tables = "".join(
        f'[[nodes]]\nname = "n{number}"\naddress = "127.0.0.1"\nport = {node if isinstance(node, int) else node.port}\n'
        'models = ["qwen"]\n'
        for number, node in enumerate(nodes, 1)
    )
    return f'{tables}[proxy]\nadmin_socket = "/nowhere/admin.sock"\n{extra}'
