"""Calls of functions in Ollama's dialect."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from ollama_engine import OllamaEngine, ask, lines, post
from scripted_server import Step, running

from exo.inference import Capability
from exo.types import Delta, FinishReason, RunFailed, Tool, ToolCallDelta, Usage

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": CITY}},
    {"function": {"name": "time"}},
]
CHAT: dict[str, Any] = {"model": "one", "messages": [{"role": "user", "content": "rain?"}], "tools": TOOLS}
WHOLE = {**CHAT, "stream": False}


class CallingEngine(OllamaEngine):
    """As the class above, and it can call functions."""

    capabilities: ClassVar[frozenset[Capability]] = OllamaEngine.capabilities | {"tools"}


def call(index: int, name: str, arguments: str) -> list[Delta]:
    """A call as an engine hands it on: in fragments."""
    begin = ToolCallDelta(index=index, id=f"call_{index}", name=name)
    fragments = [ToolCallDelta(index=index, arguments=text) for text in (arguments[:3], arguments[3:])]
    return [Delta(tool_calls=(piece,)) for piece in (begin, *fragments)]


def end(reason: FinishReason = "tool_calls") -> Delta:
    return Delta(finish_reason=reason, usage=Usage(prompt_tokens=7, completion_tokens=9))


def out(index: int, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"id": f"call_{index}", "function": {"index": index, "name": name, "arguments": arguments}}


SCRIPT = [
    Delta(text="Let me see."),
    *call(0, "weather", '{"city":\n "Köln"}'),
    *call(1, "weather", '{"city": "Paris", "days": 12345678901234567890, "share": 1.0}'),
    *call(2, "time", ""),
    end(),
]
CALLS = [
    out(0, "weather", {"city": "Köln"}),
    out(1, "weather", {"city": "Paris", "days": 12345678901234567890, "share": 1.0}),
    out(2, "time", {}),
]


async def test_functions_reach_the_engine() -> None:
    engine = CallingEngine()
    async with running(engine) as node:
        assert (await post(node, "/api/chat", WHOLE)).status_code == 200
        assert (await post(node, "/api/chat", {**WHOLE, "tools": None})).status_code == 200
    assert engine.requests[0].tools == (
        Tool(name="weather", description="Tells it.", parameters=CITY),
        Tool(name="time"),
    )
    assert engine.requests[1].tools == ()


async def test_each_call_is_whole_in_a_line_of_its_own() -> None:
    async with running(CallingEngine(SCRIPT)) as node:
        first, *calls, last = lines(await post(node, "/api/chat", CHAT))
    assert first["message"] == {"role": "assistant", "content": "Let me see."}
    assert [line["message"] for line in calls] == [
        {"role": "assistant", "content": "", "tool_calls": [call]} for call in CALLS
    ]
    assert [(line["done"], line.keys() & {"done_reason", "logprobs"}) for line in calls] == [(False, set())] * 3
    assert (last["done"], last["done_reason"], last["eval_count"]) == (True, "stop", 9)
    assert last["message"] == {"role": "assistant", "content": ""}


async def test_a_whole_answer_has_all_calls() -> None:
    async with running(CallingEngine(SCRIPT)) as node:
        body = (await post(node, "/api/chat", WHOLE)).json()
    assert body["message"] == {"role": "assistant", "content": "Let me see.", "tool_calls": CALLS}
    assert (body["done"], body["done_reason"]) == (True, "stop")


async def test_an_answer_of_calls_alone_has_an_empty_text() -> None:
    async with running(CallingEngine([*call(0, "time", "{}"), end()])) as node:
        body = (await post(node, "/api/chat", WHOLE)).json()
    assert body["message"] == {"role": "assistant", "content": "", "tool_calls": [out(0, "time", {})]}


@pytest.mark.parametrize("between", [Delta(text="and"), Delta(reasoning="and")], ids=["text", "reasoning"])
async def test_a_call_comes_before_what_the_model_says_after_it(between: Delta) -> None:
    begin, *rest = call(1, "time", "{}")
    following = [between, begin, *rest] if between.text else [begin, between, *rest]
    async with running(CallingEngine([*call(0, "time", "{}"), *following, end()])) as node:
        found = lines(await post(node, "/api/chat", CHAT))
    field = "content" if between.text else "thinking"
    assert [line["message"].get("tool_calls") or line["message"].get(field, "") for line in found] == [
        [out(0, "time", {})],
        "and",
        [out(1, "time", {})],
        "",
    ]


async def test_a_call_that_cannot_be_made_is_text() -> None:
    async with running(CallingEngine([*call(0, "weather", '{"town": 1}'), end()])) as node:
        message = (await post(node, "/api/chat", WHOLE)).json()["message"]
    assert "tool_calls" not in message
    assert "city" in message["content"]


async def test_an_answer_that_is_cut_off_says_so() -> None:
    async with running(CallingEngine([*call(0, "time", "{}"), end("length")])) as node:
        body = (await post(node, "/api/chat", WHOLE)).json()
    assert (body["message"]["tool_calls"], body["done_reason"]) == ([out(0, "time", {})], "length")


async def test_a_call_that_breaks_off_is_not_sent() -> None:
    script: list[Step] = [Delta(text="Let me see."), *call(0, "time", "{}")[:2], RunFailed("broken")]
    async with running(CallingEngine(script)) as node:
        text, *others = lines(await post(node, "/api/chat", CHAT))
    assert text["message"] == {"role": "assistant", "content": "Let me see."}
    assert others == [{"error": "broken", "code": "engine_run_failed"}]


ASKED = {"role": "user", "content": "rain?"}


def called(*names: str, **fields: Any) -> dict[str, Any]:
    return {
        "role": "assistant",
        "tool_calls": [{"function": {"name": name, "arguments": {}}, **fields} for name in names],
    }


def result(**fields: str) -> dict[str, Any]:
    return {"role": "tool", "content": "it rains", **fields}


@pytest.mark.parametrize(
    ("messages", "answered"),
    [
        ([called("f", "f"), result(tool_name="f"), result(tool_name="f")], [0, 1]),
        ([called("f", "g"), result(tool_name="g"), result(tool_name="f")], [1, 0]),
        ([called("f", "g"), result(), result()], [0, 1]),
        ([called("f", "g"), result(tool_name=""), result(tool_name="f")], [0, 0]),
        ([called("f"), called("f"), result(tool_name="f")], [1]),
        ([called("f"), result(tool_name="f"), result(tool_name="f")], [0, 0]),
    ],
    ids=["in their order", "by name", "without names", "empty name", "of the newest turn", "twice"],
)
async def test_results_are_joined_to_their_calls(messages: list[dict[str, Any]], answered: list[int]) -> None:
    engine = CallingEngine()
    assert (await ask(engine, "/api/chat", {**WHOLE, "messages": [ASKED, *messages]})).status_code == 200
    sent = engine.requests[0].messages
    ids = [call.id for message in sent for call in message.tool_calls]
    assert len(set(ids)) == len(ids)
    assert [message.tool_call_id for message in sent if message.role == "tool"] == [ids[place] for place in answered]


async def test_a_result_that_names_its_call_is_believed() -> None:
    engine = CallingEngine()
    messages = [ASKED, called("f", id="a"), called("f", id="b"), result(tool_name="f", tool_call_id="a"), result()]
    assert (await ask(engine, "/api/chat", {**WHOLE, "messages": messages})).status_code == 200
    assert [message.tool_call_id for message in engine.requests[0].messages[-2:]] == ["a", "b"]


@pytest.mark.parametrize("function", [{"name": "f"}, {"name": "f", "arguments": None}, {"name": "f", "arguments": {}}])
async def test_a_call_without_arguments(function: dict[str, Any]) -> None:
    engine = CallingEngine()
    messages = [ASKED, {"role": "assistant", "tool_calls": [{"function": function}]}, result()]
    assert (await ask(engine, "/api/chat", {**WHOLE, "messages": messages})).status_code == 200
    assert engine.requests[0].messages[1].tool_calls[0].arguments == "{}"
