"""Answers of `/generate` as earlier servers wrote them; streamed, one such object for each piece."""

from __future__ import annotations

import time
from typing import ClassVar

import msgspec

from exo.api.dialect import plain_error
from exo.inference import Answer
from exo.types import Delta, ExoError, FinishReason
from exo_rkllm.server.earlier_schema import EarlierAnswer, EarlierChoice, EarlierUsage

_encode = msgspec.json.Encoder().encode
_END = b"\n\n"


def _usage(answer: Answer) -> EarlierUsage:
    decode, tokens = answer.timings.decode, answer.usage.completion_tokens
    return EarlierUsage(
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
        choice = EarlierChoice(
            content="".join(self._text),
            reasoning_content="".join(self._reasoning) or msgspec.UNSET,
            finish_reason=self._finish,
        )
        return _encode(EarlierAnswer(created=int(time.time()), choices=[choice], usage=_usage(answer)))

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
        choice = EarlierChoice(content=delta.text, reasoning_content=delta.reasoning or msgspec.UNSET)
        return self._object(choice, EarlierUsage())

    def last(self, answer: Answer) -> bytes:
        return self._object(EarlierChoice(finish_reason=self._finish), _usage(answer))

    def error(self, error: ExoError) -> bytes:
        return _encode(plain_error(error)) + _END

    def _object(self, choice: EarlierChoice, usage: EarlierUsage) -> bytes:
        return _encode(EarlierAnswer(created=self._created, choices=[choice], usage=usage)) + _END
