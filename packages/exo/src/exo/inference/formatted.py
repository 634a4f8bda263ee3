"""Answers that have to be JSON, from engines that cannot constrain a model: checked, and asked for again."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from exo.types import AnswerFormat, AnswerNotValid, ChatRequest, Delta, InvalidRequest, Message, Timings, Usage

ATTEMPTS = 3
_FENCED = re.compile(r"\s*```(?:json)?[ \t]*\n(.*?)\n[ \t]*```\s*", re.DOTALL | re.IGNORECASE)
_LONGEST_REASON = 300

Counted = TypeVar("Counted", Usage, Timings)
Chat = Callable[[ChatRequest], AsyncGenerator[Delta, None]]


async def answer_in_format(chat: Chat, request: ChatRequest) -> AsyncGenerator[Delta, None]:
    """The answer of `chat`, once it is what `request.format` asks for; its text comes as one delta at the end.

    The model is told the format, and after an answer that does not fit what is wrong with it, at most ATTEMPTS times.
    Reasoning is handed on as it comes. The usage adds up all attempts. Raises AnswerNotValid, InvalidRequest for a
    schema that is none.
    """
    form = request.format or AnswerFormat()
    check = _checker(form.schema)
    asked = msgspec.structs.replace(request, messages=_told(request.messages, form))
    usage, timings, problem, begun = Usage(), Timings(), "", False
    for _ in range(ATTEMPTS):
        text: list[str] = []
        last = Delta()
        async with contextlib.aclosing(chat(asked)) as deltas:
            async for delta in deltas:
                text.append(delta.text)
                last = delta
                if delta.finish_reason is None and (delta.reasoning or delta.sampling or not begun):
                    yield msgspec.structs.replace(delta, text="")  # the first one tells that the run has begun
                begun = True
        usage, timings = _sum(usage, last.usage), _sum(timings, last.timings)
        written = "".join(text)
        answer = unfenced(written)
        problem = check(answer)
        if not problem:
            yield msgspec.structs.replace(last, text=answer, usage=usage, timings=timings)
            return
        if last.finish_reason == "length":
            problem = "It was cut off: allow more tokens."
            break
        asked = msgspec.structs.replace(asked, messages=(*asked.messages, *_complaint(written, problem)))
    raise AnswerNotValid(
        f"{request.model} gave no answer in the format that was asked for: {problem} "
        "Ask for something simpler, or use an engine that can constrain the answer (llamacpp)."
    )


def unfenced(text: str) -> str:
    """What stands in the only code block of a text, else the text without blanks around it."""
    found = _FENCED.fullmatch(text)
    return (found[1] if found else text).strip()


def _checker(schema: Mapping[str, Any] | None) -> Callable[[str], str]:
    """Says what is wrong with a text, as a sentence; nothing if it fits."""
    if schema is None:
        return _problem_of_object
    from jsonschema import exceptions, validators  # noqa: PLC0415 - only where a schema is asked for
    from referencing import Registry, Resource  # noqa: PLC0415 - as above
    from referencing.exceptions import Unresolvable  # noqa: PLC0415 - as above
    from referencing.jsonschema import DRAFT202012  # noqa: PLC0415 - as above

    whole = Resource.from_contents(dict(schema), default_specification=DRAFT202012)
    registry = Registry().with_resource("", whole)  # of the schema alone: nothing is fetched for a $ref
    kind = validators.validator_for(schema, default=validators.Draft202012Validator)
    try:
        kind.check_schema(dict(schema))
        for reference in _references(schema):
            registry.resolver().lookup(reference)
    except exceptions.SchemaError as error:
        raise InvalidRequest(f"The schema is none: {error.message[:_LONGEST_REASON]}.", param="format") from None
    except Unresolvable as error:
        raise InvalidRequest(f"The schema refers to what is not in it: {error.ref}.", param="format") from None
    return functools.partial(_problem_of, kind(dict(schema), registry=registry))


def _references(schema: object) -> Iterator[str]:
    """Every `$ref` in a schema."""
    if isinstance(schema, Mapping):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for value in schema.values():
            yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def _problem_of_object(text: str) -> str:
    value, problem = _parsed(text)
    return problem or ("" if isinstance(value, dict) else "It is JSON, but no object.")


def _problem_of(validator: Any, text: str) -> str:
    value, problem = _parsed(text)
    if problem:
        return problem
    error = next(iter(validator.iter_errors(value)), None)
    return "" if error is None else f"At {error.json_path}: {error.message[:_LONGEST_REASON]}."


def _parsed(text: str) -> tuple[Any, str]:
    try:
        return json.loads(text), ""
    except (ValueError, RecursionError) as error:
        return None, f"It is not JSON: {error}."


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
