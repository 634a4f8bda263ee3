"""The HTTP server: uvicorn, with limits on how a request may arrive and how an answer may be taken."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from exo.api.guard import is_loopback
from exo.api.settings import HttpSettings
from exo.inference import InferenceService
from exo.types import ConfigurationError

logger = logging.getLogger(__name__)
_BACKLOG = 2048
_CLOSE_TIMEOUT = 5
_BODY_MARGIN = 5.0
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class LimitedProtocol(HttpToolsProtocol):
    """One connection. Closed when a request's headers are too slow or too long, or when a client stops reading."""

    limits = HttpSettings()

    _reading_headers = True
    _header_bytes = 0
    _read_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._read_timer = self.loop.call_later(self.limits.header_timeout, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_read_timer()
        self._stop_write_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._reading_headers:
            if self._read_timer is None:
                self._read_timer = self.loop.call_later(self.limits.header_timeout, self.transport.abort)
            self._header_bytes += len(data)
        super().data_received(data)
        if self._reading_headers and self._header_bytes > self.limits.max_header:
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._reading_headers = False
        self._stop_read_timer()
        # The application answers a late body with status 408; this ends bodies that nobody reads any more.
        limit = self.limits.body_timeout + _BODY_MARGIN
        self._read_timer = self.loop.call_later(limit, self.transport.abort)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._reading_headers = True
        self._header_bytes = 0
        self._stop_read_timer()
        super().on_message_complete()

    def pause_writing(self) -> None:
        self._write_timer = self.loop.call_later(self.limits.write_timeout, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stop_write_timer()
        super().resume_writing()

    def _stop_read_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


class Server(uvicorn.Server):
    """Runs a node until SIGINT or SIGTERM; then running answers get their grace time, which a second signal ends."""

    def __init__(self, app: ASGIApp, service: InferenceService, settings: HttpSettings) -> None:
        limits = type("Limits", (LimitedProtocol,), {"limits": settings})
        super().__init__(
            uvicorn.Config(
                app,
                http=limits,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=int(settings.idle_timeout),
                timeout_graceful_shutdown=_CLOSE_TIMEOUT,
                backlog=_BACKLOG,
            )
        )
        self._service = service
        self._grace = settings.grace
        self._ending: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """In place of uvicorn's, which ends the process by the signal itself; ours exits with 0."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self._ending is None:
            logger.info(
                "ending; running answers may go on for %g seconds, a second signal cuts them short", self._grace
            )
            self._ending = asyncio.create_task(self._end(), name="end")
        else:
            self._service.hurry()

    async def _end(self) -> None:
        await self._service.drain(self._grace)
        self.should_exit = True


def bind(settings: HttpSettings, *, no_auth: bool) -> socket.socket:
    """The listening socket. Raises ConfigurationError for an address that is taken, or open to others without keys."""
    if not is_loopback(settings.host) and not settings.keys and not no_auth:
        raise ConfigurationError(
            f"Listening on {settings.host} lets others in. Set EXO_API_KEYS or --api-keys-file, or say --no-auth."
        )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    if not is_loopback(settings.host) and not settings.keys:
        logger.warning("anybody who reaches %s may use this node, as --no-auth allows", settings.host)
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY only on these
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
        sock.listen(_BACKLOG)  # clients that come before the server runs wait, and are not refused
    except OSError as error:
        sock.close()
        raise ConfigurationError(
            f"Cannot listen on {settings.host} port {settings.port}: {error.strerror}. Choose another with --port."
        ) from error
    return sock


async def serve(app: ASGIApp, service: InferenceService, settings: HttpSettings, sock: socket.socket) -> None:
    """Serve until a signal ends it."""
    server: Any = Server(app, service, settings)
    await server.serve(sockets=[sock])
