"""One operation of the HTTP side, as the OpenAPI document tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

Answer = type | tuple[type, ...] | str
"""The type of a JSON body, several of which it is one, or a content type."""


@dataclass(frozen=True)
class Operation:
    """One method on one path.

    `answers` maps a status to its body. `refusals` are statuses whose body is an error in the shape of the path; the
    document adds those that every path has. `stream` is the type of a piece of a streamed answer, whose content type is
    `stream_type`; a stream of events may end with the data `stream_end`. `parameters` are those of the path, the fields
    of `query` those of the query, and `headers` maps a header that changes the answer to what it does.
    """

    method: str
    path: str
    summary: str
    answers: Mapping[int, Answer]
    refusals: Sequence[int] = ()
    request: type | None = None
    request_required: bool = True
    stream: type | None = None
    stream_type: str = "text/event-stream"
    stream_end: str | None = None
    parameters: Sequence[str] = ()
    query: type[msgspec.Struct] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


OF_RUNS = (404, 429, 500, 502, 503, 504)
"""What a request that a model answers may be refused with, beyond what every request may be."""
