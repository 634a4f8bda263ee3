from __future__ import annotations

import asyncio
import datetime as dt
import json
import math
from typing import Any

import httpx2
import pytest
from ollama_engine import TIMED, OllamaEngine, ask, lines, post
from scripted_server import ScriptedEngine, running, until

from exo.api import HttpSettings
from exo.types import (
    AnswerFormat,
    ContextOverflow,
    Delta,
    QueueFull,
    RunFailed,
    Sampling,
    ToolCall,
    Usage,
    WorkerDied,
)

CHAT: dict[str, Any] = {"model": "one", "messages": [{"role": "user", "content": "hi"}]}
WHOLE = {**CHAT, "stream": False}


async def test_a_stream_is_the_default_and_ends_with_counts_and_durations() -> None:
    async with running(OllamaEngine(TIMED)) as node:
        response = await post(node, "/api/chat", CHAT)
    first, second, last = lines(response)
    for line in (first, second, last):
        stamp = line.pop("created_at")
        assert len(stamp) == len("2023-08-04T19:22:45.499127123Z")
        assert dt.datetime.fromisoformat(f"{stamp[:26]}+00:00").year > 2000
        assert line.pop("model") == "one"
    assert first == {"message": {"role": "assistant", "content": "Hello"}, "done": False}
    assert second == {"message": {"role": "assistant", "content": "!"}, "done": False}
    assert last.pop("total_duration") > 0
    assert last == {
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": "length",
        "load_duration": 500_000_000,
        "prompt_eval_count": 7,
        "prompt_eval_duration": 250_000_000,
        "eval_count": 2,
        "eval_duration": 1_500_000_000,
    }


async def test_a_whole_answer_is_one_object() -> None:
    async with running(OllamaEngine()) as node:
        response = await post(node, "/api/chat", WHOLE)
    body = response.json()
    assert response.headers["content-type"] == "application/json"
    assert body["message"] == {"role": "assistant", "content": "Hello world"}
    assert (body["done"], body["done_reason"], body["eval_count"]) == (True, "stop", 2)


async def test_every_line_is_sent_at_once() -> None:
    go_on = asyncio.Event()
    async with running(OllamaEngine(["one", go_on, "two"])) as node:
        async with httpx2.AsyncClient() as client, client.stream("POST", f"{node.url}/api/chat", json=CHAT) as response:
            received = response.aiter_lines()
            assert json.loads(await anext(received))["message"]["content"] == "one"
            go_on.set()
            assert json.loads(await anext(received))["message"]["content"] == "two"
            assert json.loads(await anext(received))["done"]


async def test_any_text_survives_the_stream() -> None:
    texts = ['quote " and \\ back', "line\nbreak\u2028", "emoji \U0001f642 \0 nul", "</script>"]
    async with running(OllamaEngine(texts)) as node:
        response = await post(node, "/api/chat", CHAT)
    assert [line["message"]["content"] for line in lines(response)][:-1] == texts


async def test_the_model_is_named_as_the_client_names_it() -> None:
    async with running(OllamaEngine()) as node:
        for name in ("one", "one:latest", "uno:latest", "UNO", "two/b:1"):
            assert (await post(node, "/api/chat", {**WHOLE, "model": name})).json()["model"] == name
        assert node.sample("exo_requests_total", {"model": "one", "status": "200"}) == 4
        for name in ("three", "three:latest", "two/b", ":latest"):
            response = await post(node, "/api/chat", {**CHAT, "model": name})
            assert response.status_code == 404
            assert response.json()["error"].startswith(f"model '{name}' not found")
            assert "one, two/b:1" in response.json()["error"]
            assert response.json()["code"] == "model_not_found"
        for body in ({**CHAT, "model": ""}, {"messages": CHAT["messages"]}):
            assert (await post(node, "/api/chat", body)).status_code == 400


async def test_reasoning_is_thinking_and_without_think_it_is_left_out() -> None:
    script = [Delta(reasoning="hm"), Delta(text="yes", reasoning="!"), Delta(finish_reason="stop", usage=Usage())]
    async with running(OllamaEngine(script)) as node:
        streamed = lines(await post(node, "/api/chat", CHAT))
        whole = (await post(node, "/api/chat", {**WHOLE, "think": True})).json()
        silent = lines(await post(node, "/api/chat", {**CHAT, "think": False}))
        silent_whole = (await post(node, "/api/chat", {**WHOLE, "think": False})).json()
    assert [line["message"] for line in streamed] == [
        {"role": "assistant", "content": "", "thinking": "hm"},
        {"role": "assistant", "content": "yes", "thinking": "!"},
        {"role": "assistant", "content": ""},
    ]
    assert whole["message"] == {"role": "assistant", "content": "yes", "thinking": "hm!"}
    assert [line["message"]["content"] for line in silent] == ["yes", ""]
    assert "thinking" not in json.dumps(silent)
    assert silent_whole["message"] == {"role": "assistant", "content": "yes"}


