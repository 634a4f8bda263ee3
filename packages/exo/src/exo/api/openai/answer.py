"""Our answer to a chat in OpenAI's shape: one JSON object, or chunks as server-sent events."""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import ClassVar

import msgspec
from msgspec import UNSET

from exo import __version__
from exo.api.answering import EVENT_STREAM, StreamWriter, WholeWriter
from exo.api.errors import openai_error
from exo.api.openai.answer_schema import (
    CalledFunction,
    ChatCompletion,
    ChatCompletionChunk,
    ChoiceOut,
    ChunkChoiceOut,
    DeltaOut,
    FunctionDelta,
    MessageOut,
    TextCompletion,
    ToolCallDeltaOut,
    ToolCallOut,
)
from exo.api.openai.choices import ChoicesCollector, ChoicesWriter
from exo.api.openai.counts import timings_out, usage_out
from exo.api.openai.logprobs import chat_logprobs, of_text
from exo.inference import Answer
from exo.types import Delta, ExoError, FinishReason, TokenLogprob, ToolCallDelta

DONE = b"data: [DONE]\n\n"
FINGERPRINT = f"exo-{__version__}"
encode = msgspec.json.Encoder().encode


def new_id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex}"


def event(body: object) -> bytes:
    return b"data: " + encode(body) + b"\n\n"


def error_body(error: ExoError) -> bytes:
    return encode(openai_error(error))


def last_events(chunk: ChatCompletionChunk | TextCompletion, answer: Answer) -> bytes:
    """The end of a stream: the usage in a chunk of its own, if it was asked for, and the end mark."""
    if chunk.usage is UNSET:
        return DONE
    chunk.choices = []
    chunk.usage = usage_out(answer.usage)
    chunk.timings = timings_out(answer)
    return event(chunk) + DONE


def collector(model: str, *, count: int) -> WholeWriter:
    """What gathers an answer of so many choices."""
    return (
        ChoicesCollector(
            [Collector(model, index) for index in range(count)],
            make_body=functools.partial(_completion, model),
            make_error=error_body,
        )
        if count > 1
        else Collector(model)
    )


def chunk_writer(model: str, *, count: int, include_usage: bool) -> StreamWriter:
    """What makes the events of an answer of so many choices."""
    chunk = ChatCompletionChunk(
        id=new_id("chatcmpl"),
        created=int(time.time()),
        model=model,
        choices=[],
        system_fingerprint=FINGERPRINT,
        usage=None if include_usage else UNSET,
    )
    writers = [ChunkWriter(chunk, index) for index in range(count)]
    return ChoicesWriter(writers) if count > 1 else writers[0]


class Collector:
    """Gathers the deltas of a choice that is not streamed."""

    def __init__(self, model: str, index: int = 0) -> None:
        self._model = model
        self._index = index
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, ToolCallOut] = {}
        self._logprobs: list[TokenLogprob] = []
        self._finish: FinishReason = "stop"

    def add(self, delta: Delta) -> None:
        self._text.append(delta.text)
        self._reasoning.append(delta.reasoning)
        if delta.logprobs:
            self._logprobs.extend(of_text(delta))
        for piece in delta.tool_calls:
            call = self._calls.setdefault(piece.index, ToolCallOut(id="", function=CalledFunction("", "")))
            call.id = piece.id or call.id
            call.function.name = piece.name or call.function.name
            call.function.arguments += piece.arguments
        self._finish = delta.finish_reason or self._finish

    def choice(self) -> ChoiceOut:
        text, reasoning, calls = "".join(self._text), "".join(self._reasoning), list(self._calls.values())
        message = MessageOut(
            content=None if calls and not text else text,
            reasoning_content=reasoning or UNSET,
            tool_calls=calls or UNSET,
        )
        logprobs = chat_logprobs(self._logprobs) if self._logprobs else None
        return ChoiceOut(index=self._index, message=message, logprobs=logprobs, finish_reason=self._finish)

    def body(self, answer: Answer) -> bytes:
        return _completion(self._model, [self.choice()], answer)

    def error(self, error: ExoError) -> bytes:
        return error_body(error)


def _completion(model: str, choices: Sequence[ChoiceOut], answer: Answer) -> bytes:
    return encode(
        ChatCompletion(
            id=new_id("chatcmpl"),
            created=int(time.time()),
            model=model,
            choices=list(choices),
            usage=usage_out(answer.usage),
            timings=timings_out(answer),
            system_fingerprint=FINGERPRINT,
        )
    )


class ChunkWriter:
    """Makes the events of one choice: a role first, one finish chunk, and the usage chunk if it was asked for.

    `chunk` is what all events share.
    """

    content_type: ClassVar[bytes] = EVENT_STREAM

    def __init__(self, chunk: ChatCompletionChunk, index: int = 0) -> None:
        self._chunk = chunk
        self._index = index
        # A chunk with plain text differs from the next one only in that text, so the rest is encoded once.
        self._head, self._tail = self._event(DeltaOut(content="\0")).split(b'"\\u0000"')

    def first(self) -> bytes:
        return self._event(DeltaOut(role="assistant", content="", refusal=None))

    def delta(self, delta: Delta) -> bytes:
        """The events of one delta; may be empty."""
        text = delta.text
        if text and not (delta.reasoning or delta.tool_calls or delta.logprobs or delta.finish_reason):
            return self._head + encode(text) + self._tail
        return b"".join(self._events(delta))

    def last(self, answer: Answer) -> bytes:
        return last_events(self._chunk, answer)

    def error(self, error: ExoError) -> bytes:
        """The event that ends a stream which cannot be completed; [DONE] does not follow it."""
        return event(openai_error(error))

    def _events(self, delta: Delta) -> Iterator[bytes]:
        logprobs = of_text(delta)
        if delta.reasoning:
            yield self._event(DeltaOut(reasoning_content=delta.reasoning))
        if delta.text or logprobs:
            yield self._event(DeltaOut(content=delta.text), logprobs=logprobs)
        if delta.tool_calls:
            yield self._event(DeltaOut(tool_calls=[_piece(piece) for piece in delta.tool_calls]))
        if delta.finish_reason is not None:
            yield self._event(DeltaOut(), delta.finish_reason)

    def _event(
        self, delta: DeltaOut, finish: FinishReason | None = None, logprobs: Sequence[TokenLogprob] = ()
    ) -> bytes:
        self._chunk.choices = [
            ChunkChoiceOut(
                index=self._index,
                delta=delta,
                logprobs=chat_logprobs(logprobs) if logprobs else None,
                finish_reason=finish,
            )
        ]
        return event(self._chunk)


def _piece(piece: ToolCallDelta) -> ToolCallDeltaOut:
    return ToolCallDeltaOut(
        index=piece.index,
        id=piece.id or UNSET,
        type="function" if piece.id else UNSET,
        function=FunctionDelta(name=piece.name or UNSET, arguments=piece.arguments),
    )
