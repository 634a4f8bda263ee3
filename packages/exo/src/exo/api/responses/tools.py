"""The tools of the Responses API to ours."""

from __future__ import annotations

from collections.abc import Sequence

from exo.api.responses.schema import ChosenTool, ResponsesRequest, ResponseTool, ResponseToolChoice
from exo.types import InvalidRequest, Tool, ToolChoice, UnsupportedParameter


def tools_of(wire: ResponsesRequest) -> tuple[tuple[Tool, ...], ToolChoice]:
    """The functions that may be called, and whether one has to be. Raises InvalidRequest, UnsupportedParameter."""
    tools = tuple(_tool(tool, f"tools[{number}]") for number, tool in enumerate(wire.tools or ()))
    match wire.tool_choice:
        case ResponseToolChoice(type="function") as chosen:
            return tools, ToolChoice(mode="required", name=_known(chosen, tools))
        case ResponseToolChoice(type="allowed_tools") as choice:
            names = {_known(chosen, tools) for chosen in choice.tools or ()}
            allowed = tuple(tool for tool in tools if tool.name in names)
            return allowed, _required(allowed) if choice.mode == "required" else ToolChoice()
        case ResponseToolChoice():
            raise UnsupportedParameter(
                f"A tool_choice of the type {wire.tool_choice.type!r} cannot be honoured here; name a function.",
                param="tool_choice",
            )
        case "required":
            return tools, _required(tools)
        case choice:
            return tools, ToolChoice(mode=choice or "auto")


def _tool(wire: ResponseTool, path: str) -> Tool:
    """A function without parameters has none, and takes an object without anything in it."""
    if wire.type != "function":
        raise UnsupportedParameter(
            f"Tools of the type {wire.type!r} are not run here; offer functions of your own.", param=f"{path}.type"
        )
    if not wire.name:
        raise InvalidRequest(f"{path}.name is missing.", param=f"{path}.name")
    parameters = wire.parameters if wire.parameters is not None else {"type": "object", "properties": {}}
    return Tool(name=wire.name, description=wire.description or "", parameters=parameters)


def _known(chosen: ResponseToolChoice | ChosenTool, tools: Sequence[Tool]) -> str:
    for tool in tools:
        if tool.name == chosen.name:
            return tool.name
    raise InvalidRequest(f"tool_choice names {chosen.name!r}, which is not among the tools.", param="tool_choice")


def _required(tools: Sequence[Tool]) -> ToolChoice:
    if not tools:
        raise InvalidRequest("tool_choice requires a call, but there are no tools.", param="tool_choice")
    return ToolChoice(mode="required")
