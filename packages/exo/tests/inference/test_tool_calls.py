"""Calls of functions are checked before anybody sees them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec
import pytest

from exo.inference import json_check, tool_calls
from exo.inference.formatted import answer_in_format
from exo.inference.tool_calls import answer_with_tools
from exo.types import (
    AnswerFormat,
    AnswerNotValid,
    ChatRequest,
    Delta,
    FinishReason,
    Message,
    TokenChance,
    TokenLogprob,
    Tool,
    ToolCallDelta,
    ToolChoice,
    Usage,
)

WEATHER = Tool(
    name="weather",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
        "additionalProperties": False,
    },
)
TIME = Tool(name="time")
PARIS = '{"city": "Paris"}'


def asked(**fields: Any) -> ChatRequest:
    return ChatRequest(
        model="m", messages=(Message(role="user", content="Hi"),), **({"tools": (WEATHER, TIME)} | fields)
    )


def piece(index: int, arguments: str = "", name: str | None = None, call_id: str | None = None) -> Delta:
    return Delta(tool_calls=(ToolCallDelta(index=index, id=call_id, name=name, arguments=arguments),))


def call(index: int, name: str, arguments: str) -> list[Delta]:
    """A call as an engine may hand it on: in pieces."""
    middle = len(arguments) // 2
    return [
        piece(index, name=name, call_id=f"id{index}"),
        piece(index, arguments[:middle]),
        piece(index, arguments[middle:]),
    ]


def finish(reason: FinishReason = "tool_calls", **fields: Any) -> Delta:
    return Delta(finish_reason=reason, usage=Usage(prompt_tokens=3, completion_tokens=4), **fields)


async def answer(deltas: Sequence[Delta], request: ChatRequest | None = None) -> list[Delta]:
    async def chat(_: ChatRequest) -> AsyncGenerator[Delta, None]:
        for delta in deltas:
            yield delta

    return [delta async for delta in answer_with_tools(chat, request or asked())]


def text_of(deltas: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def calls_of(deltas: Sequence[Delta]) -> list[tuple[str, Any]]:
    """Names and arguments; each call has to come whole, its name first, with the next index."""
    made: list[list[str]] = []
    for delta in deltas:
        for one in delta.tool_calls:
            if one.name is not None:
                assert (one.index, bool(one.id), one.arguments) == (len(made), True, "")
                made.append([one.name, ""])
            else:
                assert one.index == len(made) - 1
                made[-1][1] += one.arguments
    return [(name, json.loads(arguments)) for name, arguments in made]


async def test_a_call_is_handed_on_with_the_engines_id() -> None:
    deltas = await answer([Delta(text="Let me see. "), *call(0, "weather", PARIS), finish()])
    assert [delta.text for delta in deltas] == ["Let me see. ", "", "", ""]
    assert calls_of(deltas) == [("weather", {"city": "Paris"})]
    assert deltas[1].tool_calls[0].id == "id0"
    assert deltas[-1] == finish()


async def test_probabilities_are_those_of_the_text_not_of_the_call() -> None:
    chance = (TokenLogprob(chosen=TokenChance(text="x", logprob=-1.0)),)
    called = msgspec.structs.replace(piece(0, PARIS, "weather"), logprobs=chance)
    deltas = await answer([Delta(text="x", logprobs=chance), called, Delta(text="y", logprobs=chance), finish()])
    assert [(delta.text, delta.logprobs) for delta in deltas if delta.logprobs] == [("x", chance), ("y", chance)]


async def test_several_calls_are_counted_anew_and_a_missing_id_is_made() -> None:
    deltas = await answer([piece(3, PARIS, "weather"), *call(7, "time", ""), finish("stop")])
    assert calls_of(deltas) == [("weather", {"city": "Paris"}), ("time", {})]
    assert len({delta.tool_calls[0].id for delta in deltas if delta.tool_calls and delta.tool_calls[0].id}) == 2
    assert deltas[-1].finish_reason == "tool_calls"


async def test_text_and_reasoning_do_not_wait() -> None:
    first = Delta(reasoning="Hm", text="So")
    deltas = await answer([Delta(), first, piece(0, PARIS, "weather"), Delta(text="done"), finish(text="!")])
    assert deltas[:2] == [Delta(), first]
    assert [bool(delta.tool_calls) for delta in deltas] == [False, False, True, True, False, False, False]
    assert text_of(deltas) == "Sodone!"


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("weather", '{"days": 1}', "city"),
        ("weather", '{"city": 5}', "$.city"),
        ("weather", '{"city": "Paris", "unit": "K"}', "unit"),
        ("weather", '{"city": "Par', "not JSON"),
        ("weather", "[]", "no object"),
        ("time", "[1]", "no object"),
        ("tides", "{}", "no function 'tides'"),
    ],
)
async def test_what_does_not_fit_is_text_with_the_reason(name: str, arguments: str, reason: str) -> None:
    deltas = await answer([*call(0, name, arguments), *call(1, "time", "{}"), finish()])
    assert calls_of(deltas) == [("time", {})]
    said, _, why = text_of(deltas).partition("\n")
    assert (name in said, arguments in said, reason in why) == (True, True, True), text_of(deltas)


async def test_an_answer_whose_calls_all_fail_is_no_call() -> None:
    deltas = await answer([*call(0, "tides", "{}"), finish()])
    assert (calls_of(deltas), deltas[-1].finish_reason) == ([], "stop")


@pytest.mark.parametrize(("arguments", "made"), [('{"city": "Pa', []), (PARIS, [("weather", {"city": "Paris"})])])
async def test_an_answer_that_was_cut_off_says_so(arguments: str, made: list[tuple[str, Any]]) -> None:
    deltas = await answer([*call(0, "weather", arguments), finish("length")])
    assert (calls_of(deltas), deltas[-1].finish_reason) == (made, "length")
    assert ("cut off" in text_of(deltas)) is not bool(made)


async def test_only_one_call_where_no_more_were_allowed() -> None:
    request = asked(parallel_tool_calls=False)
    deltas = await answer([*call(0, "time", "{}"), *call(1, "weather", PARIS), finish()], request)
    assert calls_of(deltas) == [("time", {})]
    assert "Only one call" in text_of(deltas)


async def test_only_the_function_that_was_named() -> None:
    request = asked(tool_choice=ToolChoice(mode="required", name="time"))
    deltas = await answer([*call(0, "weather", PARIS), *call(1, "time", "{}"), finish()], request)
    assert calls_of(deltas) == [("time", {})]
    assert "Only 'time'" in text_of(deltas)


async def test_a_model_that_had_to_call_and_has_not() -> None:
    request = asked(tool_choice=ToolChoice(mode="required"))
    with pytest.raises(AnswerNotValid, match="m has called no function"):
        await answer([Delta(text="No."), finish("stop")], request)
    assert (await answer([Delta(text="I thi"), finish("length")], request))[-1].finish_reason == "length"


async def test_a_schema_that_cannot_be_followed_lets_no_call_through() -> None:
    deltas = await answer(
        [*call(0, "odd", "{}"), finish()], asked(tools=(Tool(name="odd", parameters={"type": "no"}),))
    )
    assert (calls_of(deltas), "schema" in text_of(deltas)) == ([], True)


async def test_a_schema_that_takes_for_ever_is_followed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = []

    @contextlib.asynccontextmanager
    async def checking(schema: Any, *, param: str) -> AsyncGenerator[json_check.Check, None]:
        checks.append(schema)
        async with json_check.checking(schema, param=param) as check:
            yield check

    monkeypatch.setattr(tool_calls, "checking", checking)
    endless = {"properties": {"city": {"pattern": "^(a+)+$"}}}
    calls = [delta for index in range(3) for delta in call(index, "odd", json.dumps({"city": "a" * 40 + "!"}))]
    deltas = await answer([*calls, finish()], asked(tools=(Tool(name="odd", parameters=endless),)))
    assert (calls_of(deltas), text_of(deltas).count("takes too long")) == ([], 3)
    assert checks.count(endless) == 1


async def test_a_call_goes_before_the_format_of_the_answer() -> None:
    request = asked(format=AnswerFormat())

    async def chat(_: ChatRequest) -> AsyncGenerator[Delta, None]:
        for delta in [Delta(text="Let me see."), *call(0, "time", "{}"), finish()]:
            yield delta

    async def checked(request: ChatRequest) -> AsyncGenerator[Delta, None]:
        async for delta in answer_with_tools(chat, request):
            yield delta

    deltas = [delta async for delta in answer_in_format(checked, request)]
    assert calls_of(deltas) == [("time", {})]
    assert deltas[-1].finish_reason == "tool_calls"


async def test_a_call_of_a_model_that_must_not_call_is_text() -> None:
    """As from a server that ignores the wish."""
    deltas = await answer([*call(0, "weather", PARIS), finish()], asked(tool_choice=ToolChoice(mode="none")))
    assert calls_of(deltas) == []
    assert "No function was to be called." in text_of(deltas)
    assert deltas[-1].finish_reason == "stop"