async def test_think_reaches_the_engine() -> None:
    engine = OllamaEngine()
    async with running(engine) as node:
        levels = [(level, True) for level in ("low", "medium", "high", "max")]
        for value, expected in ((True, True), (False, False), (None, None), *levels):
            assert (await post(node, "/api/chat", {**WHOLE, "think": value})).status_code == 200
            assert engine.requests[-1].think is expected
        assert (await post(node, "/api/chat", {**WHOLE, "think": "very"})).status_code == 400


async def test_thinking_is_refused_where_no_model_thinks() -> None:
    async with running(ScriptedEngine()) as node:
        refused = await post(node, "/api/chat", {**WHOLE, "think": True})
        assert (refused.status_code, refused.json()["code"]) == (400, "unsupported_parameter")
        assert (await post(node, "/api/chat", {**WHOLE, "think": False})).status_code == 200


async def test_messages_reach_the_engine() -> None:
    call = {"function": {"name": "weather", "arguments": {"city": "Köln", "days": 2}}}
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "rain?", "images": []},
        {"role": "assistant", "thinking": "ask", "tool_calls": [call, {**call, "id": "own"}]},
        {"role": "tool", "content": "no", "tool_name": "weather"},
        {"role": "tool", "content": "4", "tool_name": "other"},
        {"role": "tool", "content": "5", "tool_name": "weather", "tool_call_id": "c9"},
        {"role": "assistant", "content": None, "unknown": 1},
    ]
    engine = OllamaEngine()
    async with running(engine) as node:
        assert (await post(node, "/api/chat", {**WHOLE, "messages": messages})).status_code == 200
    system, user, assistant, weather, other, named, last = engine.requests[0].messages
    assert [(m.role, m.content) for m in (system, user)] == [("system", "be brief"), ("user", "rain?")]
    first, second = assistant.tool_calls
    assert (assistant.content, assistant.reasoning) == ("", "ask")
    assert (first.name, json.loads(first.arguments)) == ("weather", {"city": "Köln", "days": 2})
    assert second == ToolCall(id="own", name="weather", arguments=first.arguments)
    assert first.id
    assert [m.tool_call_id for m in (weather, other, named)] == [first.id, "other", "c9"]
    assert (last.content, last.tool_call_id) == ("", None)


