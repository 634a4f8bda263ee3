"""The events of a streamed response. Events of one shape share a type."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from exo.api.openai.answer_schema import LogprobOut
from exo.api.responses.schema import OutputItem, OutputTextPart, ReasoningTextPart


class ResponseEvent(msgspec.Struct, kw_only=True):
    """What every event has; `sequence_number` is given to it when it is written."""

    type: str
    sequence_number: int = 0


class LifecycleEvent(ResponseEvent, kw_only=True):
    """response.created, .in_progress, .completed, .incomplete, .failed. `response` is a ResponseObject as JSON."""

    response: msgspec.Raw


class ItemEvent(ResponseEvent, kw_only=True):
    """response.output_item.added, .done."""

    output_index: int
    item: OutputItem


class PieceEvent(ResponseEvent, kw_only=True):
    """What all events inside of an item have."""

    item_id: str
    output_index: int


class PartEvent(PieceEvent, kw_only=True):
    """response.content_part.added, .done."""

    content_index: int = 0
    part: OutputTextPart | ReasoningTextPart


class TextDeltaEvent(PieceEvent, kw_only=True):
    """response.output_text.delta."""

    content_index: int = 0
    delta: str
    logprobs: Sequence[LogprobOut]


class TextDoneEvent(PieceEvent, kw_only=True):
    """response.output_text.done."""

    content_index: int = 0
    text: str
    logprobs: Sequence[LogprobOut]


class ReasoningDeltaEvent(PieceEvent, kw_only=True):
    """response.reasoning_text.delta."""

    content_index: int = 0
    delta: str


class ReasoningDoneEvent(PieceEvent, kw_only=True):
    """response.reasoning_text.done."""

    content_index: int = 0
    text: str


class ArgumentsDeltaEvent(PieceEvent, kw_only=True):
    """response.function_call_arguments.delta."""

    delta: str


class ArgumentsDoneEvent(PieceEvent, kw_only=True):
    """response.function_call_arguments.done."""

    name: str
    arguments: str


class ErrorEvent(ResponseEvent, kw_only=True):
    """error: what has ended the stream; response.failed follows."""

    code: str
    message: str
    param: str | None
