"""What an engine hands back: a stream of deltas, the last one with the finish reason and the usage."""

from __future__ import annotations

from typing import Literal

import msgspec

from exo.types.request import Sampling

FinishReason = Literal["stop", "length", "tool_calls"]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Exact token counts. `cached_tokens` of the prompt came from the KV cache; `reasoning_tokens` are completion."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in seconds, as the runtime itself measured them."""

    load: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0


class ToolCallDelta(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a tool call: `id` and `name` come with its first piece, `arguments` in fragments of JSON text."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class TokenChance(msgspec.Struct, frozen=True, kw_only=True):
    """A token and the natural logarithm of its probability. `text` is empty where the bytes are no UTF-8 alone."""

    text: str
    logprob: float
    raw: bytes = b""


class TokenLogprob(msgspec.Struct, frozen=True, kw_only=True):
    """A token of the answer, and the most probable ones in its place, which may hold the token itself."""

    chosen: TokenChance
    top: tuple[TokenChance, ...] = ()


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of an answer. Any field may be empty; `finish_reason`, `usage` and `timings` come with the last one.

    `stop` comes with it too: the stop string that has ended the answer, where the engine can tell.
    `sampling` comes with the first one, where the runtime does not let a request choose: the values that it uses.
    An empty first delta only tells that the run has begun.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    stop: str | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    sampling: Sampling | None = None


class Embeddings(msgspec.Struct, frozen=True, kw_only=True):
    """One vector for each input (`len(vectors)` by dimension floats), in their order."""

    vectors: tuple[tuple[float, ...], ...]
    usage: Usage
