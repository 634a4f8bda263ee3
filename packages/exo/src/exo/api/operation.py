"""One operation of the HTTP side, as the OpenAPI document tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Operation:
    """One method on one path. `answers` maps a status to the type of its JSON body, or to a content type.

    `stream` is the type of a piece of a streamed answer, whose content type is `stream_type`.
    """

    method: str
    path: str
    summary: str
    answers: dict[int, type | str]
    request: type | None = None
    stream: type | None = None
    stream_type: str = "text/event-stream"
    parameters: Sequence[str] = ()
