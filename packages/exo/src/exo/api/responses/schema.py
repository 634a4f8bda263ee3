"""Requests and answers of OpenAI's Responses API, as OpenAI publishes them.

Unknown fields are ignored, as llama-server does; `fields.py` says what becomes of the others. Items and their parts
have one loose type each, so that what cannot be read here is refused by its name; `conversation.py` checks them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from exo.api.openai.answer_schema import LogprobOut
from exo.types import Effort

MAX_TOKENS = 2**31 - 1
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]
Include = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]
"""What may be told besides. All but the first are about what no answer here has; reasoning is never encrypted."""
Status = Literal["in_progress", "completed", "incomplete"]


class InputPart(msgspec.Struct):
    """One part of a content."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None


Content = str | list[InputPart]


class InputItem(msgspec.Struct, kw_only=True):
    """A message, a piece of reasoning, a call of a function or its result. Without a type it is a message."""

    type: str | None = None
    id: str | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: Content | None = None
    summary: list[InputPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | dict[str, Any] | None = None
    output: Content | dict[str, Any] | None = None


class ResponseTool(msgspec.Struct):
    """A function. Other types are tools that OpenAI runs itself."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChosenTool(msgspec.Struct, omit_defaults=True):
    type: str
    name: str | None = None


class ResponseToolChoice(msgspec.Struct, omit_defaults=True):
    """The function that has to be called, or with type allowed_tools those that may be."""

    type: str
    name: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[ChosenTool] | None = None


class ResponseTextFormat(msgspec.Struct, omit_defaults=True):
    """What the text of an answer has to be; all but `type` belong to json_schema."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseTextConfig(msgspec.Struct, omit_defaults=True):
    format: ResponseTextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ResponseReasoning(msgspec.Struct):
    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None


class ResponsesRequest(msgspec.Struct, kw_only=True):
    model: str | None = None
    input: str | list[InputItem] | None = None
    instructions: str | None = None
    previous_response_id: Annotated[str, Meta(max_length=128)] | None = None
    store: bool | None = None
    stream: bool | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKENS)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    tools: list[ResponseTool] | None = None
    tool_choice: Literal["auto", "none", "required"] | ResponseToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    text: ResponseTextConfig | None = None
    reasoning: ResponseReasoning | None = None
    truncation: Any = None
    include: list[Include] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    metadata: Metadata | None = None
    background: Any = None
    conversation: Any = None
    prompt: Any = None
    context_management: Any = None
    moderation: Any = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class ItemsQuery(msgspec.Struct):
    """The query of a list of items; `after` is the id of the last item that the client has."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None


class OutputTextPart(msgspec.Struct, kw_only=True, tag_field="type", tag="output_text"):
    text: str
    annotations: Sequence[str] = ()
    logprobs: Sequence[LogprobOut] = ()


class InputTextPart(msgspec.Struct, tag_field="type", tag="input_text"):
    text: str


class OutputRefusalPart(msgspec.Struct, tag_field="type", tag="refusal"):
    refusal: str


class ReasoningTextPart(msgspec.Struct, tag_field="type", tag="reasoning_text"):
    text: str


class SummaryTextPart(msgspec.Struct, tag_field="type", tag="summary_text"):
    text: str


class MessageItem(msgspec.Struct, kw_only=True, tag_field="type", tag="message"):
    id: str
    status: Status
    role: Literal["user", "assistant", "system", "developer"] = "assistant"
    content: Sequence[OutputTextPart | InputTextPart | OutputRefusalPart]


class ReasoningItem(msgspec.Struct, kw_only=True, tag_field="type", tag="reasoning"):
    id: str
    status: Status
    summary: Sequence[SummaryTextPart] = ()
    content: Sequence[ReasoningTextPart]


class FunctionCallItem(msgspec.Struct, kw_only=True, tag_field="type", tag="function_call"):
    id: str
    status: Status
    call_id: str
    name: str
    arguments: str


class FunctionCallOutputItem(msgspec.Struct, kw_only=True, tag_field="type", tag="function_call_output"):
    id: str
    status: Status
    call_id: str
    output: str | Sequence[InputTextPart]


OutputItem = MessageItem | ReasoningItem | FunctionCallItem
ListedItem = OutputItem | FunctionCallOutputItem


class ResponseItems(msgspec.Struct, kw_only=True):
    """The ids are null if the list is empty."""

    object: Literal["list"] = "list"
    data: Sequence[ListedItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class InputTokensDetails(msgspec.Struct):
    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(msgspec.Struct):
    reasoning_tokens: int


class ResponseUsage(msgspec.Struct):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseFailure(msgspec.Struct, kw_only=True):
    """Why a response failed: `code` is one of OpenAI's few, `type` is ours."""

    code: Literal["server_error", "invalid_prompt"]
    message: str
    type: str
    param: str | None = None


class IncompleteDetails(msgspec.Struct):
    reason: Literal["max_output_tokens"]


class ResponseObject(msgspec.Struct, kw_only=True):
    """A response, with the fields of its request. `temperature` and `top_p` are null where the model's own are used."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["completed", "incomplete", "failed", "in_progress"] = "in_progress"
    completed_at: int | None = None
    error: ResponseFailure | None = None
    incomplete_details: IncompleteDetails | None = None
    model: str
    output: Sequence[OutputItem] = ()
    usage: ResponseUsage | None = None
    instructions: str | None
    previous_response_id: str | None
    store: bool
    background: bool = False
    max_output_tokens: int | None
    max_tool_calls: int | None
    temperature: float | None
    top_p: float | None
    top_logprobs: int
    tools: Sequence[ResponseTool]
    tool_choice: Literal["auto", "none", "required"] | ResponseToolChoice
    parallel_tool_calls: bool
    text: ResponseTextConfig
    reasoning: ResponseReasoning
    truncation: Literal["disabled"] = "disabled"
    metadata: Mapping[str, str]
    service_tier: Literal["default"] = "default"
    user: str | None
    safety_identifier: str | None
    prompt_cache_key: str | None


class DeletedResponse(msgspec.Struct, kw_only=True):
    id: str
    object: Literal["response"] = "response"
    deleted: bool = True
