"""What a program adds to the paths that every node has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.routing import Route

from exo.api.operation import Operation


@dataclass(frozen=True)
class Extension:
    """`routes` come before the node's own, so that they may replace them; `operations` tell of them in /docs.

    Paths among `plain_error_paths` answer errors as `{"error": message, "code": code}`. Those among `admin_paths`, and
    all below them, need a key of scope admin where the node has keys. `on_response` is told the path
    and the status of every exchange at its end, 499 if the client was gone.
    """

    title: str = "exo node"
    routes: Sequence[Route] = ()
    operations: Sequence[Operation] = ()
    plain_error_paths: frozenset[str] = frozenset()
    admin_paths: frozenset[str] = frozenset()
    on_response: Callable[[str, int], None] | None = None
