"""The pieces of a streamed answer, and when they came."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, final

import msgspec

Clock = Callable[[], float]
"""Seconds that only go forward, as time.perf_counter."""
_LONGEST_MESSAGE = 500


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
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Timings(msgspec.Struct):
    load_ms: float | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    timings: _Timings | None = None
    error: Any = None


@final
class AnswerTimer:
    """Takes the events of one answer. Its first piece of whatever kind is the first token.

    The first piece that is not reasoning is the first answer token.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.start_again()

    def start_again(self) -> None:
        self.started = self._clock()
        self._first_token: float | None = None
        self._first_answer: float | None = None
        self._last: float | None = None
        self._chunks = 0
        self._usage = _Usage()
        self._load: float | None = None
        self._finish_reason: str | None = None
        self._done = False

    def take(self, data: bytes) -> None:
        """The data of one event. Raises RequestFailed if it is an error, or nothing of OpenAI's dialect."""
        if data == b"[DONE]":
            self._done = True
            return
        try:
            event = msgspec.json.decode(data, type=_Event)
        except msgspec.DecodeError:
            raise RequestFailed(
                f"the answer has an event that nobody understands: {data[:80].decode(errors='replace')!r}"
            ) from None
        if event.error:
            raise RequestFailed(message_of(data))
        self._usage = event.usage or self._usage
        if event.timings and event.timings.load_ms is not None:
            self._load = event.timings.load_ms / 1000
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
        self._finish_reason = finish_reason or self._finish_reason

    def check_end(self) -> None:
        """At the end of the stream. Raises RequestFailed if it is not the end of the answer."""
        if not self._done and self._finish_reason is None:
            raise RequestFailed("the answer broke off before its end")

    def fields(self) -> dict[str, Any]:
        """What a sample says of it."""
        counted, details = self._usage.completion_tokens, self._usage.prompt_tokens_details
        return {
            "first_token": self._since_start(self._first_token),
            "first_answer": self._since_start(self._first_answer),
            "total": self._since_start(self._clock() if self._last is None else self._last),
            "prompt_tokens": self._usage.prompt_tokens,
            "cached_tokens": None if details is None else details.cached_tokens,
            "completion_tokens": self._chunks if counted is None else counted,
            "counted_by": "chunks" if counted is None else "usage",
            "load": self._load,
            "finish_reason": self._finish_reason,
        }

    def _since_start(self, moment: float | None) -> float | None:
        return None if moment is None else moment - self.started


def message_of(content: bytes) -> str:
    """What a server says is wrong: its own words, shortened."""
    try:
        said = json.loads(content)
    except ValueError:
        said = content.decode(errors="replace")
    if isinstance(said, dict):
        said = said.get("error") or said.get("message") or said.get("detail") or said
    if isinstance(said, dict):
        said = said.get("message") or said
    return printable(str(said))[:_LONGEST_MESSAGE] or "no message"


def printable(text: str) -> str:
    """One line without control characters: what a stranger's server says is shown on a terminal."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
