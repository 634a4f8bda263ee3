"""Calls of functions where llama.cpp does not do all of it.

To a model whose chat template knows no functions they are told in a system message, and its calls are read from its
text: llama.cpp would leave the functions out. A model that has to call is held to the JSON of a call, as llama.cpp does
not hold it to anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any

import msgspec

from exo.chat import Called, ToolEvent, ToolParser, with_tools_in_prompt
from exo.inference.openai_wire import new_call_id
from exo.types import AnswerFormat, ChatRequest, Delta, Tool, ToolCallDelta, ToolChoice

Chat = Callable[[ChatRequest], AsyncGenerator[Delta, None]]


class _Call(msgspec.Struct):
    name: str
    arguments: dict[str, Any]


async def chat_with_tools(chat: Chat, request: ChatRequest, *, knows_tools: bool) -> AsyncGenerator[Delta, None]:
    """The answer of `chat` to a request with functions, or with calls of functions in its history.

    `knows_tools` tells of the model's chat template. A model that has to call does not reason before.
    """
    mode, tools = request.tool_choice.mode, request.tools
    answer = chat(as_told(request, knows_tools=knows_tools))
    if tools and mode == "required":
        answer = _forced(answer)
    elif tools and mode == "auto" and not knows_tools:
        answer = _parsed(answer, ToolParser("hermes", tools))
    async with contextlib.aclosing(answer) as deltas:
        async for delta in deltas:
            yield delta


def as_told(request: ChatRequest, *, knows_tools: bool) -> ChatRequest:
    """What llama.cpp is asked for such a request; `knows_tools` as above."""
    told = request
    if not knows_tools:
        messages = with_tools_in_prompt(request.messages, request.tools, request.tool_choice)
        told = msgspec.structs.replace(request, messages=messages, tools=())
    if request.tools and request.tool_choice.mode == "required":
        return _held_to_a_call(told, request.tools)
    return told


def _held_to_a_call(request: ChatRequest, tools: Sequence[Tool]) -> ChatRequest:
    allowed = [tool for tool in tools if request.tool_choice.name in (None, tool.name)]
    form = AnswerFormat(schema=_schema_of_a_call(allowed))
    return msgspec.structs.replace(request, tool_choice=ToolChoice(mode="none"), format=form, think=False)


def _schema_of_a_call(tools: Sequence[Tool]) -> dict[str, Any]:
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.name}, "arguments": tool.parameters or {"type": "object"}},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


async def _forced(answer: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
    """A text that is the JSON of a call, as that call; as it is if it was cut off."""
    text: list[str] = []
    async with contextlib.aclosing(answer) as deltas:
        async for delta in deltas:
            text.append(delta.text)
            if delta.finish_reason is None:
                yield msgspec.structs.replace(delta, text="", logprobs=())
                continue
            written = "".join(text)
            with contextlib.suppress(msgspec.DecodeError):
                call = msgspec.json.decode(written, type=_Call)
                yield _call(0, call.name, msgspec.json.encode(call.arguments).decode())
                written = ""
            yield msgspec.structs.replace(delta, text=written, logprobs=())


async def _parsed(answer: AsyncGenerator[Delta, None], parser: ToolParser) -> AsyncGenerator[Delta, None]:
    made = 0
    async with contextlib.aclosing(answer) as deltas:
        async for delta in deltas:
            events = parser.feed(delta.text)
            if delta.finish_reason is not None:
                events += parser.flush()
            for one in _deltas(events, made):
                made += len(one.tool_calls)
                yield one
            rest = msgspec.structs.replace(delta, text="")
            if rest != Delta() or not delta.text:
                yield rest


def _deltas(events: Iterable[ToolEvent], made: int) -> Iterable[Delta]:
    for event in events:
        if isinstance(event, Called):
            yield _call(made, event.name, event.arguments)
            made += 1
        else:
            yield Delta(text=event.text)


def _call(index: int, name: str, arguments: str) -> Delta:
    return Delta(tool_calls=(ToolCallDelta(index=index, id=new_call_id(), name=name, arguments=arguments),))
