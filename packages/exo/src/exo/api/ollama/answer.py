"""Our answer to Ollama's: one JSON object, or a line of JSON for each piece."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import msgspec

from exo.api.answering import NDJSON
from exo.api.errors import plain_error
from exo.api.ollama.calls import CallGatherer
from exo.api.ollama.clock import nanoseconds, now
from exo.api.ollama.schema import (
    AnswerLine,
    OllamaChance,
    OllamaChatAnswer,
    OllamaGenerateAnswer,
    OllamaLogprob,
    OllamaMessageOut,
    OllamaToolCallOut,
)
from exo.inference import Answer
from exo.types import Delta, ExoError, FinishReason, TokenChance, TokenLogprob

MakeLine = Callable[[str, str, list[OllamaToolCallOut]], AnswerLine]
"""A line of a text, of the reasoning beside it, and of calls; each may be empty."""
encode = msgspec.json.Encoder().encode


def chat_line(model: str, text: str, thinking: str, calls: list[OllamaToolCallOut]) -> OllamaChatAnswer:
    message = OllamaMessageOut(content=text, thinking=thinking or msgspec.UNSET, tool_calls=calls or msgspec.UNSET)
    return OllamaChatAnswer(model=model, created_at=now(), message=message)


def generate_line(
    model: str,
    text: str,
    thinking: str,
    calls: list[OllamaToolCallOut],  # noqa: ARG001 - as above; no request there has tools
) -> OllamaGenerateAnswer:
    return OllamaGenerateAnswer(model=model, created_at=now(), response=text, thinking=thinking or msgspec.UNSET)


def without_run(make: MakeLine, reason: Literal["load", "unload"]) -> AnswerLine:
    """The answer to a request that only loads or unloads a model."""
    line = make("", "", [])
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
        self._calls = CallGatherer()
        self._finish: FinishReason | None = None

    def first(self) -> bytes:
        return b""

    def delta(self, delta: Delta) -> bytes:
        self._finish = delta.finish_reason or self._finish
        earlier = self._calls.complete() if delta.text or delta.reasoning else []
        calls = self._calls.add(delta.tool_calls)
        lines = [*self._call_lines(earlier), *self._said(delta), *self._call_lines(calls)]
        return b"".join(encode(line) + b"\n" for line in lines)

    def last(self, answer: Answer) -> bytes:
        lines = [*self._call_lines(self._calls.complete()), self._make("", "", [])]
        finished(lines[-1], answer, self._finish, self._started)
        return b"".join(encode(line) + b"\n" for line in lines)

    def error(self, error: ExoError) -> bytes:
        """The line that ends a stream which cannot be completed; none with `done` follows it."""
        return encode(plain_error(error)) + b"\n"

    def _said(self, delta: Delta) -> list[AnswerLine]:
        reasoning = delta.reasoning if self._thinking else ""
        logprobs = logprobs_out(delta, thinking=self._thinking)
        if not (delta.text or reasoning or logprobs):
            return []
        line = self._make(delta.text, reasoning, [])
        line.logprobs = logprobs or msgspec.UNSET
        return [line]

    def _call_lines(self, calls: Sequence[OllamaToolCallOut]) -> list[AnswerLine]:
        return [self._make("", "", [call]) for call in calls]


class LineCollector:
    """Gathers the deltas of an answer that is not streamed; arguments as for LineWriter."""

    def __init__(self, make: MakeLine, *, started: float, thinking: bool) -> None:
        self._make = make
        self._started = started
        self._thinking = thinking
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._gatherer = CallGatherer()
        self._calls: list[OllamaToolCallOut] = []
        self._logprobs: list[OllamaLogprob] = []
        self._finish: FinishReason | None = None

    def add(self, delta: Delta) -> None:
        self._text.append(delta.text)
        self._reasoning.append(delta.reasoning if self._thinking else "")
        self._calls += self._gatherer.add(delta.tool_calls)
        self._logprobs += logprobs_out(delta, thinking=self._thinking)
        self._finish = delta.finish_reason or self._finish

    def body(self, answer: Answer) -> bytes:
        calls = self._calls + self._gatherer.complete()
        line = self._make("".join(self._text), "".join(self._reasoning), calls)
        line.logprobs = self._logprobs or msgspec.UNSET
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


def logprobs_out(delta: Delta, *, thinking: bool) -> list[OllamaLogprob]:
    """The probabilities of a delta; those of reasoning that is left out are left out with it."""
    if delta.reasoning and not delta.text and not thinking:
        return []
    return [_logprob(one) for one in delta.logprobs]


def _logprob(one: TokenLogprob) -> OllamaLogprob:
    chosen = _chance(one.chosen)
    return OllamaLogprob(
        token=chosen.token,
        logprob=chosen.logprob,
        bytes=chosen.bytes,
        top_logprobs=[_chance(other) for other in one.top] or msgspec.UNSET,
    )


def _chance(chance: TokenChance) -> OllamaChance:
    """Where the bytes are no UTF-8 alone, the text has the sign for that, as Ollama has it."""
    text = chance.text or chance.raw.decode(errors="replace")
    return OllamaChance(token=text, logprob=chance.logprob, bytes=list(chance.raw) or msgspec.UNSET)
