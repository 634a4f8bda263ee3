"""Requests and answers as Ollama documents them.

Unknown fields are ignored, as Ollama does. Fields whose only sensible value here is the default are checked where the
internal request is made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

MAX_TOKENS = 2**31 - 1
Name = Annotated[str, Meta(min_length=1)]
Positive = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Whole = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Duration = float | str
"""Seconds as a number, or a text such as `5m`; negative means for ever."""


class Options(msgspec.Struct, kw_only=True):
    """How to run a model. Some may only have their default value."""

    num_ctx: Annotated[int, Meta(ge=1, le=MAX_TOKENS)] | None = None
    num_predict: Annotated[int, Meta(le=MAX_TOKENS)] | None = None
    stop: str | Annotated[list[str], Meta(max_length=64)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=-1, le=MAX_TOKENS)] | None = None
    min_p: Share | None = None
    repeat_penalty: Annotated[float, Meta(ge=0, le=100)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Whole | None = None
    typical_p: float | None = None
    tfs_z: float | None = None
    repeat_last_n: int | None = None
    penalize_newline: bool | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    num_keep: int | None = None
    numa: bool | None = None
    num_batch: int | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    num_thread: int | None = None
    low_vram: bool | None = None
    f16_kv: bool | None = None
    logits_all: bool | None = None
    vocab_only: bool | None = None
    use_mmap: bool | None = None
    use_mlock: bool | None = None
    embedding_only: bool | None = None


class OllamaFunction(msgspec.Struct):
    name: str
    arguments: Mapping[str, Any] | None = None


class OllamaToolCall(msgspec.Struct):
    function: OllamaFunction
    id: str | None = None


class OllamaMessage(msgspec.Struct, kw_only=True):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: list[Any] | None = None
    tool_calls: list[OllamaToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class OllamaToolFunction(msgspec.Struct):
    """`parameters` is the JSON Schema of the arguments."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None


class OllamaTool(msgspec.Struct, kw_only=True):
    type: Literal["function"] | None = None
    function: OllamaToolFunction


class _Generation(msgspec.Struct, kw_only=True):
    """What chat and generate share."""

    model: Name
    stream: bool | None = None
    format: Literal["", "json"] | dict[str, Any] | None = None
    options: Options | None = None
    keep_alive: Duration | None = None
    think: bool | Literal["low", "medium", "high", "max"] | None = None
    truncate: bool | None = None
    shift: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None


class OllamaChatRequest(_Generation, kw_only=True):
    messages: list[OllamaMessage] | None = None
    tools: list[OllamaTool] | None = None


class OllamaGenerateRequest(_Generation, kw_only=True):
    prompt: str | None = None
    system: str | None = None
    template: str | None = None
    raw: bool | None = None
    suffix: str | None = None
    images: list[Any] | None = None
    context: list[int] | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None


class OllamaEmbedRequest(msgspec.Struct, kw_only=True):
    model: Name
    input: str | list[str] | None = None
    truncate: bool | None = None
    dimensions: Annotated[int, Meta(ge=0, le=MAX_TOKENS)] | None = None
    options: Options | None = None
    keep_alive: Duration | None = None


class OllamaEmbeddingsRequest(msgspec.Struct, kw_only=True):
    model: Name
    prompt: str | None = None
    options: Options | None = None
    keep_alive: Duration | None = None


class _Named(msgspec.Struct, kw_only=True):
    """`name` is what older clients send for `model`."""

    model: str | None = None
    name: str | None = None


class OllamaShowRequest(_Named, kw_only=True):
    verbose: bool | None = None
    system: str | None = None
    template: str | None = None
    options: Options | None = None


class OllamaDeleteRequest(_Named, kw_only=True):
    pass


class OllamaPullRequest(_Named, kw_only=True):
    stream: bool | None = None
    insecure: bool | None = None
    force: bool = False
    tokenizer: bool = False
    repository: str = ""


class OllamaCreateRequest(_Named, kw_only=True):
    from_: str | None = msgspec.field(default=None, name="from")
    stream: bool | None = None
    system: str | None = None
    template: str | None = None
    license: str | list[str] | None = None
    parameters: Options | None = None
    messages: list[OllamaMessage] | None = None
    modelfile: str | None = None
    files: dict[str, Any] | None = None
    adapters: dict[str, Any] | None = None
    quantize: str | None = None
    quantization: str | None = None
    force: bool = False


class OllamaCopyRequest(msgspec.Struct, kw_only=True):
    source: Name
    destination: Name
    force: bool = False


class OllamaFunctionOut(msgspec.Struct):
    """`index` counts the calls of an answer."""

    index: int
    name: str
    arguments: Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})]


class OllamaToolCallOut(msgspec.Struct):
    id: str
    function: OllamaFunctionOut


class OllamaMessageOut(msgspec.Struct, kw_only=True):
    role: Literal["assistant"] = "assistant"
    content: str
    thinking: str | UnsetType = UNSET
    tool_calls: list[OllamaToolCallOut] | UnsetType = UNSET


class OllamaChance(msgspec.Struct, kw_only=True):
    """A token with the natural logarithm of its probability, and the bytes of its text."""

    token: str
    logprob: float
    bytes: list[int] | UnsetType = UNSET


class OllamaLogprob(OllamaChance, kw_only=True):
    """A token of the answer, and the most probable ones in its place."""

    top_logprobs: list[OllamaChance] | UnsetType = UNSET


class AnswerLine(msgspec.Struct, kw_only=True):
    """What the lines of chat and generate share. The last one, with `done`, has counts and durations in nanoseconds."""

    model: str
    created_at: str
    done: bool = False
    done_reason: Literal["stop", "length", "load", "unload"] | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET
    logprobs: list[OllamaLogprob] | UnsetType = UNSET


class OllamaChatAnswer(AnswerLine, kw_only=True):
    message: OllamaMessageOut


class OllamaGenerateAnswer(AnswerLine, kw_only=True):
    response: str
    thinking: str | UnsetType = UNSET


class OllamaEmbedAnswer(msgspec.Struct, kw_only=True):
    model: str
    embeddings: tuple[tuple[float, ...], ...]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class OllamaEmbeddingsAnswer(msgspec.Struct, kw_only=True):
    embedding: tuple[float, ...]


class ModelDetails(msgspec.Struct, kw_only=True):
    parent_model: str = ""
    format: str
    family: str
    families: list[str] | None
    parameter_size: str
    quantization_level: str


class TagOut(msgspec.Struct, kw_only=True):
    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: ModelDetails


class TagList(msgspec.Struct, kw_only=True):
    models: list[TagOut]


class ProcessOut(msgspec.Struct, kw_only=True):
    name: str
    model: str
    size: int
    digest: str
    details: ModelDetails
    expires_at: str
    size_vram: int
    context_length: int


class ProcessList(msgspec.Struct, kw_only=True):
    models: list[ProcessOut]


class ShowAnswer(msgspec.Struct, kw_only=True):
    modelfile: str
    parameters: str
    template: str
    system: str
    license: str
    details: ModelDetails
    model_info: dict[str, str | int]
    capabilities: list[str]
    modified_at: str


class ProgressLine(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One step of a pull or a create; sizes are in bytes."""

    status: str
    digest: str | UnsetType = UNSET
    total: int | UnsetType = UNSET
    completed: int | UnsetType = UNSET


class Version(msgspec.Struct):
    version: str


class PlainError(msgspec.Struct):
    """`code` is stable, `param` is the field at fault; Ollama has only `error`."""

    error: str
    code: str
    param: str | UnsetType = UNSET
