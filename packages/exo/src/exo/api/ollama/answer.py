"""Our answer to Ollama's: one JSON object, or a line of JSON for each piece."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar, Literal

import msgspec

from exo.api.answering import NDJSON
from exo.api.errors import plain_error
from exo.api.ollama.clock import nanoseconds, now
from exo.api.ollama.schema import AnswerLine, OllamaChatAnswer, OllamaGenerateAnswer, OllamaMessageOut
from exo.inference import Answer
from exo.types import Delta, ExoError, FinishReason

MakeLine = Callable[[str, str], AnswerLine]
"""A line of a text and of the reasoning beside it; either may be empty."""
encode = msgspec.json.Encoder().encode


def chat_line(model: str, text: str, thinking: str) -> OllamaChatAnswer:
    message = OllamaMessageOut(content=text, thinking=thinking or msgspec.UNSET)
    return OllamaChatAnswer(model=model, created_at=now(), message=message)


def generate_line(model: str, text: str, thinking: str) -> OllamaGenerateAnswer:
    return OllamaGenerateAnswer(model=model, created_at=now(), response=text, thinking=thinking or msgspec.UNSET)


def without_run(make: MakeLine, reason: Literal["load", "unload"]) -> AnswerLine:
    """The answer to a request that only loads or unloads a model."""
    line = make("", "")
    line.done, line.done_reason = True, reason
    return line


class LineWriter:
    """Makes the lines of one stream. Without `thinking` what the model reasons all the same is left out.

    `started` is when the request came, on the monotonic clock.
    """

    content_type: ClassVar[bytes] = NDJSON

    def __init__(self, make: MakeLine, *, started: float, thinking: bool) -> None:
        self._make = make
        self._started = started
        self._thinking = thinking
        self._finish: FinishReason | None = None

    def first(self) -> bytes:
        return b""

    def delta(self, delta: Delta) -> bytes:
        self._finish = delta.finish_reason or self._finish
        reasoning = delta.reasoning if self._thinking else ""
        return encode(self._make(delta.text, reasoning)) + b"\n" if delta.text or reasoning else b""

    def last(self, answer: Answer) -> bytes:
        return encode(finished(self._make("", ""), answer, self._finish, self._started)) + b"\n"

    def error(self, error: ExoError) -> bytes:
        """The line that ends a stream which cannot be completed; none with `done` follows it."""
        return encode(plain_error(error)) + b"\n"


class LineCollector:
    """Gathers the deltas of an answer that is not streamed; arguments as for LineWriter."""

    def __init__(self, make: MakeLine, *, started: float, thinking: bool) -> None:
        self._make = make
        self._started = started
        self._thinking = thinking
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._finish: FinishReason | None = None

    def add(self, delta: Delta) -> None:
        self._text.append(delta.text)
        self._reasoning.append(delta.reasoning if self._thinking else "")
        self._finish = delta.finish_reason or self._finish

    def body(self, answer: Answer) -> bytes:
        line = self._make("".join(self._text), "".join(self._reasoning))
        return encode(finished(line, answer, self._finish, self._started))

    def error(self, error: ExoError) -> bytes:
        return encode(plain_error(error))


def finished(line: AnswerLine, answer: Answer, finish: FinishReason | None, started: float) -> AnswerLine:
    """The same line as the last one, with counts and durations as the runtime measured them; the total is ours."""
    line.done = True
    line.done_reason = "length" if finish == "length" else "stop"
    line.total_duration = nanoseconds(time.monotonic() - started)
    line.load_duration = nanoseconds(answer.timings.load)
    line.prompt_eval_count = answer.usage.prompt_tokens
    line.prompt_eval_duration = nanoseconds(answer.timings.prefill)
    line.eval_count = answer.usage.completion_tokens
    line.eval_duration = nanoseconds(answer.timings.decode)
    return line
