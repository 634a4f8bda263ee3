"""The outermost layer: a request id, one log line, the request metrics, and an answer to every exception."""

from __future__ import annotations

import logging
import re
import time
import uuid

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exo.api.errors import CLIENT_GONE, error_shape, status_of
from exo.api.exchange import ClientGone, Exchange, exchange_of, send_error
from exo.api.extension import Extension
from exo.cluster.membership.challenge import CHALLENGE_PATH
from exo.inference import NodeMetrics
from exo.types import ExoError, MethodNotAllowed

access = logging.getLogger("exo.access")
logger = logging.getLogger(__name__)
PROBE_PATHS = frozenset({"/healthcheck", "/ready", "/metrics", CHALLENGE_PATH})
"""What is asked again and again by itself."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class Outermost:
    """ASGI middleware around everything else; lifespan messages go straight to `lifespan`."""

    def __init__(
        self, app: ASGIApp, lifespan: ASGIApp, metrics: NodeMetrics, extension: Extension | None = None
    ) -> None:
        extension = extension or Extension()
        self._app = app
        self._lifespan = lifespan
        self._metrics = metrics
        self._plain_error_paths = extension.plain_error_paths
        self._on_response = extension.on_response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._lifespan(scope, receive, send)
            return
        exchange = Exchange(id=_request_id(scope), started=time.monotonic())
        scope["exo.exchange"] = exchange
        scope["app"] = self  # tells Starlette's router to raise instead of answering by itself
        id_header = (b"x-request-id", exchange.id.encode())

        async def noting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message["headers"], *exchange.extra_headers, id_header]
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        except ClientGone:
            exchange.status = CLIENT_GONE
        except Exception as error:  # noqa: BLE001 - the last place that can turn it into an answer
            await self._answer(_as_exo_error(error, scope, exchange), scope, noting_send)
        finally:
            self._record(scope, exchange)

    async def _answer(self, error: ExoError, scope: Scope, send: Send) -> None:
        exchange = exchange_of(scope)
        exchange.error = error.code
        if exchange.status:
            exchange.status = status_of(error)  # the answer had begun: the server cuts the connection, the log says why
            return
        await send_error(send, error, error_shape(scope["path"], self._plain_error_paths, request_id=exchange.id))

    def _record(self, scope: Scope, exchange: Exchange) -> None:
        seconds = time.monotonic() - exchange.started
        if exchange.inference:
            self._metrics.requests.labels(exchange.model, str(exchange.status)).inc()
            self._metrics.duration.observe(seconds)
            if exchange.key:
                self._metrics.key_requests.labels(exchange.key, str(exchange.status)).inc()
            if exchange.error:
                self._metrics.errors.labels(exchange.error, exchange.model).inc()
        level = logging.DEBUG if scope["path"] in PROBE_PATHS else logging.INFO
        if access.isEnabledFor(level):
            access.log(level, "request", extra={"fields": _log_fields(scope, exchange, seconds)})
        if self._on_response is not None:
            self._on_response(scope["path"], exchange.status)


def _as_exo_error(error: Exception, scope: Scope, exchange: Exchange) -> ExoError:
    if isinstance(error, ExoError):
        return error
    if isinstance(error, HTTPException):  # Starlette's router raises it for a wrong method, and for nothing else
        allowed = (error.headers or {}).get("Allow", "")
        exchange.extra_headers.append((b"allow", allowed.encode()))
        return MethodNotAllowed(f"{scope['method']} is not allowed for {scope['path']}. Allowed: {allowed or 'none'}.")
    logger.error("request %s failed unexpectedly", exchange.id, exc_info=error)
    return ExoError(f"The node failed unexpectedly; its log has the details under request {exchange.id}.")


def _request_id(scope: Scope) -> str:
    """The caller's X-Request-Id if it is a sane one, so that it stays the same across hops, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return uuid.uuid4().hex


def _log_fields(scope: Scope, exchange: Exchange, seconds: float) -> dict[str, str | int | float]:
    fields: dict[str, str | int | float] = {
        "id": exchange.id,
        "method": scope["method"],
        "path": scope["path"],
        "status": exchange.status,
        "seconds": round(seconds, 4),
    }
    if exchange.model:
        fields["model"] = exchange.model
    if exchange.rule:
        fields["rule"] = exchange.rule
    if exchange.key:
        fields["key"] = exchange.key
    if exchange.first_token is not None:
        fields["first_token"] = round(exchange.first_token, 4)
    if exchange.usage is not None:
        fields["prompt_tokens"] = exchange.usage.prompt_tokens
        fields["cached_tokens"] = exchange.usage.cached_tokens
        fields["completion_tokens"] = exchange.usage.completion_tokens
    if exchange.error:
        fields["error"] = exchange.error
    return fields