async def test_format_and_keep_alive_reach_the_engine() -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}}
    engine = OllamaEngine()
    async with running(engine) as node:
        for value, form in (("json", AnswerFormat()), (schema, AnswerFormat(schema=schema)), ("", None), (None, None)):
            assert (await post(node, "/api/chat", {**WHOLE, "format": value})).status_code == 200
            assert engine.requests[-1].format == form
        for given, seconds in ((300, 300.0), ("5m", 300.0), (-1, math.inf), ("-1", math.inf), (0, 0), (None, None)):
            assert (await post(node, "/api/chat", {**WHOLE, "keep_alive": given})).status_code == 200
            assert engine.requests[-1].keep_alive == seconds


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"messages": [{"role": "user", "content": "a", "images": ["aGk="]}]}, "Images"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "calls of functions"),
    ({"tools": [{"type": "retrieval", "function": {"name": "f"}}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0]"),
    ({"tools": [{"function": {"name": ""}}]}, "tools[0].function.name"),
    ({"tools": [{"function": {"name": "f", "parameters": "x"}}]}, "tools[0].function.parameters"),
    ({"tools": {"name": "f"}}, "tools"),
    ({"logprobs": True}, "probabilities"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"top_logprobs": -1}, "top_logprobs"),
    ({"format": "xml"}, "format"),
    ({"format": 5}, "format"),
    ({"keep_alive": "soon"}, "keep_alive"),
    ({"keep_alive": True}, "keep_alive"),
    ({"messages": [{"role": "king", "content": "a"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]},
        "arguments",
    ),
    ({"stream": "no"}, "stream"),
]


@pytest.mark.parametrize(("fields", "word"), REFUSED)
async def test_what_is_wrong_or_cannot_be_honoured_is_400_and_named(fields: dict[str, Any], word: str) -> None:
    engine = OllamaEngine()
    response = await ask(engine, "/api/chat", {**CHAT, **fields})
    assert response.status_code == 400
    assert {"error", "code"} <= response.json().keys() <= {"error", "code", "param"}
    assert word in response.json()["error"]
    assert engine.requests == []


async def test_defaults_and_unknown_fields_are_accepted() -> None:
    accepted: list[dict[str, Any]] = [
        {"tools": [], "logprobs": False, "top_logprobs": 3, "truncate": True, "shift": False},
        {"tools": None, "options": None, "format": None, "something_unknown": [1]},
        {"options": {"something_unknown": 1}},
    ]
    async with running(OllamaEngine()) as node:
        for fields in accepted:
            assert (await post(node, "/api/chat", {**WHOLE, **fields})).status_code == 200, fields


async def test_without_messages_the_model_is_loaded_or_unloaded() -> None:
    engine = OllamaEngine()
    async with running(engine) as node:
        engine.loads.clear()
        for body in ({"model": "one:latest"}, {"model": "uno", "messages": [], "keep_alive": -1}):
            response = await post(node, "/api/chat", body)
            assert response.headers["content-type"] == "application/json"
            line = response.json()
            assert (line["model"], line["done"], line["done_reason"]) == (body["model"], True, "load")
            assert line["message"] == {"role": "assistant", "content": ""}
        assert engine.loads == [("one", None), ("one", math.inf)]
        unloaded = (await post(node, "/api/chat", {"model": "one", "keep_alive": "0s"})).json()
        assert (unloaded["done"], unloaded["done_reason"]) == (True, "unload")
        assert (await post(node, "/api/chat", {"model": "three", "keep_alive": 0})).status_code == 404
    assert engine.unloads == ["one"]
    assert engine.requests == []


async def test_a_refusal_before_the_run_keeps_its_status_streamed_or_not() -> None:
    async with running(OllamaEngine([ContextOverflow(prompt_tokens=900, context_tokens=512)])) as node:
        for body in (CHAT, WHOLE):
            response = await post(node, "/api/chat", body)
            assert response.status_code == 400
            assert response.json()["code"] == "context_length_exceeded"
            assert "900" in response.json()["error"]
    async with running(OllamaEngine([QueueFull("full", retry_after=7)])) as node:
        response = await post(node, "/api/chat", CHAT)
        assert (response.status_code, response.headers["retry-after"]) == (429, "7")


async def test_an_error_in_mid_stream_is_the_last_line() -> None:
    async with running(OllamaEngine(["Hel", WorkerDied("the worker was ended by SIGKILL")])) as node:
        response = await post(node, "/api/chat", CHAT)
        assert node.sample("exo_requests_total", {"model": "one", "status": "502"}) == 1
    first, last = lines(response)
    assert first["message"]["content"] == "Hel"
    assert last == {"error": "the worker was ended by SIGKILL", "code": "engine_worker_died"}


async def test_an_error_in_the_middle_of_a_whole_answer_is_the_status() -> None:
    async with running(OllamaEngine(["Hel", RunFailed("broken")])) as node:
        response = await post(node, "/api/chat", WHOLE)
    assert (response.status_code, response.json()) == (500, {"error": "broken", "code": "engine_run_failed"})


async def test_a_long_answer_begins_with_white_space_and_may_still_fail() -> None:
    go_on = asyncio.Event()
    settings = HttpSettings(port=0, heartbeat=0.01)
    async with running(OllamaEngine(["a", go_on, RunFailed("broken")]), settings) as node:
        async with (
            httpx2.AsyncClient() as client,
            client.stream("POST", f"{node.url}/api/chat", json=WHOLE) as response,
        ):
            received = response.aiter_bytes()
            assert (await anext(received)).strip() == b""
            go_on.set()
            rest = b"".join([piece async for piece in received])
    assert json.loads(rest) == {"error": "broken", "code": "engine_run_failed"}


async def test_a_client_that_goes_away_in_mid_stream_cancels_the_engine() -> None:
    never = asyncio.Event()
    engine = OllamaEngine(["one", never])
    async with running(engine) as node:
        async with httpx2.AsyncClient() as client, client.stream("POST", f"{node.url}/api/chat", json=CHAT) as response:
            await anext(response.aiter_lines())
        await until(lambda: engine.closed_early == 1)
        await until(lambda: node.sample("exo_requests_total", {"model": "one", "status": "499"}) == 1)
        assert node.sample("exo_requests_in_progress") == 0


async def test_values_that_the_runtime_fixes_are_named_in_a_header() -> None:
    script = [Delta(sampling=Sampling(temperature=0.8)), Delta(text="a"), Delta(finish_reason="stop", usage=Usage())]
    async with running(OllamaEngine(script)) as node:
        for body in (CHAT, WHOLE):
            assert (await post(node, "/api/chat", body)).headers["x-exo-sampling"] == "temperature=0.8"
