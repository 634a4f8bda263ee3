"""OpenAI's tools to ours."""

from __future__ import annotations

from collections.abc import Sequence

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


def tools_of(wire: ChatCompletionRequest) -> tuple[tuple[Tool, ...], ToolChoice]:
    """The functions that may be called, and whether one has to be. Raises InvalidRequest, UnsupportedParameter."""
    tools = [_tool(tool, number) for number, tool in enumerate(wire.tools or ())]
    choice = wire.tool_choice
    if isinstance(choice, ChooseCustom):
        raise UnsupportedParameter(_NO_CUSTOM, param="tool_choice")
    if isinstance(choice, ChooseAllowed):
        allowed = choice.allowed_tools
        names = {_known(chosen, tools) for chosen in allowed.tools}
        tools = [tool for tool in tools if tool.name in names]
        return tuple(tools), _required(tools) if allowed.mode == "required" else ToolChoice()
    if isinstance(choice, ChooseFunction):
        return tuple(tools), ToolChoice(mode="required", name=_known(choice, tools))
    if choice == "required":
        return tuple(tools), _required(tools)
    return tuple(tools), ToolChoice(mode=choice or "auto")


def _tool(wire: FunctionTool | CustomTool, number: int) -> Tool:
    """A function without parameters has none, and takes an object without anything in it."""
    if isinstance(wire, CustomTool):
        raise UnsupportedParameter(_NO_CUSTOM, param=f"tools[{number}].type")
    function = wire.function
    parameters = function.parameters if function.parameters is not None else {"type": "object", "properties": {}}
    return Tool(name=function.name, description=function.description or "", parameters=parameters)


def _known(chosen: ChooseFunction, tools: Sequence[Tool]) -> str:
    name = chosen.function.name
    if all(tool.name != name for tool in tools):
        raise InvalidRequest(f"tool_choice names {name!r}, which is not among the tools.", param="tool_choice")
    return name


def _required(tools: Sequence[Tool]) -> ToolChoice:
    if not tools:
        raise InvalidRequest("tool_choice requires a call, but there are no tools.", param="tool_choice")
    return ToolChoice(mode="required")
