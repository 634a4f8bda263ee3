"""Answers that have to be JSON, from engines that cannot constrain a model: checked, and asked for again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec

from exo.inference import schema_check
from exo.types import (
    AnswerFormat,
    AnswerNotValid,
    ChatRequest,
    ContextOverflow,
    Delta,
    InvalidRequest,
    Message,
    Timings,
    Usage,
)

ATTEMPTS = 3
_FENCED = re.compile(r"\s*```(?:json)?[ \t]*\n(.*?)\n[ \t]*```\s*", re.DOTALL | re.IGNORECASE)
_CHECK_TIMEOUT = 20.0
_LONGEST_LINE = 1 << 20
_LARGEST_SCHEMA = 1 << 17
"""Characters. It is told to the model, whose context is smaller."""

Counted = TypeVar("Counted", Usage, Timings)
Chat = Callable[[ChatRequest], AsyncGenerator[Delta, None]]
Check = Callable[[str], Awaitable[str]]
"""Says what is wrong with a text, as a sentence; nothing if it fits."""


async def answer_in_format(chat: Chat, request: ChatRequest) -> AsyncGenerator[Delta, None]:
    """The answer of `chat`, once it is what `request.format` asks for; its text comes as one delta at the end.

    The model is told the format, and after an answer that does not fit what is wrong with it, at most ATTEMPTS times.
    Reasoning is handed on as it comes. The usage adds up all attempts. Raises AnswerNotValid, InvalidRequest for a
    schema that is none.
    """
    form = request.format or AnswerFormat()
    asked = msgspec.structs.replace(request, messages=_told(request.messages, form))
    usage, timings, problem, begun = Usage(), Timings(), "", False
    async with _checking(form.schema) as check:
        for _ in range(ATTEMPTS):
            text: list[str] = []
            last = Delta()
            async with contextlib.aclosing(_ask(chat, asked, problem)) as deltas:
                async for delta in deltas:
                    text.append(delta.text)
                    last = delta
                    if delta.finish_reason is None and (delta.reasoning or delta.sampling or not begun):
                        yield msgspec.structs.replace(delta, text="")  # the first one tells that the run has begun
                    begun = True
            usage, timings = _sum(usage, last.usage), _sum(timings, last.timings)
            written = "".join(text)
            answer = unfenced(written)
            problem = await check(answer)
            if not problem:
                yield msgspec.structs.replace(last, text=answer, usage=usage, timings=timings)
                return
            if last.finish_reason == "length":
                problem = "It was cut off: allow more tokens."
                break
            asked = msgspec.structs.replace(asked, messages=(*asked.messages, *_complaint(written, problem)))
    raise _not_valid(request.model, problem)


def unfenced(text: str) -> str:
    """What stands in the only code block of a text, else the text without blanks around it."""
    found = _FENCED.fullmatch(text)
    return (found[1] if found else text).strip()


async def _ask(chat: Chat, request: ChatRequest, problem: str) -> AsyncGenerator[Delta, None]:
    """One attempt. One that has no room for the complaint about the one before is the end of it."""
    try:
        async with contextlib.aclosing(chat(request)) as deltas:
            async for delta in deltas:
                yield delta
    except ContextOverflow as error:
        if not problem:
            raise
        raise _not_valid(request.model, f"{problem} There is no room in the context to ask again.") from error


def _not_valid(model: str, problem: str) -> AnswerNotValid:
    return AnswerNotValid(
        f"{model} gave no answer in the format that was asked for: {problem} "
        "Ask for something simpler, or use an engine that can constrain the answer (llamacpp)."
    )


@contextlib.asynccontextmanager
async def _checking(schema: Mapping[str, Any] | None) -> AsyncGenerator[Check, None]:
    """The check for a schema. It may take long, or all memory, and so it happens in a process of its own."""
    if schema is None:
        yield _problem_of_object
        return
    if len(json.dumps(schema)) > _LARGEST_SCHEMA:
        raise InvalidRequest(f"The schema has over {_LARGEST_SCHEMA} characters.", param="format")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        schema_check.__file__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=_LONGEST_LINE,
    )
    try:
        await _exchange(process, schema)

        async def check(text: str) -> str:
            return (await _exchange(process, text))["problem"]

        yield check
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _problem_of_object(text: str) -> str:
    return schema_check.problem_of(text, schema_check.object_problem)


async def _exchange(process: asyncio.subprocess.Process, value: Any) -> dict[str, str]:
    """One line there and one back. Raises InvalidRequest for what the process refuses, or does not survive."""
    assert process.stdin is not None  # noqa: S101 - for mypy: both are pipes
    assert process.stdout is not None  # noqa: S101 - as above
    line = b""
    with contextlib.suppress(ConnectionError, asyncio.TimeoutError, ValueError):  # the last: a line that never ends
        process.stdin.write(json.dumps(value).encode() + b"\n")
        await process.stdin.drain()
        line = await asyncio.wait_for(process.stdout.readline(), _CHECK_TIMEOUT)
    answer: dict[str, str] = (
        json.loads(line) if line else {"refused": "it takes too long, or too much memory, to check"}
    )
    if "refused" in answer:
        raise InvalidRequest(f"The schema cannot be used: {answer['refused']}.", param="format")
    return answer


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
