"""OpenAI's tools to ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from exo.api.openai.schema import (
    ChatCompletionRequest,
    ChooseAllowed,
    ChooseCustom,
    ChooseFunction,
    CustomTool,
    FunctionTool,
)
from exo.types import InvalidRequest, Tool, ToolChoice, UnsupportedParameter

_NO_CUSTOM = "Tools are functions here; give the function a string as its parameter for free text."


def function(name: str, description: str | None, parameters: Mapping[str, Any] | None) -> Tool:
    """One without parameters has none, and takes an object without anything in it."""
    if parameters is None:
        parameters = {"type": "object", "properties": {}}
    return Tool(name=name, description=description or "", parameters=parameters)


def known(name: str | None, tools: Sequence[Tool]) -> str:
    """The name that a choice has, of one of the tools. Raises InvalidRequest."""
    for tool in tools:
        if tool.name == name:
            return tool.name
    raise InvalidRequest(f"tool_choice names {name!r}, which is not among the tools.", param="tool_choice")


def required(tools: Sequence[Tool]) -> ToolChoice:
    """One of these has to be called. Raises InvalidRequest if there are none."""
    if not tools:
        raise InvalidRequest("tool_choice requires a call, but there are no tools.", param="tool_choice")
    return ToolChoice(mode="required")


def tools_of(wire: ChatCompletionRequest) -> tuple[tuple[Tool, ...], ToolChoice]:
    """The functions that may be called, and whether one has to be. Raises InvalidRequest, UnsupportedParameter."""
    tools = tuple(_tool(tool, number) for number, tool in enumerate(wire.tools or ()))
    choice = wire.tool_choice
    if isinstance(choice, ChooseCustom):
        raise UnsupportedParameter(_NO_CUSTOM, param="tool_choice")
    if isinstance(choice, ChooseAllowed):
        allowed = choice.allowed_tools
        names = {known(chosen.function.name, tools) for chosen in allowed.tools}
        tools = tuple(tool for tool in tools if tool.name in names)
        return tools, required(tools) if allowed.mode == "required" else ToolChoice()
    if isinstance(choice, ChooseFunction):
        return tools, ToolChoice(mode="required", name=known(choice.function.name, tools))
    if choice == "required":
        return tools, required(tools)
    return tools, ToolChoice(mode=choice or "auto")


def _tool(wire: FunctionTool | CustomTool, number: int) -> Tool:
    if isinstance(wire, CustomTool):
        raise UnsupportedParameter(_NO_CUSTOM, param=f"tools[{number}].type")
    return function(wire.function.name, wire.function.description, wire.function.parameters)
