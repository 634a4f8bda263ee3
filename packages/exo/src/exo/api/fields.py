"""What becomes of each field of a request. docs/API_COVERAGE.md shows it to people, and is held to it by a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from exo.types import UnsupportedParameter


class Handling(NamedTuple):
    """`note` tells a client of a refused field what to do, and a reader what else there is to know.

    `accepted` are the values of a refused field that change nothing; null always is one.
    """

    kind: Literal["honoured", "refused", "ignored"]
    note: str = ""
    accepted: Sequence[Any] = ()


Fields = Mapping[str, Handling]
"""By the name of the field, in the order of docs/API_COVERAGE.md. Fields that are not there are ignored."""

HONOURED = Handling("honoured")
CACHE = Handling("ignored", "The engine decides what it caches.")
ONE_TIER = Handling("ignored", "There is one tier.")


def refuse_unsupported(wire: msgspec.Struct, fields: Fields) -> None:
    """Raises UnsupportedParameter for the first refused field of `fields` that would change the answer."""
    for name, handling in fields.items():
        if handling.kind == "refused":
            value = getattr(wire, name)
            if value is not None and value not in handling.accepted:
                which = " with this value" if handling.accepted else ""
                raise UnsupportedParameter(f"{name} cannot be honoured here{which}. {handling.note}", param=name)
