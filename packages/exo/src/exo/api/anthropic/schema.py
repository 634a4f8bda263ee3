"""Requests and answers as Anthropic documents them.

Unknown fields are ignored. `exo.api.anthropic.fields` says of each field here whether it is honoured.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

MAX_TOKENS = 2**31 - 1
Name = Annotated[str, Meta(min_length=1)]
Tokens = Annotated[int, Meta(ge=1, le=MAX_TOKENS)]
Share = Annotated[float, Meta(ge=0, le=1)]
Display = Literal["summarized", "omitted"]
Effort = Literal["low", "medium", "high", "xhigh", "max"]


class TextBlock(msgspec.Struct, tag_field="type", tag="text"):
    text: str


class ImageBlock(msgspec.Struct, tag_field="type", tag="image"):
    pass


class DocumentBlock(msgspec.Struct, tag_field="type", tag="document"):
    pass


class SearchResultBlock(msgspec.Struct, tag_field="type", tag="search_result"):
    pass


class ServerToolUseBlock(msgspec.Struct, tag_field="type", tag="server_tool_use"):
    pass


class McpToolUseBlock(msgspec.Struct, tag_field="type", tag="mcp_tool_use"):
    pass


class ContainerUploadBlock(msgspec.Struct, tag_field="type", tag="container_upload"):
    pass


class ThinkingBlock(msgspec.Struct, tag_field="type", tag="thinking"):
    thinking: str
    signature: str = ""


class RedactedThinkingBlock(msgspec.Struct, tag_field="type", tag="redacted_thinking"):
    pass


class ToolUseBlock(msgspec.Struct, tag_field="type", tag="tool_use"):
    id: Name
    name: Name
    input: dict[str, Any]


class ToolResultBlock(msgspec.Struct, tag_field="type", tag="tool_result"):
    tool_use_id: Name
    content: str | list[TextBlock | ImageBlock | DocumentBlock | SearchResultBlock] | None = None
    is_error: bool | None = None


RefusedBlock = (
    ImageBlock | DocumentBlock | SearchResultBlock | ServerToolUseBlock | McpToolUseBlock | ContainerUploadBlock
)
Block = (
    TextBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ToolUseBlock
    | ToolResultBlock
    | ImageBlock
    | DocumentBlock
    | SearchResultBlock
    | ServerToolUseBlock
    | McpToolUseBlock
    | ContainerUploadBlock
)


class AnthropicMessage(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class AnthropicTool(msgspec.Struct, kw_only=True):
    """Tools of any other `type` than custom are Anthropic's own, and have no `input_schema`."""

    name: Name | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    type: str | None = None


class ChooseAuto(msgspec.Struct, tag_field="type", tag="auto"):
    disable_parallel_tool_use: bool = False


class ChooseAny(msgspec.Struct, tag_field="type", tag="any"):
    disable_parallel_tool_use: bool = False


class ChooseTool(msgspec.Struct, tag_field="type", tag="tool"):
    name: Name
    disable_parallel_tool_use: bool = False


class ChooseNone(msgspec.Struct, tag_field="type", tag="none"):
    pass


class ThinkingEnabled(msgspec.Struct, tag_field="type", tag="enabled"):
    budget_tokens: Tokens
    display: Display | None = None


class ThinkingAdaptive(msgspec.Struct, tag_field="type", tag="adaptive"):
    display: Display | None = None


class ThinkingDisabled(msgspec.Struct, tag_field="type", tag="disabled"):
    pass


class JsonFormat(msgspec.Struct):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct, kw_only=True):
    effort: Effort | None = None
    format: JsonFormat | None = None


class _Conversation(msgspec.Struct, kw_only=True):
    """What a request for an answer and one for a count share."""

    model: Name
    messages: Annotated[list[AnthropicMessage], Meta(min_length=1)]
    system: str | list[TextBlock] | None = None
    tools: list[AnthropicTool] | None = None
    tool_choice: ChooseAuto | ChooseAny | ChooseTool | ChooseNone | None = None
    thinking: ThinkingEnabled | ThinkingAdaptive | ThinkingDisabled | None = None
    output_config: OutputConfig | None = None
    output_format: JsonFormat | None = None
    context_management: dict[str, Any] | None = None
    mcp_servers: list[Any] | None = None
    cache_control: Any = None
    speed: Any = None


class CountTokensRequest(_Conversation, kw_only=True):
    pass


class MessagesRequest(_Conversation, kw_only=True):
    max_tokens: Tokens
    stop_sequences: Annotated[list[str], Meta(max_length=64)] | None = None
    temperature: Share | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=0, le=MAX_TOKENS)] | None = None
    stream: bool | None = None
    container: Any = None
    thread: Any = None
    compaction: Any = None
    diagnostics: Any = None
    fallbacks: Any = None
    metadata: Any = None
    service_tier: Any = None
    inference_geo: Any = None


class TextOut(msgspec.Struct, tag_field="type", tag="text"):
    text: str
    citations: None = None


class ThinkingOut(msgspec.Struct, tag_field="type", tag="thinking"):
    thinking: str
    signature: str = ""


class Caller(msgspec.Struct, frozen=True):
    type: Literal["direct"] = "direct"


class ToolUseOut(msgspec.Struct, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})]
    caller: Caller = Caller()


BlockOut = TextOut | ThinkingOut | ToolUseOut


class OutputDetails(msgspec.Struct):
    thinking_tokens: int


class AnthropicUsage(msgspec.Struct, kw_only=True):
    """The prompt has `input_tokens`, which were evaluated, and `cache_read_input_tokens`, which were not."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: OutputDetails


StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class AnthropicAnswer(msgspec.Struct, kw_only=True):
    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[BlockOut]
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    usage: AnthropicUsage


class AnthropicDelta(msgspec.Struct, kw_only=True):
    """A piece of a block, with a `type`, or at the end why the answer has stopped."""

    type: Literal["text_delta", "thinking_delta", "signature_delta", "input_json_delta"] | UnsetType = UNSET
    text: str | UnsetType = UNSET
    thinking: str | UnsetType = UNSET
    signature: str | UnsetType = UNSET
    partial_json: str | UnsetType = UNSET
    stop_reason: StopReason | UnsetType = UNSET
    stop_sequence: str | UnsetType | None = UNSET


class AnthropicEvent(msgspec.Struct, kw_only=True):
    """The data of an event, whose name is its `type`."""

    type: Literal[
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    message: AnthropicAnswer | UnsetType = UNSET
    index: int | UnsetType = UNSET
    content_block: BlockOut | UnsetType = UNSET
    delta: AnthropicDelta | UnsetType = UNSET
    usage: AnthropicUsage | UnsetType = UNSET


class TokenCount(msgspec.Struct):
    input_tokens: int


class AnthropicErrorDetail(msgspec.Struct):
    """`code` is stable; Anthropic has only `type` and `message`."""

    type: str
    message: str
    code: str
    details: dict[str, str] | UnsetType = UNSET


class AnthropicError(msgspec.Struct):
    type: Literal["error"]
    error: AnthropicErrorDetail
    request_id: str | None


class AnthropicModel(msgspec.Struct, kw_only=True):
    type: Literal["model"] = "model"
    id: str
    display_name: str
    created_at: str
    lifecycle: Literal["active"] = "active"


class AnthropicModelList(msgspec.Struct, kw_only=True):
    data: list[AnthropicModel]
    has_more: bool = False
    first_id: str | None
    last_id: str | None
