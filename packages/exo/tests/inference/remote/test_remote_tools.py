"""Functions that a model may call, by way of another server."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from ollama_engine import ask
from remote_engines import OLLAMA, OPENAI, REQUEST, engine_for
from remote_server import (
    END,
    EVENTS,
    NDJSON,
    RemoteServer,
    answer,
    collect,
    event,
    ollama_chat,
    ollama_end,
    ollama_line,
    openai_chat,
    said,
    usage,
)

from exo.inference.remote import OllamaClient
from exo.inference.remote.link import Link
from exo.inference.remote.openai import OpenAIClient
from exo.types import ChatRequest, Delta, InvalidRequest, Tool, ToolCallDelta, ToolChoice, UnsupportedParameter

WEATHER = Tool(name="weather", description="Tells it.", parameters={"type": "object"})
TIME = Tool(name="time")
CALLING = msgspec.structs.replace(REQUEST, tools=(WEATHER, TIME))
MUST = msgspec.structs.replace(CALLING, tool_choice=ToolChoice(mode="required"))
MUST_TIME = msgspec.structs.replace(CALLING, tool_choice=ToolChoice(mode="required", name="time"))
NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
"""Parameters of which nothing is known."""
WIRE_TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": {"type": "object"}}},
    {"type": "function", "function": {"name": "time", "description": "", "parameters": NOTHING}},
]
PARIS = '{"city":"Paris"}'


def piece(*calls: dict[str, Any], finish: str | None = None) -> bytes:
    """An event of OpenAI's chat with pieces of calls."""
    return event({"choices": [{"index": 0, "delta": {"tool_calls": calls}, "finish_reason": finish}]})


def called(name: str, arguments: dict[str, Any], **fields: Any) -> bytes:
    """A line of Ollama's chat with a call."""
    call = {"function": {"name": name, "arguments": arguments}, **fields}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    return ollama_line(message=message)


def arguments_of(deltas: list[Delta]) -> dict[int, str]:
    """What the fragments of each call add up to."""
    found: dict[int, str] = {}
    for delta in deltas:
        for call in delta.tool_calls:
            found[call.index] = found.get(call.index, "") + call.arguments
    return found


# OpenAI's dialect


async def test_calls_of_openais_dialect_come_as_they_are_written(server: RemoteServer, link: Link) -> None:
    server.routes[OPENAI] = [
        EVENTS,
        said("Let me see."),
        piece({"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": ""}}),
        piece({"index": 0, "function": {"arguments": '{"city"'}}),
        piece({"index": 0, "function": {"arguments": ':"Paris"}'}}),
        piece({"index": 1, "id": "c2", "function": {"name": "time", "arguments": "{}"}}),
        said(finish="tool_calls"),
        usage(),
        END,
    ]
    _, text, *calls, last = await collect(OpenAIClient(link).chat(CALLING))
    assert text == Delta(text="Let me see.")
    assert [call for delta in calls for call in delta.tool_calls] == [
        ToolCallDelta(index=0, id="c1", name="weather"),
        ToolCallDelta(index=0, arguments='{"city"'),
        ToolCallDelta(index=0, arguments=':"Paris"}'),
        ToolCallDelta(index=1, id="c2", name="time"),
        ToolCallDelta(index=1, arguments="{}"),
    ]
    assert last.finish_reason == "tool_calls"
    assert server.body(OPENAI)["tools"] == WIRE_TOOLS


async def test_a_server_that_says_stop_after_a_call(server: RemoteServer, link: Link) -> None:
    whole = {"function": {"name": "weather", "arguments": {"city": "Paris"}}}
    server.routes[OPENAI] = [EVENTS, piece(whole, finish="stop"), usage(), END]
    _, call, last = await collect(OpenAIClient(link).chat(CALLING))
    assert call.tool_calls[0].id
    assert arguments_of([call]) == {0: PARIS}
    assert last.finish_reason == "tool_calls"


