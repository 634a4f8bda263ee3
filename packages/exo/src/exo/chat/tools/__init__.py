"""Calls of functions in a model's text, for engines that have no parser of their own, and tools in its prompt."""

from exo.chat.tools.events import Called, NotACall, PlainText, ToolEvent
from exo.chat.tools.formats import forced_start, special_texts, tool_format_of
from exo.chat.tools.parser import ToolParser
from exo.chat.tools.prompt import tools_as_json, with_tools_in_prompt

__all__ = [
    "Called",
    "NotACall",
    "PlainText",
    "ToolEvent",
    "ToolParser",
    "forced_start",
    "special_texts",
    "tool_format_of",
    "tools_as_json",
    "with_tools_in_prompt",
]
