"""The tools of the Responses API to ours."""

from __future__ import annotations

from exo.api.openai.tools import function, known, required
from exo.api.responses.schema import ResponsesRequest, ResponseTool, ResponseToolChoice
from exo.types import InvalidRequest, Tool, ToolChoice, UnsupportedParameter


def tools_of(wire: ResponsesRequest) -> tuple[tuple[Tool, ...], ToolChoice]:
    """The functions that may be called, and whether one has to be. Raises InvalidRequest, UnsupportedParameter."""
    tools = tuple(_tool(tool, f"tools[{number}]") for number, tool in enumerate(wire.tools or ()))
    match wire.tool_choice:
        case ResponseToolChoice(type="function") as chosen:
            return tools, ToolChoice(mode="required", name=known(chosen.name, tools))
        case ResponseToolChoice(type="allowed_tools") as choice:
            names = {known(chosen.name, tools) for chosen in choice.tools or ()}
            allowed = tuple(tool for tool in tools if tool.name in names)
            return allowed, required(allowed) if choice.mode == "required" else ToolChoice()
        case ResponseToolChoice():
            raise UnsupportedParameter(
                f"A tool_choice of the type {wire.tool_choice.type!r} cannot be honoured here; name a function.",
                param="tool_choice",
            )
        case "required":
            return tools, required(tools)
        case choice:
            return tools, ToolChoice(mode=choice or "auto")


def _tool(wire: ResponseTool, path: str) -> Tool:
    if wire.type != "function":
        raise UnsupportedParameter(
            f"Tools of the type {wire.type!r} are not run here; offer functions of your own.", param=f"{path}.type"
        )
    if not wire.name:
        raise InvalidRequest(f"{path}.name is missing.", param=f"{path}.name")
    return function(wire.name, wire.description, wire.parameters)
