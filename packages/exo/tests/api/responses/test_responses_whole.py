"""Whole answers: the response object, its items and its fields."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
from responses_node import (
    PATH,
    TIME,
    WEATHER,
    CapableEngine,
    Node,
    answered,
    call,
    check_response,
    create,
    last,
    refusal,
)
from scripted_server import Step, running

from exo.api import HttpSettings
from exo.types import ContextOverflow, Delta, RunFailed, TokenChance, TokenLogprob, WorkerDied

HELLO = {"model": "uno", "input": "hi"}
LOGPROBS = ["message.output_text.logprobs"]


async def test_a_text_is_one_message_with_the_usage() -> None:
    node = Node(CapableEngine(["Hello", " world", last()]))
    body = await answered(node, HELLO)
    (message,) = body["output"]
    assert (message["type"], message["role"], message["status"]) == ("message", "assistant", "completed")
    assert message["content"] == [{"type": "output_text", "text": "Hello world", "annotations": [], "logprobs": []}]
    assert (body["object"], body["status"], body["model"]) == ("response", "completed", "one")
    assert (body["error"], body["incomplete_details"]) == (None, None)
    assert body["id"].startswith("resp_")
    assert message["id"].startswith("msg_")
    assert body["usage"] == {
        "input_tokens": 20,
        "input_tokens_details": {"cached_tokens": 15, "cache_write_tokens": 0},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 29,
    }


async def test_reasoning_text_and_calls_are_items_of_their_own() -> None:
    script = [
        Delta(reasoning="Let me"),
        Delta(reasoning=" see."),
        Delta(text="I ask."),
        *call(0, "weather", '{"city": "Köln"}'),
        *call(1, "time", "{}"),
        last("tool_calls"),
    ]
    node = Node(CapableEngine(script))
    body = await answered(node, {**HELLO, "tools": [WEATHER, TIME]})
    reasoning, message, *calls = body["output"]
    assert (reasoning["type"], reasoning["summary"]) == ("reasoning", [])
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Let me see."}]
    assert message["content"][0]["text"] == "I ask."
    assert [(item["type"], item["call_id"], item["name"], item["arguments"]) for item in calls] == [
        ("function_call", "call_weather", "weather", '{"city": "Köln"}'),
        ("function_call", "call_time", "time", "{}"),
    ]
    assert {item["status"] for item in body["output"]} == {"completed"}
    assert len({item["id"] for item in body["output"]}) == 4


async def test_an_answer_that_was_cut_off_is_incomplete_and_so_is_its_last_item() -> None:
    node = Node(CapableEngine([Delta(reasoning="hm"), Delta(text="So I"), last("length")]))
    body = await answered(node, {**HELLO, "max_output_tokens": 5})
    assert node.engine.requests[0].limits.max_tokens == 5
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert [item["status"] for item in body["output"]] == ["completed", "incomplete"]
    assert (body["completed_at"], body["max_output_tokens"]) == (None, 5)


async def test_an_answer_without_anything_is_an_empty_message() -> None:
    node = Node(CapableEngine([last()]))
    body = await answered(node, HELLO)
    assert [item["content"][0]["text"] for item in body["output"]] == [""]


async def test_the_fields_of_the_request_are_repeated() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form = {"type": "json_schema", "name": "thing", "schema": schema, "strict": True}
    fields: dict[str, Any] = {
        "instructions": "Be brief.",
        "temperature": 0.5,
        "top_p": 0.9,
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "name": "weather"},
        "parallel_tool_calls": False,
        "text": {"format": form, "verbosity": "low"},
        "metadata": {"a": "b"},
        "max_tool_calls": 3,
        "top_logprobs": 2,
        "user": "me",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "store": False,
    }
    script = [*call(0, "weather", '{"city": "Oslo"}'), last("tool_calls")]
    node = Node(CapableEngine(script))
    body = await answered(node, {**HELLO, **fields, "reasoning": {"effort": "low", "summary": "auto"}})
    assert {name: body[name] for name in fields} == fields
    assert body["reasoning"] == {"effort": "low", "summary": None}


async def test_fields_that_were_not_sent_have_the_values_in_their_place() -> None:
    node = Node(CapableEngine())
    body = await answered(node, {"input": "hi", "tools": None, "text": {}})
    assert (body["tools"], body["tool_choice"], body["parallel_tool_calls"]) == ([], "auto", True)
    assert (body["text"], body["truncation"], body["store"]) == ({"format": {"type": "text"}}, "disabled", True)
    assert (body["metadata"], body["background"], body["temperature"]) == ({}, False, None)


async def test_probabilities_come_with_the_tokens_of_the_text() -> None:
    pieces = [TokenChance(text="", logprob=-0.5, raw=b"\xc3"), TokenChance(text="", logprob=float("-inf"), raw=b"\xb6")]
    first, second = (TokenLogprob(chosen=piece, top=(TokenChance(text="o", logprob=-1.0),)) for piece in pieces)
    thought = TokenLogprob(chosen=TokenChance(text="hm", logprob=-1.0))
    script = [
        Delta(reasoning="hm", logprobs=(thought,)),
        Delta(logprobs=(first,)),
        Delta(text="ö", logprobs=(second,)),
        last(),
    ]
    node = Node(CapableEngine(script))
    body = await answered(node, {**HELLO, "include": LOGPROBS, "top_logprobs": 1})
    await answered(node, {**HELLO, "include": LOGPROBS})
    await answered(node, {**HELLO, "top_logprobs": 3})
    await answered(node, {**HELLO, "top_logprobs": 0})
    assert [request.logprobs for request in node.engine.requests] == [1, 0, 3, None]
    top = [{"token": "o", "bytes": [111], "logprob": -1.0}]
    assert body["output"][1]["content"][0]["logprobs"] == [
        {"token": "\\xc3", "bytes": [0xC3], "logprob": -0.5, "top_logprobs": top},
        {"token": "\\xb6", "bytes": [0xB6], "logprob": -9999.0, "top_logprobs": top},
    ]


async def test_errors_before_and_during_a_whole_answer_are_its_status() -> None:
    for error, expected in (
        (ContextOverflow(prompt_tokens=900, context_tokens=512), (400, "context_length_exceeded", "input")),
        (RunFailed("broken"), (500, "engine_run_failed", None)),
    ):
        node = Node(CapableEngine([error]))
        assert refusal(await create(node, HELLO)) == expected
    node = Node(CapableEngine(["Hel", WorkerDied("ended by SIGKILL")]))
    assert refusal(await create(node, HELLO)) == (502, "engine_worker_died", None)


async def test_an_error_after_the_first_white_space_is_a_response_that_has_failed() -> None:
    held = asyncio.Event()
    script: list[Step] = [Delta(reasoning="hm"), "Hel", held, ContextOverflow(prompt_tokens=900, context_tokens=512)]
    settings = HttpSettings(port=0, grace=0.2, heartbeat=0.01)
    async with running(CapableEngine(script), settings) as node, httpx2.AsyncClient(base_url=node.url) as client:
        async with client.stream("POST", PATH, json=HELLO) as response:
            pieces = response.aiter_bytes()
            sent = await anext(pieces)
            held.set()
            rest = b"".join([piece async for piece in pieces])
        gone = await client.get(f"{PATH}/{json.loads(rest)['id']}")
    body = json.loads(sent + rest)
    check_response(body)
    assert sent.isspace()
    assert (body["status"], [item["type"] for item in body["output"]]) == ("failed", ["reasoning"])
    assert (body["error"]["code"], body["error"]["type"]) == ("invalid_prompt", "context_length_exceeded")
    assert (response.status_code, gone.status_code) == (200, 404)
