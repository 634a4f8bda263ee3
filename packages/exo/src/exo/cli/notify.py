"""What a service manager such as systemd is told: that the node is ready, lives, ends. The protocol is sd_notify(3)."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Mapping

SERVICE_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""The service manager's own variables, meant for the process that it has started and not for that one's children."""

_TIMEOUT = 1.0
"""Seconds that a message may wait: the manager reads at once, and a node must not stand still for one that does not."""

logger = logging.getLogger(__name__)


class ServiceManager:
    """Sends messages to whoever has started this process; does nothing where nobody asks for them.

    Never raises: a socket that is gone, or of a kind that is not known, is logged once. May be used from one thread at
    a time. Whoever spawns a child leaves `SERVICE_VARIABLES` out of its environment, or the child could be taken for
    the node: `env={name: value for name, value in env.items() if name not in SERVICE_VARIABLES}`.
    """

    def __init__(self, address: str, watchdog_interval: float | None = None) -> None:
        """`address` as in NOTIFY_SOCKET, empty for none; `watchdog_interval` in seconds."""
        self._address = _usable(address)
        self._watchdog_interval = watchdog_interval if self._address else None
        self._failed = False

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> ServiceManager:
        """By NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID."""
        return cls(env.get("NOTIFY_SOCKET", ""), _watchdog_interval(env))

    @property
    def watchdog_interval(self) -> float | None:
        """Seconds between two calls of `alive`: half of what the manager allows. None if it does not watch."""
        return self._watchdog_interval

    def ready(self, status: str = "") -> None:
        """Requests are accepted from now on; `status` as for `status`."""
        self._send("READY=1", *([_status(status)] if status else []))

    def alive(self) -> None:
        """The node still works. To be called from what would stand still if it did not, which is the event loop."""
        if self._watchdog_interval is not None:
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The node has begun to end."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line that `systemctl status` shows; control characters become blanks."""
        self._send(_status(text))

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(_TIMEOUT)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            if not self._failed:
                self._failed = True
                logger.warning("the service manager cannot be told %s: %s", lines[0], error)


def without_manager(env: Mapping[str, str]) -> dict[str, str]:
    """What an engine may hand on to its workers: they have nothing to say to the service manager."""
    return {name: value for name, value in env.items() if name not in SERVICE_VARIABLES}


def _usable(address: str) -> str:
    """The address for sendto: a path, or a name outside the file system, which begins with `@`. Empty for others."""
    if address.startswith("@"):
        return "\0" + address[1:]
    if address and not address.startswith("/"):
        logger.warning("NOTIFY_SOCKET is %r, neither a path nor @name: the service manager is told nothing", address)
        return ""
    return address


def _watchdog_interval(env: Mapping[str, str]) -> float | None:
    """Seconds; None if there is no watchdog, or one for another process."""
    allowed, process = env.get("WATCHDOG_USEC", ""), env.get("WATCHDOG_PID", "")
    if not allowed or process not in ("", str(os.getpid())):
        return None
    if not re.fullmatch(r"0*[1-9][0-9]{0,17}", allowed, re.ASCII):
        logger.warning("WATCHDOG_USEC is %r, which is no number of microseconds: it is ignored", allowed)
        return None
    return int(allowed) / 2_000_000


def _status(text: str) -> str:
    """A line break would begin another message."""
    return "STATUS=" + "".join(char if char.isprintable() else " " for char in text)
