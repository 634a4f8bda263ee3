"""How a chat tells a model what functions there are, and how the answer calls them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from exo.chat import forced_start, tool_format_of, with_tools_in_prompt
from exo.types import Message, Tool, ToolChoice, ToolFormat

_KNOWS_RESULTS = re.compile(r"tool")
_FALLBACK: ToolFormat = "hermes"


@dataclass(frozen=True)
class ToolUse:
    """`tools` are for the template, empty where `messages` tell them. `format` is how the answer may call one, None if
    it may call none; `begun` is the beginning of an answer that has to."""

    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    format: ToolFormat | None = None
    begun: str = ""


def tool_use(
    messages: Sequence[Message], tools: Sequence[Tool], choice: ToolChoice, *, source: str, named: ToolFormat | None
) -> ToolUse:
    """For a template of this source. `named` is the format that a card names.

    A template that knows no functions, or whose way to write calls is not known, is told in a system message.
    """
    tools = () if choice.mode == "none" else tools
    known = tool_format_of(source)
    known = known and (named or known)
    if known is None and (tools or (_has_calls(messages) and not _KNOWS_RESULTS.search(source))):
        messages = with_tools_in_prompt(messages, tools, choice)
    if not tools:
        return ToolUse(messages)
    written = known or _FALLBACK
    begun = forced_start(written, choice.name) if choice.mode == "required" else ""
    return ToolUse(messages, tools if known else (), written, begun)


def _has_calls(messages: Sequence[Message]) -> bool:
    return any(message.tool_calls or message.role == "tool" for message in messages)
