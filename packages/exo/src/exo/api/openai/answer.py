"""Our answer to OpenAI's: one JSON object, or chunks as server-sent events."""

from __future__ import annotations

import time
import uuid
from typing import ClassVar

import msgspec

from exo import __version__
from exo.api.answering import EVENT_STREAM
from exo.api.errors import openai_error
from exo.api.openai.schema import (
    ChatCompletion,
    ChatCompletionChunk,
    ChoiceOut,
    ChunkChoiceOut,
    CompletionDetails,
    DeltaOut,
    MessageOut,
    PromptDetails,
    TimingsOut,
    UsageOut,
)
from exo.inference import Answer
from exo.types import Delta, ExoError, FinishReason, Usage

DONE = b"data: [DONE]\n\n"
_FINGERPRINT = f"exo-{__version__}"
_encode = msgspec.json.Encoder().encode


def usage_out(usage: Usage) -> UsageOut:
    return UsageOut(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        prompt_tokens_details=PromptDetails(cached_tokens=usage.cached_tokens),
        completion_tokens_details=CompletionDetails(reasoning_tokens=usage.reasoning_tokens),
    )


def timings_out(answer: Answer) -> TimingsOut:
    """What was evaluated, cached tokens not among them, and how long it took by the runtime's own clock."""
    usage, timings = answer.usage, answer.timings
    return TimingsOut(
        prompt_n=max(0, usage.prompt_tokens - usage.cached_tokens),
        prompt_ms=_milliseconds(timings.prefill),
        predicted_n=usage.completion_tokens,
        predicted_ms=_milliseconds(timings.decode),
        load_ms=_milliseconds(timings.load),
    )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


class Collector:
    """Gathers the deltas of an answer that is not streamed."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._finish: FinishReason = "stop"

    def add(self, delta: Delta) -> None:
        self._text.append(delta.text)
        self._reasoning.append(delta.reasoning)
        self._finish = delta.finish_reason or self._finish

    def body(self, answer: Answer) -> bytes:
        reasoning = "".join(self._reasoning)
        message = MessageOut(content="".join(self._text), reasoning_content=reasoning or msgspec.UNSET)
        return _encode(
            ChatCompletion(
                id=new_id(),
                created=int(time.time()),
                model=self._model,
                choices=[ChoiceOut(index=0, message=message, finish_reason=self._finish)],
                usage=usage_out(answer.usage),
                timings=timings_out(answer),
                system_fingerprint=_FINGERPRINT,
            )
        )

    def error(self, error: ExoError) -> bytes:
        return _encode(openai_error(error))


class ChunkWriter:
    """Makes the events of one stream: a role first, one finish chunk, and the usage chunk if it was asked for."""

    content_type: ClassVar[bytes] = EVENT_STREAM

    def __init__(self, model: str, *, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._chunk = ChatCompletionChunk(
            id=new_id(),
            created=int(time.time()),
            model=model,
            choices=[],
            system_fingerprint=_FINGERPRINT,
            usage=None if include_usage else msgspec.UNSET,
        )
        # A chunk with plain text differs from the next one only in that text, so the rest is encoded once.
        self._head, self._tail = self._event(DeltaOut(content="\0")).split(b'"\\u0000"')

    def first(self) -> bytes:
        return self._event(DeltaOut(role="assistant", content="", refusal=None))

    def delta(self, delta: Delta) -> bytes:
        """The events of one delta; may be empty."""
        events = b""
        if delta.reasoning:
            events += self._event(DeltaOut(reasoning_content=delta.reasoning))
        if delta.text:
            events += self._head + _encode(delta.text) + self._tail
        if delta.finish_reason is not None:
            events += self._event(DeltaOut(), delta.finish_reason)
        return events

    def last(self, answer: Answer) -> bytes:
        if not self._include_usage:
            return DONE
        self._chunk.choices = []
        self._chunk.usage = usage_out(answer.usage)
        self._chunk.timings = timings_out(answer)
        return b"data: " + _encode(self._chunk) + b"\n\n" + DONE

    def error(self, error: ExoError) -> bytes:
        """The event that ends a stream which cannot be completed; [DONE] does not follow it."""
        return b"data: " + _encode(openai_error(error)) + b"\n\n"

    def _event(self, delta: DeltaOut, finish: FinishReason | None = None) -> bytes:
        self._chunk.choices = [ChunkChoiceOut(delta=delta, finish_reason=finish)]
        return b"data: " + _encode(self._chunk) + b"\n\n"


def new_id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"
