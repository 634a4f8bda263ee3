"""Who may ask, and for what: Host and Origin of a browser, and the API key with its scope."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from exo.api.exchange import exchange_of, send_bytes
from exo.api.settings import HttpSettings
from exo.cluster.membership.challenge import CHALLENGE_PATH
from exo.inference.caller import Caller, asking
from exo.types import AuthenticationFailed, ForbiddenHost, ForbiddenOrigin

OPEN_PATHS = frozenset({"/healthcheck", "/ready", CHALLENGE_PATH})
ADMIN_PATHS = frozenset(
    ["/v1/drain", *(f"/api/{name}" for name in ("pull", "push", "create", "copy", "delete", "blobs"))]
)
"""What changes the node or its models needs a key of scope admin: these paths, and those below them.

A model may be unloaded on other paths too, as only a body can tell: InferenceService.unload looks at the scope itself.
"""
_LOOPBACK_NAMES = frozenset({"localhost"})
_CORS_ALLOW = (
    (b"access-control-allow-methods", b"GET, POST, DELETE, OPTIONS"),
    (b"access-control-max-age", b"600"),
)


def is_loopback(name: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    if name in _LOOPBACK_NAMES or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def host_of(header: str) -> str:
    """The host of a Host header, without the port; empty if it is not one."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def host_allowed(header: str, settings: HttpSettings) -> bool:
    """A node on loopback answers to loopback names only, which keeps out pages that rebind their own name to it."""
    if not is_loopback(settings.host) or not header:  # no browser leaves the header out; plain health checks do
        return True
    host = host_of(header)
    return is_loopback(host) or host in settings.allowed_hosts


def origin_allowed(origin: str, host_header: str, settings: HttpSettings) -> bool:
    """The node's own pages, listed ones, and on loopback those of this machine.

    Where the node listens beyond loopback, a page counts as its own if it has the address that the request was sent to:
    a name could have been rebound, an address cannot.
    """
    if origin in settings.allowed_origins or "*" in settings.allowed_origins:
        return True
    try:
        parts = urlsplit(origin)
        name = (parts.hostname or "").lower()
    except ValueError:
        return False
    if is_loopback(settings.host):
        return is_loopback(name) or name in settings.allowed_hosts
    return parts.netloc.lower() == host_header.lower() and (
        _address(name) is not None or name in settings.allowed_hosts
    )


class Guard:
    """ASGI middleware. Refusals are raised as exceptions.

    `admin_paths` are further paths that need a key of scope admin, with those below them.
    """

    def __init__(self, app: ASGIApp, settings: HttpSettings, admin_paths: frozenset[str] = frozenset()) -> None:
        self._app = app
        self._settings = settings
        self._admin_paths = ADMIN_PATHS | admin_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _text_headers(scope)
        host = headers.get("host", "")
        if not host_allowed(host, self._settings):
            raise ForbiddenHost(
                f"This node does not answer to the host {host!r}. "
                f"Call it as localhost, or add the name to {self._settings.prefix}ALLOWED_HOSTS."
            )
        origin = headers.get("origin")
        if origin is not None:
            if not origin_allowed(origin, host, self._settings):
                raise ForbiddenOrigin(
                    f"Pages from {origin!r} may not use this node. {self._settings.prefix}ALLOWED_ORIGINS can allow it."
                )
            cors = (
                (b"access-control-allow-origin", origin.encode("latin-1")),
                (b"access-control-expose-headers", b"retry-after, x-request-id"),
                (b"vary", b"origin"),
            )
            exchange_of(scope).extra_headers.extend(cors)
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                asked = headers.get("access-control-request-headers", "")
                allowed = (b"access-control-allow-headers", asked.encode("latin-1"))
                await send_bytes(send, 204, b"", b"text/plain", *_CORS_ALLOW, allowed)
                return
        with asking(self._caller(scope, headers)):
            await self._app(scope, receive, send)

    def _caller(self, scope: Scope, headers: Mapping[str, str]) -> Caller:
        path = scope["path"]
        if not self._settings.keys or path in OPEN_PATHS:
            return Caller()
        scheme, _, token = headers.get("authorization", "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        caller = self._settings.keys.current().caller_of(key)
        if caller is None:
            raise AuthenticationFailed
        exchange_of(scope).key = caller.name
        if any(path == known or path.startswith(f"{known}/") for known in self._admin_paths):
            caller.need_admin()
        return caller


def _text_headers(scope: Scope) -> dict[str, str]:
    """Header values by lower-case name; of repeated ones the first counts, as for Host."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1"), value.decode("latin-1"))
    return headers
