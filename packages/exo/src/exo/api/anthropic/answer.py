"""Our answer to Anthropic's: one message made of blocks, or its pieces as server-sent events."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import msgspec

from exo.api.answering import EVENT_STREAM
from exo.api.anthropic.schema import (
    AnthropicAnswer,
    AnthropicDelta,
    AnthropicEvent,
    AnthropicUsage,
    BlockOut,
    OutputDetails,
    StopReason,
    TextOut,
    ThinkingOut,
    ToolUseOut,
)
from exo.api.errors import anthropic_error
from exo.inference import Answer
from exo.types import Delta, ExoError, FinishReason, ToolCallDelta, Usage

BlockKind = Literal["thinking", "text", "tool_use"]
Thinking = Literal["shown", "omitted", "hidden"]
"""What a client sees of the reasoning: all of it, blocks without text, or nothing."""
STOP_REASONS: Mapping[FinishReason, StopReason] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
}
_NO_CALL = ToolCallDelta(index=0)
_NO_INPUT = msgspec.Raw(b"{}")
_SIGNATURE = ""
"""Nothing here signs reasoning, and nothing asks for a signature when it comes back."""
_encode = msgspec.json.Encoder().encode


@dataclass
class Piece:
    """A part of a block. Parts of one block follow each other and have its `kind` and `number`, that of a call."""

    kind: BlockKind
    text: str
    number: int = 0
    call: ToolCallDelta = _NO_CALL

    def continues(self, last: Piece | None) -> bool:
        return last is not None and (last.kind, last.number) == (self.kind, self.number)


class Ending(NamedTuple):
    """`sequence` is the stop sequence that has ended the answer, where that is known."""

    reason: StopReason
    sequence: str | None = None


_ENDED = Ending("end_turn")


def ending(delta: Delta) -> Ending | None:
    """How the answer ends, None while it does not."""
    if delta.finish_reason is None:
        return None
    if delta.finish_reason == "stop" and delta.stop is not None:
        return Ending("stop_sequence", delta.stop)
    return Ending(STOP_REASONS[delta.finish_reason])


def pieces_of(delta: Delta, thinking: Thinking) -> Iterator[Piece]:
    if delta.reasoning and thinking != "hidden":
        yield Piece("thinking", delta.reasoning if thinking == "shown" else "")
    if delta.text:
        yield Piece("text", delta.text)
    for call in delta.tool_calls:
        yield Piece("tool_use", call.arguments, call.index, call)


def usage_out(usage: Usage) -> AnthropicUsage:
    """What the cache held is not among the input tokens, and is written by nobody's order."""
    return AnthropicUsage(
        input_tokens=max(0, usage.prompt_tokens - usage.cached_tokens),
        cache_creation_input_tokens=0,
        cache_read_input_tokens=usage.cached_tokens,
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputDetails(thinking_tokens=usage.reasoning_tokens),
    )


class MessageCollector:
    """Gathers the deltas of an answer that is not streamed."""

    def __init__(self, model: str, *, request_id: str, thinking: Thinking) -> None:
        self._model = model
        self._request_id = request_id
        self._thinking = thinking
        self._blocks: list[tuple[Piece, list[str]]] = []
        self._end = _ENDED

    def add(self, delta: Delta) -> None:
        self._end = ending(delta) or self._end
        for piece in pieces_of(delta, self._thinking):
            if not self._blocks or not piece.continues(self._blocks[-1][0]):
                self._blocks.append((piece, []))
            self._blocks[-1][1].append(piece.text)

    def body(self, answer: Answer) -> bytes:
        return _encode(
            AnthropicAnswer(
                id=new_id(),
                model=self._model,
                content=[_block(first, "".join(texts)) for first, texts in self._blocks],
                stop_reason=self._end.reason,
                stop_sequence=self._end.sequence,
                usage=usage_out(answer.usage),
            )
        )

    def error(self, error: ExoError) -> bytes:
        return _encode(anthropic_error(error, self._request_id))


class EventWriter:
    """Makes the events of one stream. How many tokens the prompt has is known at its end, and told there."""

    content_type: ClassVar[bytes] = EVENT_STREAM

    def __init__(self, model: str, *, request_id: str, thinking: Thinking) -> None:
        self._model = model
        self._request_id = request_id
        self._thinking = thinking
        self._end = _ENDED
        self._open: Piece | None = None
        self._index = -1
        self._head = self._tail = b""

    def first(self) -> bytes:
        message = AnthropicAnswer(id=new_id(), model=self._model, content=[], usage=usage_out(Usage()))
        return _event(AnthropicEvent(type="message_start", message=message)) + _event(AnthropicEvent(type="ping"))

    def delta(self, delta: Delta) -> bytes:
        """The events of one delta; may be empty."""
        self._end = ending(delta) or self._end
        events = b""
        for piece in pieces_of(delta, self._thinking):
            if not piece.continues(self._open):
                events += self._close() + self._begin(piece)
            if piece.text:
                events += self._head + _encode(piece.text) + self._tail
        return events

    def last(self, answer: Answer) -> bytes:
        end = AnthropicDelta(stop_reason=self._end.reason, stop_sequence=self._end.sequence)
        return (
            self._close()
            + _event(AnthropicEvent(type="message_delta", delta=end, usage=usage_out(answer.usage)))
            + _event(AnthropicEvent(type="message_stop"))
        )

    def error(self, error: ExoError) -> bytes:
        """The event that ends a stream which cannot be completed; no message_stop follows it."""
        return b"event: error\ndata: " + _encode(anthropic_error(error, self._request_id)) + b"\n\n"

    def _begin(self, piece: Piece) -> bytes:
        self._open = piece
        self._index += 1
        # Pieces of a block differ in nothing but their text, so the rest is encoded once.
        self._head, self._tail = self._piece(_DELTAS[piece.kind]).split(b'"\\u0000"')
        block = _block(piece, "")
        return _event(AnthropicEvent(type="content_block_start", index=self._index, content_block=block))

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        signed = AnthropicDelta(type="signature_delta", signature=_SIGNATURE)
        signature = self._piece(signed) if self._open.kind == "thinking" else b""
        self._open = None
        return signature + _event(AnthropicEvent(type="content_block_stop", index=self._index))

    def _piece(self, delta: AnthropicDelta) -> bytes:
        return _event(AnthropicEvent(type="content_block_delta", index=self._index, delta=delta))


_DELTAS: Mapping[BlockKind, AnthropicDelta] = {
    "thinking": AnthropicDelta(type="thinking_delta", thinking="\0"),
    "text": AnthropicDelta(type="text_delta", text="\0"),
    "tool_use": AnthropicDelta(type="input_json_delta", partial_json="\0"),
}


def new_id() -> str:
    return f"msg_{uuid.uuid4().hex}"


def _block(first: Piece, text: str) -> BlockOut:
    """A block of that text; one that calls a function without arguments has an empty object."""
    if first.kind == "thinking":
        return ThinkingOut(thinking=text, signature=_SIGNATURE)
    if first.kind == "text":
        return TextOut(text=text)
    given = msgspec.Raw(text.encode()) if text else _NO_INPUT
    return ToolUseOut(id=first.call.id or "", name=first.call.name or "", input=given)


def _event(event: AnthropicEvent) -> bytes:
    return f"event: {event.type}\ndata: ".encode() + _encode(event) + b"\n\n"
