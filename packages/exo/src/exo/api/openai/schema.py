"""Requests as OpenAI publishes them, with the fields that llama-server adds.

Unknown fields are ignored, as llama-server does. `exo.api.openai.fields` says of each field what becomes of it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from exo.types import Effort

MAX_TOKENS = 2**31 - 1
MAX_N = 16
MAX_INPUTS = 2048
Tokens = Annotated[int, Meta(ge=1, le=MAX_TOKENS)]
Name = Annotated[str, Meta(min_length=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
Texts = str | list[str | int | list[int]]
"""A text, or several; OpenAI takes the numbers of tokens in place of each."""


class TextPart(msgspec.Struct, tag_field="type", tag="text"):
    text: str


class RefusalPart(msgspec.Struct, tag_field="type", tag="refusal"):
    refusal: str


class ImagePart(msgspec.Struct, tag_field="type", tag="image_url"):
    image_url: dict[str, Any]


class AudioPart(msgspec.Struct, tag_field="type", tag="input_audio"):
    input_audio: dict[str, Any]


class FilePart(msgspec.Struct, tag_field="type", tag="file"):
    file: dict[str, Any]


Part = TextPart | RefusalPart | ImagePart | AudioPart | FilePart


class FunctionCall(msgspec.Struct):
    name: str
    arguments: str


class CallOfTool(msgspec.Struct):
    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class ChatMessage(msgspec.Struct, kw_only=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[CallOfTool] | None = None
    tool_call_id: str | None = None
    function_call: Any = None
    audio: Any = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class FunctionIn(msgspec.Struct, kw_only=True):
    """`strict` has no effect: arguments are checked in any case."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(msgspec.Struct, tag_field="type", tag="function"):
    function: FunctionIn


class CustomTool(msgspec.Struct, tag_field="type", tag="custom"):
    custom: Any = None


class FunctionName(msgspec.Struct):
    name: Name


class ChooseFunction(msgspec.Struct, tag_field="type", tag="function"):
    function: FunctionName


class AllowedTools(msgspec.Struct):
    mode: Literal["auto", "required"]
    tools: list[ChooseFunction]


class ChooseAllowed(msgspec.Struct, tag_field="type", tag="allowed_tools"):
    allowed_tools: AllowedTools


class ChooseCustom(msgspec.Struct, tag_field="type", tag="custom"):
    custom: Any = None


class JsonSchema(msgspec.Struct, kw_only=True):
    """`strict` has no effect: an answer fits its schema in any case."""

    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, kw_only=True):
    """`schema` is where llama-server takes a schema with json_object."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema: dict[str, Any] | None = None


class RunFields(msgspec.Struct, kw_only=True):
    """What chat and completions share."""

    model: str | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_N)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Tokens | None = None
    stop: str | Annotated[list[str], Meta(max_length=64)] | None = None
    seed: int | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=0, le=MAX_TOKENS)] | None = None
    min_p: Share | None = None
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Any = None
    grammar: Any = None
    json_schema: Any = None


class ChatCompletionRequest(RunFields, kw_only=True):
    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_completion_tokens: Tokens | None = None
    tools: list[FunctionTool | CustomTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChooseFunction | ChooseAllowed | ChooseCustom | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    reasoning_effort: Effort | None = None
    thinking_budget_tokens: Annotated[int, Meta(ge=-1, le=MAX_TOKENS)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    functions: Any = None
    function_call: Any = None
    modalities: Any = None
    audio: Any = None
    prediction: Any = None
    web_search_options: Any = None
    moderation: Any = None
    store: Any = None


class CompletionRequestIn(RunFields, kw_only=True):
    prompt: Texts
    echo: bool | None = None
    best_of: Annotated[int, Meta(ge=1, le=MAX_N)] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    suffix: Any = None


class EmbeddingRequestIn(msgspec.Struct, kw_only=True):
    input: Texts
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Tokens | None = None
