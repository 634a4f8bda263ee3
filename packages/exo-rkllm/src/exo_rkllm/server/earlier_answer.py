"""Answers of `/generate` as earlier servers wrote them; streamed, one such object for each piece."""

from __future__ import annotations

import time
from typing import ClassVar, Literal

import msgspec

from exo.api.dialect import plain_error
from exo.inference import Answer
from exo.types import Delta, ExoError, FinishReason

_encode = msgspec.json.Encoder().encode
_END = b"\n\n"


class _Choice(msgspec.Struct, kw_only=True):
    """`reasoning_content` is ours: earlier servers had the reasoning inside the content."""

    role: Literal["assistant"] = "assistant"
    content: str = ""
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    logprobs: None = None
    finish_reason: FinishReason | None = None


class _Usage(msgspec.Struct, kw_only=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    tokens_per_second: float | None = None


class _Body(msgspec.Struct, kw_only=True):
    id: str = "rkllm_chat"
    object: Literal["rkllm_chat"] = "rkllm_chat"
    created: int
    choices: list[_Choice]
    usage: _Usage


def _usage(answer: Answer) -> _Usage:
    decode, tokens = answer.timings.decode, answer.usage.completion_tokens
    return _Usage(
        prompt_tokens=answer.usage.prompt_tokens,
        completion_tokens=tokens,
        total_tokens=answer.usage.total_tokens,
        tokens_per_second=round(tokens / decode, 2) if decode > 0 else None,
    )


class EarlierWhole:
    """One object with the whole answer."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._finish: FinishReason = "stop"

    def add(self, delta: Delta) -> None:
        self._text.append(delta.text)
        self._reasoning.append(delta.reasoning)
        self._finish = delta.finish_reason or self._finish

    def body(self, answer: Answer) -> bytes:
        choice = _Choice(
            content="".join(self._text),
            reasoning_content="".join(self._reasoning) or msgspec.UNSET,
            finish_reason=self._finish,
        )
        return _encode(_Body(created=int(time.time()), choices=[choice], usage=_usage(answer)))

    def error(self, error: ExoError) -> bytes:
        return _encode(plain_error(error))


class EarlierStream:
    """An object for each piece, with blank lines between; the last one has the finish reason and the usage."""

    content_type: ClassVar[bytes] = b"text/plain; charset=utf-8"

    def __init__(self) -> None:
        self._created = int(time.time())
        self._finish: FinishReason = "stop"

    def first(self) -> bytes:
        return b""

    def delta(self, delta: Delta) -> bytes:
        self._finish = delta.finish_reason or self._finish
        if not delta.text and not delta.reasoning:
            return b""
        choice = _Choice(content=delta.text, reasoning_content=delta.reasoning or msgspec.UNSET)
        return self._object(choice, _Usage())

    def last(self, answer: Answer) -> bytes:
        return self._object(_Choice(finish_reason=self._finish), _usage(answer))

    def error(self, error: ExoError) -> bytes:
        return _encode(plain_error(error)) + _END

    def _object(self, choice: _Choice, usage: _Usage) -> bytes:
        return _encode(_Body(created=self._created, choices=[choice], usage=usage)) + _END
