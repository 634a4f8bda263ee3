"""What of a request reaches the engine, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from scripted_server import ScriptedEngine

from exo.types import AnswerFormat, Delta, Limits, Message, Sampling, Tool, ToolCall, ToolCallDelta, ToolChoice, Usage

Ask = Callable[..., Awaitable[httpx2.Response]]

HELLO: dict[str, Any] = {"model": "one", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
FORMAT = {"type": "json_schema", "schema": SCHEMA}
WEATHER = {"name": "weather", "description": "Tells it.", "input_schema": SCHEMA}
TOOLS = {**HELLO, "tools": [WEATHER, {"type": "custom", "name": "time", "input_schema": {}, "cache_control": {}}]}


def said(*contents: Any) -> dict[str, Any]:
    """A conversation of these contents, in turn of the user and of the assistant."""
    roles = ("user", "assistant")
    messages = [{"role": roles[number % 2], "content": content} for number, content in enumerate(contents)]
    return {**HELLO, "messages": messages}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words, "cache_control": {"type": "ephemeral"}}


async def reach(ask: Ask, engine: ScriptedEngine, body: dict[str, Any]) -> tuple[Message, ...]:
    response = await ask(body)
    assert response.status_code == 200, response.text
    return engine.requests[-1].messages


async def test_limits_and_sampling_reach_the_engine(ask: Ask, engine: ScriptedEngine) -> None:
    sampling = {"temperature": 0.5, "top_p": 0.9, "top_k": 5}
    assert (await ask({**HELLO, **sampling, "stop_sequences": ["a", "", "b"]})).status_code == 200
    (request,) = engine.requests
    assert request.sampling == Sampling(temperature=0.5, top_p=0.9, top_k=5)
    assert request.limits == Limits(max_tokens=50, stop=("a", "b"))
    assert (request.model, request.think, request.think_budget, request.format) == ("one", None, None, None)


async def test_system_text_comes_first(ask: Ask, engine: ScriptedEngine) -> None:
    user = Message(role="user", content="hi")
    for system, expected in (("be brief", "be brief"), ([text("be"), text("brief")], "be\nbrief")):
        assert await reach(ask, engine, {**HELLO, "system": system}) == (Message(role="system", content=expected), user)
    absent: list[Any] = ["", [], None]
    for nothing in absent:
        assert await reach(ask, engine, {**HELLO, "system": nothing}) == (user,)


async def test_blocks_of_an_answer_become_one_message(ask: Ask, engine: ScriptedEngine) -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "x"},
        {"type": "redacted_thinking", "data": "abc"},
        text("I "),
        text("ask."),
        {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Köln"}, "caller": {"type": "direct"}},
    ]
    _, answer, _ = await reach(ask, engine, said("rain?", blocks, "go on"))
    (call,) = answer.tool_calls
    assert (answer.role, answer.content, answer.reasoning) == ("assistant", "I ask.", "hm")
    assert (call.id, call.name, json.loads(call.arguments)) == ("t1", "weather", {"city": "Köln"})


async def test_results_of_tools_are_messages_and_text_stays_where_it_is(ask: Ask, engine: ScriptedEngine) -> None:
    blocks = [
        {"type": "tool_result", "tool_use_id": "t1", "content": "dry"},
        {"type": "tool_result", "tool_use_id": "t2", "content": [text("a"), text("b")], "is_error": False},
        {"type": "tool_result", "tool_use_id": "t3", "content": "gone", "is_error": True},
        {"type": "tool_result", "tool_use_id": "t4"},
        text("so?"),
        text("now"),
    ]
    *_, first, second, third, fourth, user = await reach(ask, engine, said("q", "a", blocks))
    assert [m.role for m in (first, second, third, fourth)] == ["tool"] * 4
    assert [m.tool_call_id for m in (first, second, third, fourth)] == ["t1", "t2", "t3", "t4"]
    assert [m.content for m in (first, second, third, fourth)] == ["dry", "a\nb", "Error: gone", ""]
    assert user == Message(role="user", content="so?\nnow")


async def test_text_between_results_stays_there(ask: Ask, engine: ScriptedEngine) -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "content": "dry"}
    messages = await reach(ask, engine, said([text("a"), result, text("b"), result]))
    assert [(m.role, m.content) for m in messages] == [("user", "a"), ("tool", "dry"), ("user", "b"), ("tool", "dry")]


async def test_turns_of_one_role_are_joined(ask: Ask, engine: ScriptedEngine) -> None:
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    conversation = [("user", "a"), ("user", [text("b")]), ("assistant", "c"), ("assistant", [call]), ("user", "d")]
    messages = [{"role": role, "content": content} for role, content in conversation]
    assert await reach(ask, engine, {**HELLO, "messages": messages}) == (
        Message(role="user", content="a\nb"),
        Message(role="assistant", content="c", tool_calls=(ToolCall(id="t", name="f", arguments="{}"),)),
        Message(role="user", content="d"),
    )


async def test_instructions_in_mid_conversation_stay_there(ask: Ask, engine: ScriptedEngine) -> None:
    conversation = [("user", "a"), ("system", [text("be"), text("brief")]), ("system", "and kind"), ("user", "b")]
    messages = [{"role": role, "content": content} for role, content in conversation]
    assert [(m.role, m.content) for m in await reach(ask, engine, {**HELLO, "messages": messages})] == [
        ("user", "a"),
        ("system", "be\nbrief"),
        ("system", "and kind"),
        ("user", "b"),
    ]


async def test_tools_reach_the_engine(ask: Ask, engine: ScriptedEngine) -> None:
    await reach(ask, engine, TOOLS)
    assert engine.requests[-1].tools == (
        Tool(name="weather", description="Tells it.", parameters=SCHEMA),
        Tool(name="time", parameters={}),
    )
    assert engine.requests[-1].tool_choice == ToolChoice()
    assert engine.requests[-1].parallel_tool_calls


async def test_the_choice_of_a_tool_reaches_the_engine(ask: Ask, engine: ScriptedEngine) -> None:
    call = ToolCallDelta(index=0, id="c", name="time", arguments="{}")
    engine.script = [Delta(tool_calls=(call,)), Delta(finish_reason="tool_calls", usage=Usage())]
    choices = [
        ({"type": "auto"}, ToolChoice()),
        ({"type": "none"}, ToolChoice(mode="none")),
        ({"type": "any"}, ToolChoice(mode="required")),
        ({"type": "tool", "name": "time"}, ToolChoice(mode="required", name="time")),
    ]
    for choice, expected in choices:
        await reach(ask, engine, {**TOOLS, "tool_choice": choice})
        assert engine.requests[-1].tool_choice == expected
        assert engine.requests[-1].parallel_tool_calls
        if choice["type"] != "none":
            await reach(ask, engine, {**TOOLS, "tool_choice": {**choice, "disable_parallel_tool_use": True}})
            assert not engine.requests[-1].parallel_tool_calls


async def test_thinking_reaches_the_engine(ask: Ask, engine: ScriptedEngine) -> None:
    wishes: list[tuple[dict[str, Any] | None, bool | None, int | None]] = [
        ({"type": "enabled", "budget_tokens": 49}, True, 49),
        ({"type": "enabled", "budget_tokens": 1}, True, 1),
        ({"type": "adaptive"}, None, None),
        ({"type": "disabled"}, False, None),
        (None, None, None),
    ]
    for thinking, think, budget in wishes:
        await reach(ask, engine, {**HELLO, "thinking": thinking})
        assert (engine.requests[-1].think, engine.requests[-1].think_budget) == (think, budget)


async def test_a_format_reaches_the_engine(ask: Ask, engine: ScriptedEngine) -> None:
    for fields in ({"output_config": {"format": FORMAT, "effort": "low"}}, {"output_format": FORMAT}):
        await reach(ask, engine, {**HELLO, **fields})
        assert engine.requests[-1].format == AnswerFormat(schema=SCHEMA)


ACCEPTED: list[dict[str, Any]] = [
    {"metadata": {"user_id": "me"}, "service_tier": "standard_only", "inference_geo": "eu", "speed": "fast"},
    {"fallbacks": [{"model": "other"}], "user_profile_id": "u"},
    {"cache_control": {"type": "ephemeral"}, "something_unknown": [1], "output_config": {"effort": "max"}},
    {"container": None, "mcp_servers": [], "tools": [], "tool_choice": {"type": "auto"}, "stop_sequences": []},
    {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
    {"context_management": {"edits": []}, "temperature": None, "stream": None, "system": None},
]


@pytest.mark.parametrize("fields", ACCEPTED)
async def test_what_changes_nothing_is_accepted(ask: Ask, engine: ScriptedEngine, fields: dict[str, Any]) -> None:
    assert (await ask(HELLO)).status_code == (await ask({**HELLO, **fields})).status_code == 200
    plain, other = engine.requests
    assert (other.messages, other.sampling, other.limits) == (plain.messages, plain.sampling, plain.limits)
    assert (other.tools, other.think, other.format) == ((), None, None)


RESULT = {"type": "tool_result", "tool_use_id": "t"}


def block(kind: str, **fields: Any) -> dict[str, Any]:
    return said([text("look"), {"type": kind, **fields}])


UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    ({"container": "c1"}, "container"),
    ({"thread": {"type": "create"}}, "thread"),
    ({"compaction": {"type": "summarize"}}, "compaction"),
    ({"diagnostics": {"previous_message_id": "m"}}, "diagnostics"),
    ({"mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}]}, "mcp_servers"),
    ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, "context_management"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]: tools of the type web_search_"),
    ({"tools": [WEATHER, {"type": "bash_20250124", "name": "bash"}]}, "tools[1]"),
    (block("image", source={}), "messages[0].content[1] is of the type image"),
    (block("document", source={}), "document"),
    (block("search_result", title="t"), "search_result"),
    (block("container_upload", file_id="f"), "container_upload"),
    (said("a", [{"type": "server_tool_use", "id": "s", "name": "n", "input": {}}], "b"), "messages[1].content[0]"),
    (said("a", [{"type": "mcp_tool_use", "id": "s", "name": "n", "input": {}}], "b"), "mcp_tool_use"),
    (
        block("tool_result", tool_use_id="t", content=[{"type": "image", "source": {}}]),
        "messages[0].content[1].content[0]",
    ),
    (said("a", "The answer is ("), "messages[1]: an answer that was begun"),
]
INVALID: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "king", "content": "a"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content is empty"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    (block("telepathy"), "telepathy"),
    (block("thinking", thinking="hm"), "thinking does not belong in a message of the role user"),
    (block("tool_use", id="t", name="n", input={}), "tool_use does not belong"),
    (block("tool_result"), "tool_use_id"),
    (said("a", [RESULT], "b"), "tool_result does not belong"),
    (said("a", [{"type": "tool_use", "id": "t", "name": "n", "input": "{}"}], "b"), "input"),
    ({"messages": [{"role": "system", "content": [RESULT]}]}, "tool_result does not belong in a message of the role s"),
    ({"temperature": 1.5}, "temperature"),
    ({"top_p": -0.1}, "top_p"),
    ({"top_k": -1}, "top_k"),
    ({"stop_sequences": "x"}, "stop_sequences"),
    ({"stream": "yes"}, "stream"),
    ({"tools": [{"name": "f"}]}, "tools[0].input_schema is missing"),
    ({"tools": [{"input_schema": {}}]}, "tools[0].name is missing"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "wether"}}, "'wether'"),
    ({"tool_choice": {"type": "some"}}, "tool_choice"),
    ({"thinking": {"type": "enabled"}}, "budget_tokens"),
    ({"thinking": {"type": "between_tools"}}, "thinking.type: Invalid value 'between_tools'"),
    ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens"),
    ({"thinking": {"type": "enabled", "budget_tokens": 50}}, "thinking.budget_tokens is 50"),
    ({"output_config": {"effort": "heroic"}}, "output_config.effort"),
    ({"output_format": {"type": "json_object", "schema": {}}}, "output_format.type"),
    ({"output_format": FORMAT, "output_config": {"format": FORMAT}}, "contradict"),
]


@pytest.mark.parametrize(
    ("fields", "words", "code"),
    [(*case, "unsupported_parameter") for case in UNSUPPORTED] + [(*case, "invalid_request") for case in INVALID],
)
async def test_what_cannot_be_honoured_is_refused_by_name(
    ask: Ask, engine: ScriptedEngine, fields: dict[str, Any], words: str, code: str
) -> None:
    response = await ask({**HELLO, **fields})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (400, code, "invalid_request_error")
    assert words in error["message"]
    assert engine.requests == []
