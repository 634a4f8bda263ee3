"""From deltas to the items of a response, and the events that tell of them. No input or output is done here."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Literal, Protocol

from exo.api.openai.answer_schema import LogprobOut
from exo.api.openai.logprobs import logprob_out, of_text
from exo.api.responses.events import (
    ArgumentsDeltaEvent,
    ArgumentsDoneEvent,
    ItemEvent,
    PartEvent,
    ReasoningDeltaEvent,
    ReasoningDoneEvent,
    ResponseEvent,
    TextDeltaEvent,
    TextDoneEvent,
)
from exo.api.responses.schema import (
    FunctionCallItem,
    MessageItem,
    OutputItem,
    OutputTextPart,
    ReasoningItem,
    ReasoningTextPart,
    Status,
)
from exo.types import Delta, Message, ToolCall, ToolCallDelta


class Output:
    """The items of an answer. One is open at a time; another kind of delta, or another call, closes it."""

    def __init__(self) -> None:
        self.items: list[OutputItem] = []
        self._open: _OpenItem | None = None
        self._logprobs: list[LogprobOut] = []

    def add(self, delta: Delta) -> list[ResponseEvent]:
        """Take a delta. What it brings in one is told in the order reasoning, text, calls."""
        events: list[ResponseEvent] = []
        if delta.reasoning:
            reasoning = self._open
            if not isinstance(reasoning, _OpenReasoning):
                reasoning = _OpenReasoning(self._close("completed", events))
                self._begin(reasoning, events)
            events.append(reasoning.add(delta.reasoning))
        if delta.logprobs:  # those of a token whose bytes are only a part of a character wait for the text of it
            self._logprobs += map(logprob_out, of_text(delta))
        if delta.text:
            events += self._text(delta.text)
        for call in delta.tool_calls:
            events += self._call(call)
        return events

    def end(self, status: Literal["completed", "incomplete"]) -> list[ResponseEvent]:
        """Close the last item. An answer without any item is an empty message."""
        events: list[ResponseEvent] = []
        if not self.items and self._open is None:
            self._begin(_OpenMessage(0), events)
        self._close(status, events)
        return events

    def message(self) -> Message:
        """The answer as a message of the conversation."""
        texts, reasoning, calls = [], [], []
        for item in self.items:
            match item:
                case MessageItem():
                    texts += [part.text for part in item.content if isinstance(part, OutputTextPart)]
                case ReasoningItem():
                    reasoning += [part.text for part in item.content]
                case FunctionCallItem():
                    calls.append(ToolCall(id=item.call_id, name=item.name, arguments=item.arguments))
        return Message(role="assistant", content="".join(texts), reasoning="".join(reasoning), tool_calls=tuple(calls))

    def _text(self, text: str) -> list[ResponseEvent]:
        events: list[ResponseEvent] = []
        message = self._open
        if not isinstance(message, _OpenMessage):
            message = _OpenMessage(self._close("completed", events))
            self._begin(message, events)
        logprobs, self._logprobs = self._logprobs, []
        events.append(message.add(text, logprobs))
        return events

    def _call(self, piece: ToolCallDelta) -> list[ResponseEvent]:
        events: list[ResponseEvent] = []
        call = self._open
        if not isinstance(call, _OpenCall) or call.number != piece.index:
            call = _OpenCall(self._close("completed", events), piece)
            self._begin(call, events)
        if piece.arguments:
            events.append(call.add(piece.arguments))
        return events

    def _begin(self, item: _OpenItem, events: list[ResponseEvent]) -> None:
        self._open = item
        events += item.begin()

    def _close(self, status: Status, events: list[ResponseEvent]) -> int:
        """Close the open item, if there is one. Returns the place of the next one."""
        if self._open is not None:
            item, last_events = self._open.close(status)
            place = len(self.items)
            self.items.append(item)
            events += last_events
            events.append(ItemEvent(type="response.output_item.done", output_index=place, item=item))
            self._open = None
        return len(self.items)


class _OpenItem(Protocol):
    """An item that still gets pieces."""

    def begin(self) -> Iterable[ResponseEvent]: ...
    def close(self, status: Status) -> tuple[OutputItem, list[ResponseEvent]]: ...


class _OpenReasoning:
    def __init__(self, place: int) -> None:
        self._place = place
        self._id = _new_id("rs")
        self._pieces: list[str] = []

    def begin(self) -> Iterable[ResponseEvent]:
        item = ReasoningItem(id=self._id, status="in_progress", content=())
        return _added(item, ReasoningTextPart(""), self._place)

    def add(self, text: str) -> ResponseEvent:
        self._pieces.append(text)
        return ReasoningDeltaEvent(
            type="response.reasoning_text.delta", item_id=self._id, output_index=self._place, delta=text
        )

    def close(self, status: Status) -> tuple[OutputItem, list[ResponseEvent]]:
        part = ReasoningTextPart("".join(self._pieces))
        done = ReasoningDoneEvent(
            type="response.reasoning_text.done", item_id=self._id, output_index=self._place, text=part.text
        )
        return (
            ReasoningItem(id=self._id, status=status, content=(part,)),
            [done, _part_done(self._id, part, self._place)],
        )


class _OpenMessage:
    def __init__(self, place: int) -> None:
        self._place = place
        self._id = _new_id("msg")
        self._pieces: list[str] = []
        self._logprobs: list[LogprobOut] = []

    def begin(self) -> Iterable[ResponseEvent]:
        item = MessageItem(id=self._id, status="in_progress", content=())
        return _added(item, OutputTextPart(text=""), self._place)

    def add(self, text: str, logprobs: list[LogprobOut]) -> ResponseEvent:
        self._pieces.append(text)
        self._logprobs += logprobs
        return TextDeltaEvent(
            type="response.output_text.delta",
            item_id=self._id,
            output_index=self._place,
            delta=text,
            logprobs=logprobs,
        )

    def close(self, status: Status) -> tuple[OutputItem, list[ResponseEvent]]:
        part = OutputTextPart(text="".join(self._pieces), logprobs=self._logprobs)
        done = TextDoneEvent(
            type="response.output_text.done",
            item_id=self._id,
            output_index=self._place,
            text=part.text,
            logprobs=part.logprobs,
        )
        return (
            MessageItem(id=self._id, status=status, content=(part,)),
            [done, _part_done(self._id, part, self._place)],
        )


class _OpenCall:
    def __init__(self, place: int, first: ToolCallDelta) -> None:
        self.number = first.index
        self._place = place
        self._id = _new_id("fc")
        self._call_id = first.id or _new_id("call")
        self._name = first.name or ""
        self._pieces: list[str] = []

    def begin(self) -> Iterable[ResponseEvent]:
        item = self._item("in_progress")
        return [ItemEvent(type="response.output_item.added", output_index=self._place, item=item)]

    def add(self, arguments: str) -> ResponseEvent:
        self._pieces.append(arguments)
        return ArgumentsDeltaEvent(
            type="response.function_call_arguments.delta",
            item_id=self._id,
            output_index=self._place,
            delta=arguments,
        )

    def close(self, status: Status) -> tuple[OutputItem, list[ResponseEvent]]:
        item = self._item(status)
        done = ArgumentsDoneEvent(
            type="response.function_call_arguments.done",
            item_id=self._id,
            output_index=self._place,
            name=item.name,
            arguments=item.arguments,
        )
        return item, [done]

    def _item(self, status: Status) -> FunctionCallItem:
        return FunctionCallItem(
            id=self._id,
            status=status,
            call_id=self._call_id,
            name=self._name,
            arguments="".join(self._pieces),
        )


def _added(
    item: MessageItem | ReasoningItem, part: OutputTextPart | ReasoningTextPart, place: int
) -> list[ResponseEvent]:
    return [
        ItemEvent(type="response.output_item.added", output_index=place, item=item),
        PartEvent(type="response.content_part.added", item_id=item.id, output_index=place, part=part),
    ]


def _part_done(item_id: str, part: OutputTextPart | ReasoningTextPart, place: int) -> ResponseEvent:
    return PartEvent(type="response.content_part.done", item_id=item_id, output_index=place, part=part)


def _new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"
