"""From the tokens of a run to the deltas of an answer: text, reasoning, padding, stop strings, counts. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from exo.chat import Called, ReasoningSplitter, StopStrings, ToolEvent, ToolParser, Utf8Joiner
from exo.types import Delta, EndlessPadding, FinishReason, ThinkingMarkers, ToolCallDelta

_PAD = re.compile(rb"\[PAD[0-9]+\]")


@dataclass(frozen=True)
class TokenRules:
    """What ids tell about tokens.

    `silent` ids (end of sequence, special tokens) are never text. Ids from `vocabulary` on are internal to the runtime;
    None where the vocabulary is not known. `markers` are the ids of the markers of reasoning: the runtime may hide the
    text of such tokens.
    """

    silent: frozenset[int] = frozenset()
    ends: frozenset[int] = frozenset()
    vocabulary: int | None = None
    markers: Mapping[int, str] = field(default_factory=dict)


class AnswerFilter:
    """Takes the tokens of one run, in order.

    `pad_limit` is the number of internal tokens in a row that are taken for thinking; more raise EndlessPadding.
    Stop strings are looked for in the answer, not in the reasoning, nor in the calls of functions that `calls` finds;
    with `one_call` the first one ends the answer. With `thinking` None all text is answer.
    """

    def __init__(
        self,
        rules: TokenRules,
        *,
        thinking: ThinkingMarkers | None = None,
        inside: bool = False,
        stops: Sequence[str] = (),
        pad_limit: int,
        calls: ToolParser | None = None,
        one_call: bool = False,
    ) -> None:
        self.tokens = 0
        self.reasoning_tokens = 0
        self.think_budget: int | None = None
        """How many tokens of reasoning there may be; afterwards `has_thought_enough` is true."""
        self.ids: list[int] | None = []
        """The answer's ids; None once a token came without its text, whose id is not to be trusted."""
        self._rules = rules
        self._splitter = None if thinking is None else ReasoningSplitter(thinking, inside=inside)
        self._stops = StopStrings(stops)
        self._parser = calls
        self._one_call = one_call
        self.calls = 0
        self._utf8 = Utf8Joiner()
        self._raw: list[str] = []
        self._pads = 0
        self._pad_limit = pad_limit

    @property
    def stop(self) -> str | None:
        """The stop string that has come."""
        return self._stops.hit

    @property
    def stopped(self) -> bool:
        """A stop string has come, or the only call: the answer is complete."""
        return self._stops.hit is not None or (self._one_call and self.calls > 0)

    @property
    def has_thought_enough(self) -> bool:
        """The model still reasons, and has had all the tokens for it."""
        if self.think_budget is None or self._splitter is None or not self._splitter.inside:
            return False
        return self.reasoning_tokens >= self.think_budget

    def end_reasoning(self, text: str, ids: Sequence[int]) -> Delta:
        """Take in what ends the reasoning, which the model has not written itself. Further reasoning is not ended."""
        self.think_budget = None
        assert self._splitter is not None  # noqa: S101 - for mypy: only a model that reasons has thought enough
        self._raw.append(text)
        if self.ids is not None:
            self.ids.extend(ids)
        reasoning, answer = self._splitter.feed(self._utf8.flush() + text)
        return self._delta(reasoning, answer) or Delta()

    @property
    def raw_text(self) -> str:
        """All that was generated, markers and reasoning included, without padding."""
        return "".join(self._raw)

    def feed(self, token_id: int, text: bytes) -> Delta | None:
        """Take a token; return what it adds. Raises EndlessPadding."""
        rules = self._rules
        if token_id in rules.ends:
            return None
        self.tokens += 1
        if not text and token_id not in rules.markers:
            self.ids = None
            return None
        if (rules.vocabulary is not None and token_id >= rules.vocabulary) or (
            text.startswith(b"[PAD") and _PAD.fullmatch(text)
        ):
            return self._padding(text)
        self._pads = 0
        if self.ids is not None:
            self.ids.append(token_id)
        if token_id in rules.markers:
            piece = rules.markers[token_id]
        elif token_id in rules.silent:
            return None
        else:
            piece = self._utf8.feed(text)
        self._raw.append(piece)
        if self._splitter is None:
            return self._delta("", piece)
        was_inside = self._splitter.inside
        reasoning, answer = self._splitter.feed(piece)
        if reasoning or self._splitter.inside or (was_inside and not answer):  # the last: the end of the reasoning
            self.reasoning_tokens += 1
        return self._delta(reasoning, answer)

    def flush(self) -> Delta | None:
        """The run has ended: what was held back for a marker, a stop string or a character that never came."""
        piece = self._utf8.flush()
        reasoning, answer = ("", piece) if self._splitter is None else self._splitter.feed(piece)
        if self._splitter is not None:
            more_reasoning, more = self._splitter.flush()
            reasoning, answer = reasoning + more_reasoning, answer + more
        called: tuple[ToolCallDelta, ...] = ()
        if self._parser is not None:
            answer, called = self._read(self._parser.feed(answer) + self._parser.flush())
        answer = self._stops.feed(answer) + ("" if self.stopped else self._stops.flush())
        return Delta(text=answer, reasoning=reasoning, tool_calls=called) if answer or reasoning or called else None

    def finish_reason(self, cap: int) -> FinishReason:
        """Why the run ended, `cap` being the greatest number of tokens it was allowed."""
        return "length" if self.tokens >= cap and not self.stopped else "stop"

    def ended_itself(self, cap: int) -> bool:
        """The model ended the answer: then its last token was evaluated, and is in the cache."""
        return self.finish_reason(cap) == "stop" and not self.stopped

    def _padding(self, text: bytes) -> Delta | None:
        self._pads += 1
        self.reasoning_tokens += 1
        self.ids = None
        if self._pads > self._pad_limit:
            raise EndlessPadding(
                f"The model produced {self._pads} padding tokens in a row ({text.decode(errors='replace')}), more than "
                f"the {self._pad_limit} that RKLLM_PAD_LIMIT allows, so the run was ended. Send the request again, or "
                "shorten it."
            )
        piece = text.decode(errors="replace")
        if self._splitter is None or not self._splitter.inside:
            return Delta(reasoning=piece)
        return self._delta(*self._splitter.feed(piece))  # so that it stays behind the blanks that are held back

    def _delta(self, reasoning: str, answer: str) -> Delta | None:
        called: tuple[ToolCallDelta, ...] = ()
        if answer and self._parser is not None:
            answer, called = self._read(self._parser.feed(answer))
        if answer:
            answer = self._stops.feed(answer)
        return Delta(text=answer, reasoning=reasoning, tool_calls=called) if answer or reasoning or called else None

    def _read(self, events: Iterable[ToolEvent]) -> tuple[str, tuple[ToolCallDelta, ...]]:
        """The text and the calls in what has been parsed."""
        text, called = "", []
        for event in events:
            if isinstance(event, Called):
                called.append(ToolCallDelta(index=self.calls, name=event.name, arguments=event.arguments))
                self.calls += 1
            else:
                text += event.text
        return text, tuple(called)
