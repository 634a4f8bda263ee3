"""What OpenAI's dialect looks like on the wire, for everything that asks a server in it.

Requests are written with the fields that are set. Answers are read leniently: a field that is missing or null is empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from exo.types import AnswerFormat, FinishReason, Limits, Message, Sampling, Timings, Usage

SEEDS = 2**32 - 1
"""llama.cpp, also behind other servers, takes 32 bits, of which the last value means a random seed."""
_FINISH_REASONS: Mapping[str, FinishReason] = {
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}
"""Whatever else a server says, the model has ended its answer."""


class Piece(msgspec.Struct):
    """What is added to an answer. Servers have two names for what the model reasons."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class Choice(msgspec.Struct):
    """One of the answers; `message` stands for `delta` where a server does not stream, `text` continues a prompt."""

    finish_reason: str | None = None
    delta: Piece | None = None
    message: Piece | None = None
    text: str | None = None

    @property
    def said(self) -> tuple[str, str]:
        """The text and the reasoning of this piece."""
        piece = self.delta or self.message
        if piece is None:
            return self.text or "", ""
        return piece.content or self.text or "", piece.reasoning_content or piece.reasoning or ""

    @property
    def finish(self) -> FinishReason | None:
        """Why the answer ends, None while it does not."""
        return _FINISH_REASONS.get(self.finish_reason, "stop") if self.finish_reason else None


class PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class WireUsage(msgspec.Struct):
    """Counted tokens."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class WireTimings(msgspec.Struct):
    """Milliseconds, which llama.cpp and exo add to the last piece; the load only exo."""

    prompt_ms: float = 0.0
    predicted_ms: float = 0.0
    load_ms: float = 0.0


class Chunk(msgspec.Struct):
    """One event of a streamed answer."""

    choices: list[Choice] | None = None
    usage: WireUsage | None = None
    timings: WireTimings | None = None
    error: Any = None


def messages_json(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages of a conversation."""
    return [_message_json(message) for message in messages]


def _message_json(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        body["reasoning_content"] = message.reasoning
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        body["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return body


def format_json(form: AnswerFormat) -> dict[str, Any]:
    """The format of an answer, for `response_format`."""
    if form.schema is None:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": form.schema, "strict": True}}


def sampling_json(sampling: Sampling) -> dict[str, Any]:
    """The fields that are set. Ollama's options have the same names."""
    body: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": None if sampling.seed is None else sampling.seed % SEEDS,
    }
    return {name: value for name, value in body.items() if value is not None}


def limits_json(limits: Limits, max_tokens: str = "max_tokens") -> dict[str, Any]:
    """The limits that are set, the cap by the name `max_tokens`. The deadline is the node's business."""
    body: dict[str, Any] = {}
    if limits.max_tokens is not None:
        body[max_tokens] = limits.max_tokens
    if limits.stop:
        body["stop"] = list(limits.stop)
    return body


def usage_of(usage: WireUsage | None) -> Usage:
    """The counts; 0 for what a server does not count."""
    if usage is None:
        return Usage()
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    return Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=(prompt and prompt.cached_tokens) or 0,
        reasoning_tokens=(completion and completion.reasoning_tokens) or 0,
    )


def timings_of(timings: WireTimings | None) -> Timings | None:
    """The durations in seconds, None where a server tells none."""
    if timings is None:
        return None
    return Timings(load=timings.load_ms / 1000, prefill=timings.prompt_ms / 1000, decode=timings.predicted_ms / 1000)
