"""The pieces of a streamed answer, and when they came."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, final

import msgspec

from exo.types.printable import escaped, one_line

Clock = Callable[[], float]
"""Seconds that only go forward, as time.perf_counter."""
LONGEST_MESSAGE = 500
LARGEST = 2**31
"""What no count and no number of seconds exceeds: a server or a file that says more is not believed."""
_EVENTS_PER_TOKEN, _MORE_EVENTS = 4, 1000
"""An answer with more events than these goes on for ever."""


class RequestFailed(Exception):
    """One request failed; the message is the server's own as far as it sent one."""


class _Delta(msgspec.Struct):
    content: Any = None
    tool_calls: Any = None
    reasoning_content: Any = None
    reasoning: Any = None  # vLLM and OpenRouter call it so


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: Any = None


class _Usage(msgspec.Struct):
    prompt_tokens: Any = None
    completion_tokens: Any = None
    prompt_tokens_details: _PromptDetails | None = None


class _Timings(msgspec.Struct):
    load_ms: Any = None


class _Event(msgspec.Struct):
    model: Any = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    timings: _Timings | None = None
    error: Any = None


@final
class AnswerTimer:
    """Takes the events of one answer. Its first piece of whatever kind is the first token.

    The first piece that is not reasoning is the first answer token. `max_tokens` are those that were asked for.
    """

    def __init__(self, clock: Clock, max_tokens: int) -> None:
        self._clock = clock
        self._most_events = _EVENTS_PER_TOKEN * max_tokens + _MORE_EVENTS
        self.start_again()

    def start_again(self) -> None:
        self.started = self._clock()
        self._first_token: float | None = None
        self._first_answer: float | None = None
        self._last: float | None = None
        self._chunks = self._events = 0
        self._usage = _Usage()
        self._load: float | None = None
        self._model: str | None = None
        self._finish_reason: str | None = None
        self._done = False

    def take(self, data: bytes) -> None:
        """The data of one event. Raises RequestFailed if it is an error, not OpenAI's dialect, or one too many."""
        self._events += 1
        if self._events > self._most_events:
            raise RequestFailed(f"the answer does not end: it has more than {self._most_events} events")
        if data == b"[DONE]":
            self._done = True
            return
        try:
            event = msgspec.json.decode(data, type=_Event)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise RequestFailed(
                f"the answer has an event that nobody understands: {data[:80].decode(errors='replace')!r}"
            ) from None
        if event.error:
            raise RequestFailed(message_of(data))
        self._usage = event.usage or self._usage
        if isinstance(event.model, str):
            self._model = escaped(event.model)[:LONGEST_MESSAGE] or self._model
        if event.timings and (load := _number(event.timings.load_ms)) is not None:
            self._load = load / 1000
        for choice in event.choices or ():
            self._take_choice(choice.delta or _Delta(), choice.finish_reason)

    def _take_choice(self, delta: _Delta, finish_reason: str | None) -> None:
        answer = delta.content or delta.tool_calls
        said = answer or delta.reasoning_content or delta.reasoning
        if not (said or finish_reason):
            return
        self._last = self._clock()
        if said:
            self._chunks += 1
            self._first_token = self._last if self._first_token is None else self._first_token
        if answer and self._first_answer is None:
            self._first_answer = self._last
        if finish_reason:
            self._finish_reason = one_line(finish_reason)[:LONGEST_MESSAGE]

    def check_end(self) -> None:
        """At the end of the stream. Raises RequestFailed if it is not the end of the answer, or if there was none.

        A model that says nothing and has a reason to stop has answered.
        """
        if self._finish_reason is not None:
            return
        if not self._done:
            raise RequestFailed("the answer broke off before its end")
        if self._first_token is None:
            raise RequestFailed("the answer is empty")

    def fields(self) -> dict[str, Any]:
        """What a sample says of it."""
        usage = self._usage
        counted, prompt = _count(usage.completion_tokens), _count(usage.prompt_tokens)
        cached = None if usage.prompt_tokens_details is None else _count(usage.prompt_tokens_details.cached_tokens)
        if cached is not None and prompt is not None and cached > prompt:
            cached = None
        return {
            "first_token": self._since_start(self._first_token),
            "first_answer": self._since_start(self._first_answer),
            "total": self._since_start(self._clock() if self._last is None else self._last),
            "prompt_tokens": prompt,
            "cached_tokens": cached,
            "completion_tokens": self._chunks if counted is None else counted,
            "counted_by": "chunks" if counted is None else "usage",
            "load": self._load,
            "answered_by": self._model,
            "finish_reason": self._finish_reason,
        }

    def _since_start(self, moment: float | None) -> float | None:
        return None if moment is None else moment - self.started


def message_of(content: bytes) -> str:
    """What a server says is wrong: its own words, shortened."""
    try:
        said = json.loads(content, strict=False)  # not strict: control characters may stand in its words
        if isinstance(said, dict):
            said = said.get("error") or said.get("message") or said.get("detail") or said
        if isinstance(said, dict):
            said = said.get("message") or said
        text = str(said)
    except (ValueError, RecursionError):
        text = content.decode(errors="replace")
    return one_line(text)[:LONGEST_MESSAGE] or "no message"


def _count(value: object) -> int | None:
    """A count of tokens, None if it is none that can be true."""
    return value if isinstance(value, int) and _number(value) is not None else None


def _number(value: object) -> float | None:
    """As `_count`, of a number that need not be whole."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value <= LARGEST else None
