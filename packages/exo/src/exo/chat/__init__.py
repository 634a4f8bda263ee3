"""Pure functions and streaming state machines over text: template in, events out, no I/O."""

from exo.chat.foreign_template import foreign_template
from exo.chat.go_template import GoTemplate
from exo.chat.reasoning import ReasoningSplitter
from exo.chat.stops import StopStrings
from exo.chat.template import ChatTemplate, Template
from exo.chat.tools import (
    Called,
    NotACall,
    PlainText,
    ToolEvent,
    ToolParser,
    forced_start,
    special_texts,
    tool_format_of,
    tools_as_json,
    with_tools_in_prompt,
)
from exo.chat.utf8 import Utf8Joiner

__all__ = [
    "Called",
    "ChatTemplate",
    "GoTemplate",
    "NotACall",
    "PlainText",
    "ReasoningSplitter",
    "StopStrings",
    "Template",
    "ToolEvent",
    "ToolParser",
    "Utf8Joiner",
    "forced_start",
    "foreign_template",
    "special_texts",
    "tool_format_of",
    "tools_as_json",
    "with_tools_in_prompt",
]
