"""Who asks: whoever admits a request says so, and all that it calls can look it up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from exo.types import AdminRequired


@dataclass(frozen=True)
class Caller:
    """The holder of a key, by its name; without a name anybody, where nobody needs a key.

    An `admin` may change which models there are and which are in memory. `requests` may be under way at the same time,
    `tokens` spent in a minute, those of prompts and of answers together; None is no limit.
    """

    name: str = ""
    admin: bool = True
    requests: int | None = None
    tokens: int | None = None

    def need_admin(self) -> None:
        """Raises AdminRequired."""
        if not self.admin:
            raise AdminRequired(self.name)


_ANYBODY = Caller()
_current: ContextVar[Caller] = ContextVar("exo_caller", default=_ANYBODY)


def current_caller() -> Caller:
    """Of the request that this task serves, or has begun for."""
    return _current.get()


@contextlib.contextmanager
def asking(caller: Caller) -> Iterator[None]:
    """What runs inside, tasks that it begins included, does so for `caller`."""
    token = _current.set(caller)
    try:
        yield
    finally:
        _current.reset(token)
