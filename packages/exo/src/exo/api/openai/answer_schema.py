"""Answers as OpenAI publishes them, with llama-server's timings and the reasoning beside the text."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

Finish = Literal["stop", "length", "tool_calls"]


class PromptDetails(msgspec.Struct):
    cached_tokens: int


class CompletionDetails(msgspec.Struct):
    reasoning_tokens: int


class UsageOut(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class TimingsOut(msgspec.Struct):
    """As llama-server tells them, in milliseconds; `load_ms` is how long the request waited for its model."""

    prompt_n: int
    prompt_ms: float
    predicted_n: int
    predicted_ms: float
    load_ms: float


class ChanceOut(msgspec.Struct):
    """`bytes` are those of the token in UTF-8, of which a character may take several tokens."""

    token: str
    logprob: float
    bytes: list[int]


class LogprobOut(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[ChanceOut]


class ChoiceLogprobs(msgspec.Struct):
    content: list[LogprobOut]
    refusal: None = None


class CalledFunction(msgspec.Struct):
    name: str
    arguments: str


class ToolCallOut(msgspec.Struct, kw_only=True):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class MessageOut(msgspec.Struct, kw_only=True):
    role: Literal["assistant"] = "assistant"
    content: str | None
    reasoning_content: str | UnsetType = UNSET
    refusal: None = None
    tool_calls: list[ToolCallOut] | UnsetType = UNSET


class ChoiceOut(msgspec.Struct, kw_only=True):
    index: int
    message: MessageOut
    logprobs: ChoiceLogprobs | None = None
    finish_reason: Finish


class ChatCompletion(msgspec.Struct, kw_only=True):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChoiceOut]
    usage: UsageOut
    timings: TimingsOut


class FunctionDelta(msgspec.Struct):
    name: str | UnsetType = UNSET
    arguments: str = ""


class ToolCallDeltaOut(msgspec.Struct, kw_only=True):
    """A piece of a call: `id`, `type` and the name come with its first one, the arguments in fragments."""

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: FunctionDelta


class DeltaOut(msgspec.Struct, omit_defaults=True):
    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    refusal: UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallDeltaOut] | UnsetType = UNSET


class ChunkChoiceOut(msgspec.Struct, kw_only=True):
    index: int = 0
    delta: DeltaOut
    logprobs: ChoiceLogprobs | None = None
    finish_reason: Finish | None = None


class ChatCompletionChunk(msgspec.Struct, kw_only=True):
    """`usage` is absent unless asked for; then null on all but the last chunk, which has the timings too."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoiceOut]
    usage: UsageOut | UnsetType | None = UNSET
    timings: TimingsOut | UnsetType = UNSET


class TextLogprobs(msgspec.Struct, kw_only=True):
    """One entry for each token; `text_offset` says how many characters of the text are before it."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoiceOut(msgspec.Struct, kw_only=True):
    """`finish_reason` is null in a stream until the choice ends."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: Finish | None = None


class TextCompletion(msgspec.Struct, kw_only=True):
    """A whole answer, or a piece of a streamed one, where usage and timings are as in ChatCompletionChunk."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoiceOut]
    usage: UsageOut | UnsetType | None = UNSET
    timings: TimingsOut | UnsetType = UNSET


class EmbeddingOut(msgspec.Struct, kw_only=True):
    """`embedding` is a list of numbers, or in base64 those numbers as little-endian 32-bit floats."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: tuple[float, ...] | str


class EmbeddingUsage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct, kw_only=True):
    object: Literal["list"] = "list"
    data: list[EmbeddingOut]
    model: str
    usage: EmbeddingUsage


class ModelOut(msgspec.Struct, kw_only=True):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "exo"


class ModelList(msgspec.Struct, kw_only=True):
    object: Literal["list"] = "list"
    data: list[ModelOut]