async def test_calls_that_are_not_streamed(server: RemoteServer, link: Link) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": PARIS}}
    choice = {"message": {"role": "assistant", "content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}
    server.routes[OPENAI] = [answer({"choices": [choice], "usage": {"prompt_tokens": 3}})]
    _, delta, last = await collect(OpenAIClient(link).chat(CALLING))
    assert (delta.tool_calls[0].id, arguments_of([delta])) == ("c1", {0: PARIS})
    assert last.finish_reason == "tool_calls"


async def test_an_answer_that_was_cut_off_in_a_call_keeps_its_reason(server: RemoteServer, link: Link) -> None:
    half = {"index": 0, "id": "c", "function": {"name": "weather", "arguments": '{"ci'}}
    server.routes[OPENAI] = [EVENTS, piece(half, finish="length"), usage(), END]
    assert (await collect(OpenAIClient(link).chat(CALLING)))[-1].finish_reason == "length"


NAMED = {"type": "function", "function": {"name": "time"}}


@pytest.mark.parametrize(
    ("owner", "request_", "expected"),
    [
        ("vllm", CALLING, {"tools": WIRE_TOOLS}),
        ("vllm", MUST, {"tools": WIRE_TOOLS, "tool_choice": "required"}),
        ("vllm", MUST_TIME, {"tools": WIRE_TOOLS, "tool_choice": NAMED}),
        ("llamacpp", CALLING, {"tools": WIRE_TOOLS, "parallel_tool_calls": True}),
        ("llamacpp", MUST_TIME, {"tools": WIRE_TOOLS[1:], "tool_choice": "required", "parallel_tool_calls": True}),
        (
            "exo",
            msgspec.structs.replace(MUST_TIME, parallel_tool_calls=False),
            {"tools": WIRE_TOOLS, "tool_choice": NAMED, "parallel_tool_calls": False},
        ),
        ("exo", REQUEST, {}),
    ],
)
async def test_what_a_server_is_told_of_functions(
    server: RemoteServer, link: Link, owner: str, request_: ChatRequest, expected: dict[str, Any]
) -> None:
    server.speak_openai("m", owner=owner)
    server.routes[OPENAI] = openai_chat("x")
    client = OpenAIClient(link)
    for _ in range(2):
        await collect(client.chat(request_))
    body = server.asked[-1].body
    names = ("tools", "tool_choice", "parallel_tool_calls")
    assert {name: body[name] for name in names if name in body} == expected
    assert server.paths().count("/v1/models") == (1 if expected else 0), "what it is was asked once, if at all"


async def test_a_server_without_a_list_of_models_may_be_asked_all_the_same(server: RemoteServer, link: Link) -> None:
    server.routes[OPENAI] = openai_chat("x")
    await collect(OpenAIClient(link).chat(MUST_TIME))
    assert server.body(OPENAI)["tool_choice"] == NAMED


# Ollama's dialect


async def test_calls_of_ollamas_dialect_come_whole(server: RemoteServer, link: Link) -> None:
    server.routes[OLLAMA] = [
        NDJSON,
        ollama_line("Let me see."),
        called("weather", {"city": "Paris"}, id="c1"),
        called("weather", {"city": "Köln"}),
        called("time", {}),
        ollama_end(),
        END,
    ]
    _, text, *calls, last = await collect(OllamaClient(link).chat(CALLING))
    assert text == Delta(text="Let me see.")
    begun = [call for delta in calls for call in delta.tool_calls if call.name]
    assert [(call.index, call.name) for call in begun] == [(0, "weather"), (1, "weather"), (2, "time")]
    assert begun[0].id == "c1"
    assert len({call.id for call in begun} - {None, ""}) == 3
    assert arguments_of(calls) == {0: PARIS, 1: '{"city":"Köln"}', 2: "{}"}
    assert last.finish_reason == "tool_calls"
    assert server.body(OLLAMA)["tools"] == WIRE_TOOLS


async def test_several_calls_in_the_last_line(server: RemoteServer, link: Link) -> None:
    calls: list[dict[str, Any]] = [{"function": {"name": name, "arguments": {}}} for name in ("weather", "time")]
    message = {"role": "assistant", "content": "", "tool_calls": calls}
    server.routes[OLLAMA] = [answer({"message": message, "done": True, "done_reason": "stop"})]
    _, delta, last = await collect(OllamaClient(link).chat(CALLING))
    assert arguments_of([delta]) == {0: "{}", 1: "{}"}
    assert last.finish_reason == "tool_calls"


async def test_a_model_that_must_not_call_is_told_of_no_function(server: RemoteServer, link: Link) -> None:
    server.routes[OLLAMA] = ollama_chat("x")
    await collect(OllamaClient(link).chat(msgspec.structs.replace(CALLING, tool_choice=ToolChoice(mode="none"))))
    assert "tools" not in server.body(OLLAMA)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tool_choice": ToolChoice(mode="required")}, "tool_choice"),
        ({"tool_choice": ToolChoice(mode="required", name="time")}, "tool_choice"),
        ({"think_budget": 5}, "thinking_budget_tokens"),
    ],
)
async def test_what_ollamas_dialect_has_no_words_for_is_refused(
    server: RemoteServer, link: Link, change: dict[str, Any], param: str
) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        await collect(OllamaClient(link).chat(msgspec.structs.replace(CALLING, **change)))
    assert caught.value.param == param
    assert server.asked == []


