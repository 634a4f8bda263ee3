"""Answers that have to be JSON, from engines that cannot constrain a model: checked, and asked for again."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

import msgspec

from exo.inference.json_check import checking
from exo.types import (
    AnswerFormat,
    AnswerNotValid,
    ChatRequest,
    ContextOverflow,
    Delta,
    Message,
    Timings,
    Usage,
)

ATTEMPTS = 3
_FENCED = re.compile(r"\s*```(?:json)?[ \t]*\n(.*?)\n[ \t]*```\s*", re.DOTALL | re.IGNORECASE)

Counted = TypeVar("Counted", Usage, Timings)
Chat = Callable[[ChatRequest], AsyncGenerator[Delta, None]]


async def answer_in_format(chat: Chat, request: ChatRequest) -> AsyncGenerator[Delta, None]:
    """The answer of `chat`, once it is what `request.format` asks for; its text comes as one delta at the end.

    The model is told the format, and after an answer that does not fit what is wrong with it, at most ATTEMPTS times.
    Reasoning and calls of functions are handed on as they come. The usage adds up all attempts. Raises AnswerNotValid,
    and InvalidRequest for a schema that is none.
    """
    form = request.format or AnswerFormat()
    asked = first_attempt(request)
    usage, timings, problem, begun = Usage(), Timings(), "", False
    async with checking(form.schema, param="format") as check:
        for _ in range(ATTEMPTS):
            text: list[str] = []
            last = Delta()
            async with contextlib.aclosing(_ask(chat, asked, problem, usage)) as deltas:
                async for delta in deltas:
                    text.append(delta.text)
                    last = delta
                    if delta.finish_reason is None and _is_told_at_once(delta, begun=begun):
                        yield msgspec.structs.replace(delta, text="")  # the first one tells that the run has begun
                    begun = True
            usage, timings = _sum(usage, last.usage), _sum(timings, last.timings)
            written = "".join(text)
            if last.finish_reason == "tool_calls":  # the answer comes when the functions have been called
                yield msgspec.structs.replace(last, text=written, usage=usage, timings=timings)
                return
            answer = unfenced(written)
            problem = await check(answer)
            if not problem:
                yield msgspec.structs.replace(last, text=answer, usage=usage, timings=timings)
                return
            if last.finish_reason == "length":
                problem = "It was cut off: allow more tokens."
                break
            asked = msgspec.structs.replace(asked, messages=(*asked.messages, *_complaint(written, problem)))
    raise _not_valid(request.model, problem, usage)


def first_attempt(request: ChatRequest) -> ChatRequest:
    """The request with the wanted format in its messages."""
    return msgspec.structs.replace(request, messages=_told(request.messages, request.format or AnswerFormat()))


def _is_told_at_once(delta: Delta, *, begun: bool) -> bool:
    return bool(delta.reasoning or delta.tool_calls or delta.sampling or not begun)


def unfenced(text: str) -> str:
    """What stands in the only code block of a text, else the text without blanks around it."""
    found = _FENCED.fullmatch(text)
    return (found[1] if found else text).strip()


async def _ask(chat: Chat, request: ChatRequest, problem: str, usage: Usage) -> AsyncGenerator[Delta, None]:
    """One attempt. One that has no room for the complaint about the one before is the end of it."""
    try:
        async with contextlib.aclosing(chat(request)) as deltas:
            async for delta in deltas:
                yield delta
    except ContextOverflow as error:
        if not problem:
            raise
        raise _not_valid(request.model, f"{problem} There is no room in the context to ask again.", usage) from error


def _not_valid(model: str, problem: str, usage: Usage) -> AnswerNotValid:
    return AnswerNotValid(
        f"{model} gave no answer in the format that was asked for: {problem} "
        "Ask for something simpler, or use an engine that can constrain the answer (llamacpp).",
        usage=usage,
    )


def _told(messages: tuple[Message, ...], form: AnswerFormat) -> tuple[Message, ...]:
    """The conversation with the wanted format at the end of its last user message."""
    wanted = "a JSON object" if form.schema is None else f"JSON that fits this JSON Schema: {json.dumps(form.schema)}"
    order = f"Answer with nothing but {wanted}"
    for position in reversed(range(len(messages))):
        message = messages[position]
        if message.role == "user":
            told = msgspec.structs.replace(message, content=f"{message.content}\n\n{order}")
            return (*messages[:position], told, *messages[position + 1 :])
    return (*messages, Message(role="user", content=order))


def _complaint(answer: str, problem: str) -> tuple[Message, Message]:
    return (
        Message(role="assistant", content=answer),
        Message(role="user", content=f"That was wrong. {problem} Answer again, with nothing but the JSON."),
    )


def _sum(total: Counted, more: Counted | None) -> Counted:
    if more is None:
        return total
    names = total.__struct_fields__
    return type(total)(**{name: getattr(total, name) + getattr(more, name) for name in names})
