"""The HTTP server: uvicorn, with limits on how a request may arrive and how an answer may be taken."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from typing import Any, Protocol

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from exo.api.guard import is_loopback
from exo.api.settings import HttpSettings
from exo.inference import InferenceService
from exo.types import ConfigurationError

_NOTICE = 3.0
"""Seconds in which a proxy before this node sees that it ends or drains: more than between two of its checks."""

logger = logging.getLogger(__name__)
_BACKLOG = 2048
_TICK = 1.0
_CLOSE_TIMEOUT = 5
_BODY_MARGIN = 5.0
_MAX_AHEAD = 8
"""Requests that a client may send before the one that runs is answered."""
_FRAMING = 16
"""Bytes of chunk framing allowed for each byte of the body, beyond what headers may have."""
_UPGRADE_HEADERS = frozenset({b"connection", b"upgrade", b"http2-settings"})
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class LimitedProtocol(HttpToolsProtocol):
    """One connection, held to limits.

    It is closed when headers, trailers or chunk framing are too long, when headers or a body are too slow, when a
    client stops reading, and when it sends too many requests ahead. A wish to change the protocol (Upgrade) is ignored.
    A client that goes away is noticed by the request that runs, not only by the newest one.
    """

    limits = HttpSettings()

    _reading_headers = True
    _header_bytes = 0
    _framing_bytes = 0
    _body_bytes = 0
    _upgrading = False
    _running: RequestResponseCycle | None = None
    _read_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that every byte that nobody takes counts for write_timeout
        self._start_read_timer(self.limits.header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_read_timer()
        self._stop_write_timer()
        for cycle in [self._running, *(cycle for cycle, _ in self.pipeline)]:
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._reading_headers:
            if self._read_timer is None and self._is_idle():
                self._start_read_timer(self.limits.header_timeout)
            self._header_bytes += len(data)
        else:
            self._framing_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
            return
        if self._reading_headers and self._header_bytes > self.limits.max_header:
            self.transport.write(_TOO_LARGE)
            self.transport.close()
        elif self._framing_bytes - self._body_bytes > self.limits.max_header + _FRAMING * self._body_bytes:
            self.transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading_headers:  # trailers are of no use here
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._reading_headers = False
        self._stop_read_timer()
        if self.parser.should_upgrade():
            self._upgrading = True
            return
        super().on_headers_complete()
        if not self.pipeline:
            self._running = self.cycle
            # The application answers a late body with status 408; this ends bodies that nobody reads any more.
            self._start_read_timer(self.limits.body_timeout + _BODY_MARGIN)
        elif len(self.pipeline) > _MAX_AHEAD:
            self.transport.abort()
        else:
            self.flow.resume_reading()  # else nobody would notice that the client goes away

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)
        if self.pipeline and len(self.cycle.body) > HIGH_WATER_LIMIT:
            self.transport.abort()

    def on_message_complete(self) -> None:
        if self._upgrading:
            return
        self._reading_headers = True
        self._header_bytes = self._framing_bytes = self._body_bytes = 0
        self._stop_read_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self.pipeline:
            self._running = self.pipeline[-1][0]
        super().on_response_complete()

    def pause_writing(self) -> None:
        self._write_timer = self.loop.call_later(self.limits.write_timeout, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stop_write_timer()
        super().resume_writing()

    def _is_idle(self) -> bool:
        return self._running is None or self._running.response_complete

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Parse the same request again without the headers that ask for another protocol, then what follows it."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self.send_400_response("This is not a proxy.")
            return
        kept = [name + b": " + value for name, value in self.headers if name not in _UPGRADE_HEADERS]
        head = b"\r\n".join([method + b" " + self.url + b" HTTP/1.1", *kept, b"", b""])
        self._upgrading, self._reading_headers = False, True
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(head)
        if rest and not self.transport.is_closing():
            self.data_received(rest)

    def _start_read_timer(self, seconds: float) -> None:
        self._read_timer = self.loop.call_later(seconds, self.transport.abort)

    def _stop_read_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


class Manager(Protocol):
    """Whoever has started the node and wants to know how it is, if at all every `watchdog_interval` seconds."""

    @property
    def watchdog_interval(self) -> float | None: ...
    def ready(self) -> None: ...
    def alive(self) -> None: ...
    def stopping(self) -> None: ...


class Server(uvicorn.Server):
    """Runs a node until SIGINT or SIGTERM; then running answers get their grace time, which a second signal ends."""

    def __init__(
        self, app: ASGIApp, service: InferenceService, settings: HttpSettings, manager: Manager | None = None
    ) -> None:
        self._exit_wanted = asyncio.Event()
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
                timeout_keep_alive=settings.idle_timeout,  # type: ignore[arg-type]  # handed to call_later
                timeout_graceful_shutdown=_CLOSE_TIMEOUT,
                backlog=_BACKLOG,
            )
        )
        self._service = service
        self._grace = settings.grace
        service.notice = 0.0 if is_loopback(settings.host) else _NOTICE
        self._manager = manager
        self._ending: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._manager is not None and self.started:
            self._manager.ready()

    async def main_loop(self) -> None:
        """In place of uvicorn's, which looks ten times a second whether to end: so an idle node is idle."""
        watched = None if self._manager is None else self._manager.watchdog_interval
        pause = min(_TICK, watched or _TICK)
        while not await self.on_tick(0):  # it brings the Date header up to date
            if self._manager is not None:
                self._manager.alive()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._exit_wanted.wait(), pause)

    @property
    def should_exit(self) -> bool:
        return self._exit_wanted.is_set()

    @should_exit.setter
    def should_exit(self, wanted: bool) -> None:
        if wanted:
            self._exit_wanted.set()

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
            logger.info("ending; %s", self._what_follows())
            self._ending = asyncio.create_task(self._end(), name="end")
        else:
            self._service.hurry()

    def _what_follows(self) -> str:
        grace = f"running answers may go on for {self._grace:g} seconds"
        if not self._service.notice:
            return f"{grace}, a second signal cuts them short"
        notice = f"requests are taken for {self._service.notice:g} seconds more, so that proxies notice"
        return f"{notice}; then {grace}; a second signal cuts both short"

    async def _end(self) -> None:
        if self._manager is not None:
            self._manager.stopping()
        await self._service.end(self._grace)
        self.should_exit = True


def bind(settings: HttpSettings, *, no_auth: bool) -> socket.socket:
    """The listening socket. Raises ConfigurationError for an address that is taken, or open to others without keys."""
    if not is_loopback(settings.host) and not settings.keys and not no_auth:
        raise ConfigurationError(
            f"Listening on {settings.host} lets others in. Set {settings.prefix}API_KEYS or "
            f"{settings.prefix}API_KEYS_FILE (--api-keys-file), or say --no-auth."
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


async def serve(
    app: ASGIApp,
    service: InferenceService,
    settings: HttpSettings,
    sock: socket.socket,
    manager: Manager | None = None,
) -> None:
    """Serve until a signal ends it."""
    server: Any = Server(app, service, settings, manager)
    await server.serve(sockets=[sock])
