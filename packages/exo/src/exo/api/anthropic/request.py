"""Anthropic's requests to ours."""

from __future__ import annotations

from collections.abc import Collection

from exo.api.anthropic.conversation import messages_of
from exo.api.anthropic.fields import COUNT_TOKENS, MESSAGES
from exo.api.anthropic.schema import (
    AnthropicTool,
    ChooseAny,
    ChooseNone,
    ChooseTool,
    CountTokensRequest,
    MessagesRequest,
    ThinkingAdaptive,
    ThinkingDisabled,
    ThinkingEnabled,
)
from exo.api.fields import refuse_unsupported
from exo.inference import Capability
from exo.types import (
    AnswerFormat,
    ChatRequest,
    InvalidRequest,
    Limits,
    Sampling,
    Tool,
    ToolChoice,
    UnsupportedParameter,
)

Wire = MessagesRequest | CountTokensRequest
_OWN_TOOL = (None, "custom")


def chat_request(wire: Wire, *, model: str, request_id: str, capabilities: Collection[Capability]) -> ChatRequest:
    """The internal request; one for a count is as one without limits. `capabilities` are the engine's.

    Raises InvalidRequest, UnsupportedParameter.
    """
    sampling, limits = Sampling(), Limits()
    if isinstance(wire, MessagesRequest):
        sampling = Sampling(temperature=wire.temperature, top_p=wire.top_p, top_k=wire.top_k)
        limits = Limits(max_tokens=wire.max_tokens, stop=tuple(text for text in wire.stop_sequences or () if text))
    refuse_unsupported(wire, MESSAGES if isinstance(wire, MessagesRequest) else COUNT_TOKENS)
    tools = tuple(_tool(tool, f"tools[{number}]") for number, tool in enumerate(wire.tools or ()))
    return ChatRequest(
        id=request_id,
        model=model,
        messages=messages_of(wire.system, wire.messages),
        sampling=sampling,
        limits=limits,
        tools=tools,
        tool_choice=_choice(wire, {tool.name for tool in tools}),
        parallel_tool_calls=not getattr(wire.tool_choice, "disable_parallel_tool_use", False),
        think=_think(wire),
        think_budget=_budget(wire, capabilities),
        effort=wire.output_config.effort if wire.output_config else None,
        format=_format(wire),
    )


def hides_thinking(wire: Wire) -> bool:
    """Whether no block may tell that the model has thought, although it did."""
    return isinstance(wire.thinking, ThinkingDisabled)


def omits_thinking(wire: Wire) -> bool:
    """Whether blocks of thinking have to be empty."""
    return isinstance(wire.thinking, ThinkingEnabled | ThinkingAdaptive) and wire.thinking.display == "omitted"


def _tool(wire: AnthropicTool, path: str) -> Tool:
    if wire.type not in _OWN_TOOL:
        raise UnsupportedParameter(
            f"{path}: tools of the type {wire.type} are Anthropic's own; describe one with an input_schema.", param=path
        )
    for name in ("name", "input_schema"):
        if getattr(wire, name) is None:
            raise InvalidRequest(f"{path}.{name} is missing.", param=f"{path}.{name}")
    return Tool(name=wire.name or "", description=wire.description or "", parameters=wire.input_schema)


def _choice(wire: Wire, names: Collection[str]) -> ToolChoice:
    choice = wire.tool_choice
    if isinstance(choice, ChooseTool):
        if choice.name not in names:
            raise InvalidRequest(f"tool_choice.name: no tool has the name {choice.name!r}.", param="tool_choice.name")
        return ToolChoice(mode="required", name=choice.name)
    if isinstance(choice, ChooseAny):
        if not names:
            raise InvalidRequest("tool_choice: any needs tools to choose from; tools is empty.", param="tool_choice")
        return ToolChoice(mode="required")
    return ToolChoice(mode="none" if isinstance(choice, ChooseNone) else "auto")


def _think(wire: Wire) -> bool | None:
    if isinstance(wire.thinking, ThinkingEnabled):
        return True
    return False if isinstance(wire.thinking, ThinkingDisabled) else None


def _budget(wire: Wire, capabilities: Collection[Capability]) -> int | None:
    if not isinstance(wire.thinking, ThinkingEnabled):
        return None
    budget, place = wire.thinking.budget_tokens, "thinking.budget_tokens"
    if isinstance(wire, MessagesRequest) and budget >= wire.max_tokens:
        raise InvalidRequest(
            f"{place} is {budget}, but has to be less than max_tokens, which is {wire.max_tokens}.", param=place
        )
    if "think_budget" not in capabilities:
        raise UnsupportedParameter(
            f"{place} cannot be honoured: this engine cannot bound a model's reasoning. Send thinking of the type "
            "adaptive, which has no budget.",
            param=place,
        )
    return budget


def _format(wire: Wire) -> AnswerFormat | None:
    form = wire.output_config.format if wire.output_config else None
    if form is not None and wire.output_format is not None:
        raise InvalidRequest(
            "output_format and output_config.format contradict each other; send the second.", param="output_format"
        )
    form = form or wire.output_format
    return None if form is None else AnswerFormat(schema=form.schema)