# the engine


async def test_a_call_that_must_be_made_takes_openais_dialect_where_there_is_one(server: RemoteServer) -> None:
    server.speak_ollama("m")
    server.speak_openai("m", owner="vllm")
    server.routes |= {OPENAI: openai_chat("x"), OLLAMA: ollama_chat("x")}
    async with engine_for(server) as engine:
        for request in (CALLING, MUST, msgspec.structs.replace(MUST, tools=())):
            await collect(engine.chat(request))
    assert server.paths()[2:] == [OLLAMA, OPENAI, OLLAMA]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tools": (WEATHER,), "tool_choice": ToolChoice(mode="required")}, "tool_choice"),
        ({"tools": (WEATHER,), "tool_choice": ToolChoice(mode="required", name="weather")}, "tool_choice"),
        ({"think_budget": 5}, "thinking_budget_tokens"),
    ],
)
async def test_what_an_ollama_would_ignore_is_refused(server: RemoteServer, change: dict[str, Any], param: str) -> None:
    server.speak_ollama("m", "own")
    owned = [{"id": "own", "owned_by": "somebody"}, {"id": "m", "owned_by": "library"}]
    server.routes |= {"/v1/models": [answer({"data": owned})], OPENAI: openai_chat("x"), OLLAMA: ollama_chat("x")}
    async with engine_for(server) as engine:
        with pytest.raises(UnsupportedParameter) as caught:
            await collect(engine.chat(msgspec.structs.replace(REQUEST, **change)))
        assert caught.value.param == param
    assert {OPENAI, OLLAMA}.isdisjoint(server.paths())


@pytest.mark.parametrize(
    ("path", "refusal"),
    [
        (OLLAMA, {"error": "m does not support tools"}),
        (OPENAI, {"error": {"message": "logprobs is not supported with tools + stream", "code": 400}}),
    ],
)
async def test_what_a_server_itself_refuses_keeps_its_words(
    server: RemoteServer, path: str, refusal: dict[str, Any]
) -> None:
    server.routes[path] = [answer(refusal, "400 Bad Request")]
    dialect = "ollama" if path == OLLAMA else "openai"
    async with engine_for(server, EXO_REMOTE_DIALECT=dialect) as engine:
        with pytest.raises(InvalidRequest, match="support"):
            await collect(engine.chat(CALLING))


@pytest.mark.parametrize("dialect", ["ollama", "openai"])
async def test_a_call_crosses_a_node_in_either_dialect(server: RemoteServer, dialect: str) -> None:
    server.speak_ollama("m")
    server.speak_openai("m", owner="vllm")
    server.routes[OLLAMA] = [NDJSON, called("weather", {"city": "Paris"}), ollama_end(), END]
    whole = {"function": {"name": "weather", "arguments": PARIS}}
    server.routes[OPENAI] = [EVENTS, piece(whole, finish="stop"), usage(), END]
    body = {"model": "m", "messages": [{"role": "user", "content": "rain?"}], "tools": WIRE_TOOLS, "stream": False}
    async with engine_for(server, EXO_REMOTE_DIALECT=dialect) as engine:
        found = (await ask(engine, OLLAMA, body)).json()
    (call,) = found["message"]["tool_calls"]
    assert call["id"]
    assert call["function"] == {"index": 0, "name": "weather", "arguments": {"city": "Paris"}}
    assert (found["message"]["content"], found["done_reason"]) == ("", "stop")
