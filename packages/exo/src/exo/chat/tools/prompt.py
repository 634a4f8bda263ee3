"""How a model is told of tools."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from exo.chat.template import json_object
from exo.types import Message, Tool, ToolCall, ToolChoice

_INTRODUCTION = """\
You can call functions. Each line between <tools> and </tools> describes one in JSON:
<tools>
{tools}
</tools>
A call is its name and its arguments as a JSON object that fits the parameters, between these marks:
<tool_call>
{{"name": "NAME", "arguments": {{...}}}}
</tool_call>
Several calls are several such blocks. End your answer behind the calls: what the functions return then comes to you \
between <tool_response> and </tool_response>. {order}"""
_ORDERS = {
    "auto": "If no function helps, answer in words.",
    "required": "Your answer has to be a call.",
}


def tools_as_json(tools: Iterable[Tool]) -> list[dict[str, Any]]:
    """Tools as OpenAI has them, which is what chat templates take.

    All three fields are always there, as templates read them without asking; where nothing is known of the parameters,
    they are an object without properties.
    """
    made = []
    for tool in tools:
        parameters = {"type": "object", "properties": {}} if tool.parameters is None else dict(tool.parameters)
        function = {"name": tool.name, "description": tool.description, "parameters": parameters}
        made.append({"type": "function", "function": function})
    return made


def with_tools_in_prompt(messages: Sequence[Message], tools: Sequence[Tool], choice: ToolChoice) -> tuple[Message, ...]:
    """The conversation for a template that knows no tools, with all about them as text, in the format hermes.

    The tools come into a system message, in front of the text of the first message if that is one, unless the choice is
    that none be called. Calls stand behind the text of their message, and results, those in a row together, are
    messages of the user. All other messages stay as they are.
    """
    made = [*_with_calls_as_text(messages)]
    if not tools or choice.mode == "none":
        return tuple(made)
    told = _told(tools, choice)
    if made and made[0].role == "system":
        first = made.pop(0)
        return (msgspec.structs.replace(first, content=f"{told}\n\n{first.content}"), *made)
    return (Message(role="system", content=told), *made)


def _told(tools: Sequence[Tool], choice: ToolChoice) -> str:
    lines = (json.dumps(tool, ensure_ascii=False) for tool in tools_as_json(tools))
    order = _ORDERS.get(choice.mode, "") if choice.name is None else f"Your answer has to be a call of {choice.name}."
    return _INTRODUCTION.format(tools="\n".join(lines), order=order)


def _with_calls_as_text(messages: Sequence[Message]) -> Iterator[Message]:
    for is_result, group in itertools.groupby(messages, key=lambda message: message.role == "tool"):
        if is_result:
            yield Message(role="user", content="\n".join(map(_result, group)))
            continue
        for message in group:
            content = "\n".join([*([message.content] if message.content else []), *map(_call, message.tool_calls)])
            yield msgspec.structs.replace(message, content=content, tool_calls=())


def _call(call: ToolCall) -> str:
    name = json.dumps(call.name, ensure_ascii=False)
    return f'<tool_call>\n{{"name": {name}, "arguments": {_arguments(call.arguments)}}}\n</tool_call>'


def _arguments(text: str) -> str:
    """As they were written, but a client may send what is no object: nothing at all, or any text."""
    if not text.strip():
        return "{}"
    return json.dumps(text, ensure_ascii=False) if isinstance(json_object(text), str) else text


def _result(message: Message) -> str:
    return f"<tool_response>\n{message.content}\n</tool_response>"
