"""Our answer to the Responses API's: one response, or the events of one as server-sent events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import ClassVar

import msgspec

from exo.api.answering import EVENT_STREAM
from exo.api.responses.events import ErrorEvent, LifecycleEvent, ResponseEvent
from exo.api.responses.output import Output
from exo.api.responses.schema import (
    IncompleteDetails,
    InputTokensDetails,
    OutputTokensDetails,
    ResponseFailure,
    ResponseObject,
    ResponseUsage,
)
from exo.inference import Answer
from exo.types import Delta, ExoError, FinishReason, Message, RequestError, Usage

Keep = Callable[[bytes, Message], None]
"""Takes a complete response, as JSON, and its answer as a message of the conversation."""
encode = msgspec.json.Encoder().encode


class ResponseCollector:
    """Gathers the deltas of a response that is not streamed. `keep` None: nothing is stored."""

    def __init__(self, response: ResponseObject, keep: Keep | None) -> None:
        self._making = _Making(response, keep)

    def add(self, delta: Delta) -> None:
        self._making.add(delta)

    def body(self, answer: Answer) -> bytes:
        self._making.end()
        return self._making.complete(answer)

    def error(self, error: ExoError) -> bytes:
        """The status was sent long ago, so the response itself says that it has failed."""
        return self._making.failed(error)


class ResponseEventWriter:
    """Makes the events of one stream; the last one has the whole response. `keep` as above."""

    content_type: ClassVar[bytes] = EVENT_STREAM

    def __init__(self, response: ResponseObject, keep: Keep | None) -> None:
        self._making = _Making(response, keep)
        self._sent = 0

    def first(self) -> bytes:
        response = msgspec.Raw(self._making.unfinished())
        return self._events(
            LifecycleEvent(type=name, response=response) for name in ("response.created", "response.in_progress")
        )

    def delta(self, delta: Delta) -> bytes:
        """The events of one delta; may be empty."""
        return self._events(self._making.add(delta))

    def last(self, answer: Answer) -> bytes:
        events = self._events(self._making.end())
        response = self._making.complete(answer)
        return events + self._events([LifecycleEvent(type=self._making.event, response=msgspec.Raw(response))])

    def error(self, error: ExoError) -> bytes:
        """The events that end a stream which cannot be completed."""
        param = error.param if isinstance(error, RequestError) else None
        told = ErrorEvent(type="error", code=error.code, message=error.message, param=param)
        failed = LifecycleEvent(type="response.failed", response=msgspec.Raw(self._making.failed(error)))
        return self._events([told, failed])

    def _events(self, events: Iterable[ResponseEvent]) -> bytes:
        written = bytearray()
        for event in events:
            event.sequence_number = self._sent
            self._sent += 1
            written += b"event: " + event.type.encode() + b"\ndata: " + encode(event) + b"\n\n"
        return bytes(written)


class _Making:
    """A response while it is made."""

    def __init__(self, response: ResponseObject, keep: Keep | None) -> None:
        self._response = response
        self._keep = keep
        self._output = Output()
        self._finish: FinishReason = "stop"

    @property
    def event(self) -> str:
        """The event that tells of the response's status."""
        return f"response.{self._response.status}"

    def unfinished(self) -> bytes:
        return encode(self._response)

    def add(self, delta: Delta) -> list[ResponseEvent]:
        self._finish = delta.finish_reason or self._finish
        return self._output.add(delta)

    def end(self) -> list[ResponseEvent]:
        """Close the output; it ends with what was there if there was no room for more."""
        response = self._response
        if self._finish == "length":
            response.status, response.incomplete_details = "incomplete", IncompleteDetails("max_output_tokens")
            return self._output.end("incomplete")
        response.status, response.completed_at = "completed", int(time.time())
        return self._output.end("completed")

    def complete(self, answer: Answer) -> bytes:
        """The JSON of the response, which is now stored."""
        self._response.output = self._output.items
        self._response.usage = usage_out(answer.usage)
        body = encode(self._response)
        if self._keep is not None:
            self._keep(body, self._output.message())
        return body

    def failed(self, error: ExoError) -> bytes:
        """The JSON of the response with its complete items; it is not stored."""
        self._response.status = "failed"
        self._response.error = failure_of(error)
        self._response.output = self._output.items
        return encode(self._response)


def usage_out(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputTokensDetails(cached_tokens=usage.cached_tokens),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=usage.reasoning_tokens),
        total_tokens=usage.total_tokens,
    )


def failure_of(error: ExoError) -> ResponseFailure:
    """The error inside of a response."""
    if isinstance(error, RequestError):
        return ResponseFailure(code="invalid_prompt", message=error.message, type=error.code, param=error.param)
    return ResponseFailure(code="server_error", message=error.message, type=error.code)
