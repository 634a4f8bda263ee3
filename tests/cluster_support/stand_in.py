"""A node that answers at once and tells what it was asked: enough to see what a proxy does with a request.

with StandIn("a") as node:
    node.ready = False                      # /ready and all else is 503 from now on
    node.asked                              # the requests that came, without those of health checks
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, final


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class _State:
    name: str
    ready: bool = True
    refusal: int = 0
    asked: list[Asked] = field(default_factory=list)
    free: threading.Event = field(default_factory=threading.Event)


@final
class StandIn:
    """On a free port of loopback. Its answers are `{"node": NAME, "path": PATH}`."""

    def __init__(self, name: str) -> None:
        self._state = _State(name)
        self._state.free.set()
        state = self._state

        class Handler(_Handler):
            node = state

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def name(self) -> str:
        return self._state.name

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def asked(self) -> list[Asked]:
        return self._state.asked

    @property
    def ready(self) -> bool:
        return self._state.ready

    @ready.setter
    def ready(self, ready: bool) -> None:
        self._state.ready = ready

    @property
    def refusal(self) -> int:
        """0 while it refuses nothing."""
        return self._state.refusal

    @refusal.setter
    def refusal(self, status: int) -> None:
        self._state.refusal = status

    def hold(self) -> None:
        """Begin no answer until `let_go`."""
        self._state.free.clear()

    def let_go(self) -> None:
        self._state.free.set()

    def __enter__(self) -> StandIn:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.let_go()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A proxy that hangs up is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    node: _State
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Nothing."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        if self.path == "/ready":
            self._send(200 if self.node.ready else 503, {"ready": self.node.ready})
            return
        value = json.loads(body) if body else None
        self.node.asked.append(
            Asked(self.command, self.path, {name.lower(): text for name, text in self.headers.items()}, value)
        )
        self.node.free.wait()
        refusal = self.node.refusal if self.node.ready else 503
        if refusal:
            self._send(refusal, {"error": {"message": "refused", "code": "refused"}})
            return
        self._send(200, {"node": self.node.name, "path": self.path})

    def _send(self, status: int, value: Any) -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        if self.path == "/v1/responses":
            self.send_header("x-exo-response-id", f"resp_{self.node.name}")
        self.end_headers()
        self.wfile.write(text)
