"""Whole answers, and streams that clients put together to the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx2
import msgspec
import pytest
from scripted_server import ScriptedEngine, Step, running

from exo.api import HttpSettings
from exo.types import Delta, FinishReason, RunFailed, ToolCallDelta, Usage, WorkerDied

Ask = Callable[..., Awaitable[httpx2.Response]]

HELLO: dict[str, Any] = {"model": "uno", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**HELLO, "stream": True}
WEATHER = {"name": "weather", "input_schema": {"type": "object", "required": ["city"]}}
TIME = {"name": "time", "input_schema": {"type": "object"}}
USAGE = Usage(prompt_tokens=20, cached_tokens=15, completion_tokens=9, reasoning_tokens=4)


def last(reason: FinishReason = "stop") -> Delta:
    return Delta(finish_reason=reason, usage=USAGE)


def call(index: int, name: str, arguments: str) -> list[Delta]:
    return [
        Delta(tool_calls=(ToolCallDelta(index=index, id=f"call_{name}", name=name),)),
        Delta(tool_calls=(ToolCallDelta(index=index, arguments=arguments),)),
    ]


THOUGHT: list[Step] = [
    Delta(reasoning="Let me"),
    Delta(reasoning=" see."),
    Delta(text="It"),
    Delta(text=" is 5."),
    last(),
]
CALLS: list[Step] = [
    Delta(reasoning="Ask."),
    Delta(text="I ask."),
    *call(0, "weather", '{"city": "K\\u00f6ln", "days": 12345678901234567890123}'),
    *call(1, "time", "{}"),
    last("tool_calls"),
]


def events(response: httpx2.Response) -> list[dict[str, Any]]:
    """The data of all events, whose names are their types."""
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    blocks = response.text.split("\n\n")
    assert blocks.pop() == ""
    found = []
    for block in blocks:
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def accumulated(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The message that a client makes of a stream: blocks by their index, usage as it was told last."""
    start, *rest, stop = found
    message: dict[str, Any] = start["message"]
    inputs: dict[int, str] = {}
    for event in rest:
        delta = event.get("delta", {})
        match event["type"]:
            case "content_block_start":
                assert event["index"] == len(message["content"])
                message["content"].append(event["content_block"])
                inputs[event["index"]] = ""
            case "content_block_delta" if delta["type"] == "input_json_delta":
                inputs[event["index"]] += delta["partial_json"]
            case "content_block_delta":
                (name,) = delta.keys() - {"type"}
                assert delta["type"] == f"{name}_delta"
                message["content"][event["index"]][name] += delta[name]
            case "message_delta":
                message.update(delta)
                message["usage"].update(event["usage"])
    for index, text in inputs.items():
        if text:
            message["content"][index]["input"] = json.loads(text)
    assert (start["type"], stop) == ("message_start", {"type": "message_stop"})
    return message


async def both(ask: Ask, body: dict[str, Any]) -> dict[str, Any]:
    """The whole answer, which is what the stream comes to."""
    whole = (await ask(body)).json()
    streamed = accumulated(events(await ask({**body, "stream": True})))
    assert whole.pop("id").startswith("msg_")
    assert streamed.pop("id").startswith("msg_")
    assert streamed == whole
    return dict(whole)


async def test_an_answer_has_every_key(ask: Ask, engine: ScriptedEngine) -> None:
    engine.script = [Delta(text="Hello"), last()]
    assert await both(ask, HELLO) == {
        "type": "message",
        "role": "assistant",
        "model": "one",
        "content": [{"type": "text", "text": "Hello", "citations": None}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 5,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 15,
            "output_tokens": 9,
            "output_tokens_details": {"thinking_tokens": 4},
        },
    }


async def test_reasoning_comes_in_a_block_of_its_own_before_the_text(ask: Ask, engine: ScriptedEngine) -> None:
    engine.script = THOUGHT
    assert (await both(ask, HELLO))["content"] == [
        {"type": "thinking", "thinking": "Let me see.", "signature": ""},
        {"type": "text", "text": "It is 5.", "citations": None},
    ]


async def test_calls_are_blocks_whose_input_is_an_object(ask: Ask, engine: ScriptedEngine) -> None:
    engine.script = CALLS
    message = await both(ask, {**HELLO, "tools": [WEATHER, TIME]})
    thinking, text, weather, time = message["content"]
    assert (thinking["thinking"], text["text"]) == ("Ask.", "I ask.")
    assert weather == {
        "type": "tool_use",
        "id": "call_weather",
        "name": "weather",
        "input": {"city": "Köln", "days": 12345678901234567890123},
        "caller": {"type": "direct"},
    }
    assert (time["id"], time["name"], time["input"]) == ("call_time", "time", {})
    assert message["stop_reason"] == "tool_use"


async def test_text_after_a_call_is_a_block_of_its_own(ask: Ask, engine: ScriptedEngine) -> None:
    engine.script = [Delta(text="a"), *call(0, "time", "{}"), Delta(text="b"), last("tool_calls")]
    content = (await both(ask, {**HELLO, "tools": [TIME]}))["content"]
    assert [block["type"] for block in content] == ["text", "tool_use", "text"]


async def test_a_call_that_does_not_fit_is_text(ask: Ask, engine: ScriptedEngine) -> None:
    engine.script = [*call(0, "weather", '{"days": 2}'), last("tool_calls")]
    message = await both(ask, {**HELLO, "tools": [WEATHER]})
    (block,) = message["content"]
    assert block["type"] == "text"
    assert "city" in block["text"]
    assert message["stop_reason"] == "end_turn"


async def test_the_stop_sequence_that_ended_the_answer_is_told(ask: Ask, engine: ScriptedEngine) -> None:
    engine.script = [Delta(text="a"), msgspec.structs.replace(last("stop"), stop="x")]
    message = await both(ask, {**HELLO, "stop_sequences": ["x", "y"]})
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "x")


@pytest.mark.parametrize(
    ("finish", "reason"), [("stop", "end_turn"), ("length", "max_tokens"), ("tool_calls", "tool_use")]
)
async def test_stop_reasons(ask: Ask, engine: ScriptedEngine, finish: FinishReason, reason: str) -> None:
    engine.script = [Delta(text="a"), last(finish)]
    message = await both(ask, {**HELLO, "stop_sequences": ["x"]})
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, None)


async def test_an_empty_answer_has_no_blocks(ask: Ask, engine: ScriptedEngine) -> None:
    engine.script = [Delta(), last()]
    assert (await both(ask, HELLO))["content"] == []


async def test_thinking_that_is_to_be_omitted_leaves_an_empty_block(ask: Ask, engine: ScriptedEngine) -> None:
    engine.script = THOUGHT
    for thinking in ({"type": "adaptive"}, {"type": "enabled", "budget_tokens": 9}):
        content = (await both(ask, {**HELLO, "thinking": {**thinking, "display": "omitted"}}))["content"]
        assert content[0] == {"type": "thinking", "thinking": "", "signature": ""}
        assert content[1]["text"] == "It is 5."


async def test_thinking_that_is_switched_off_leaves_no_block(ask: Ask, engine: ScriptedEngine) -> None:
    engine.script = THOUGHT
    content = (await both(ask, {**HELLO, "thinking": {"type": "disabled"}}))["content"]
    assert [block["type"] for block in content] == ["text"]


async def test_the_events_of_a_stream(ask: Ask, engine: ScriptedEngine) -> None:
    engine.script = [Delta(reasoning="hm"), Delta(text="y"), *call(0, "time", '{"a":1}'), last("tool_calls")]
    start, ping, *middle, end, stop = events(await ask({**STREAM, "tools": [TIME]}))
    assert ping == {"type": "ping"}
    assert start["message"]["content"] == []
    assert start["message"]["stop_reason"] is None
    assert (start["message"]["usage"]["input_tokens"], start["message"]["usage"]["output_tokens"]) == (0, 0)
    assert [(event["index"], event["type"], event.get("delta", {}).get("type")) for event in middle] == [
        (0, "content_block_start", None),
        (0, "content_block_delta", "thinking_delta"),
        (0, "content_block_delta", "signature_delta"),
        (0, "content_block_stop", None),
        (1, "content_block_start", None),
        (1, "content_block_delta", "text_delta"),
        (1, "content_block_stop", None),
        (2, "content_block_start", None),
        (2, "content_block_delta", "input_json_delta"),
        (2, "content_block_stop", None),
    ]
    assert middle[7]["content_block"]["input"] == {}
    assert end["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert end["usage"]["input_tokens"] == 5
    assert stop == {"type": "message_stop"}


async def test_any_text_survives_the_stream(ask: Ask, engine: ScriptedEngine) -> None:
    texts = ['quote " and \\ back', "line\nbreak\u2028\n\n", "emoji \U0001f642 \0 nul", '"\\u0000"', "event: error"]
    engine.script = [*texts, last()]
    pieces = [event["delta"]["text"] for event in events(await ask(STREAM)) if event["type"] == "content_block_delta"]
    assert pieces == texts


async def test_every_piece_is_sent_at_once() -> None:
    go_on = asyncio.Event()
    async with running(ScriptedEngine(["one", go_on, "two"])) as node, httpx2.AsyncClient() as client:
        async with client.stream("POST", f"{node.url}/v1/messages", json=STREAM) as response:
            received = response.aiter_lines()
            assert "one" in await _data(received, "content_block_delta")
            go_on.set()
            assert "two" in await _data(received, "content_block_delta")


async def _data(received: Any, name: str) -> str:
    """The data of the next event of that name."""
    while await anext(received) != f"event: {name}":
        pass
    return str(await anext(received))


LATE: list[list[Step]] = [["Hel", WorkerDied("the worker was ended")], [Delta(), WorkerDied("the worker was ended")]]


@pytest.mark.parametrize("script", LATE)
async def test_an_error_in_mid_stream_is_an_event_and_the_last_one(script: list[Step]) -> None:
    async with running(ScriptedEngine(script)) as node, httpx2.AsyncClient() as client:
        response = await client.post(f"{node.url}/v1/messages", json=STREAM, headers={"x-request-id": "r1"})
        assert node.sample("exo_requests_total", {"model": "one", "status": "502"}) == 1
    assert events(response)[-1] == {
        "type": "error",
        "error": {"type": "api_error", "message": "the worker was ended", "code": "engine_worker_died"},
        "request_id": "r1",
    }


async def test_an_error_after_the_status_of_a_whole_answer_has_the_shape() -> None:
    go_on = asyncio.Event()
    engine = ScriptedEngine(["Hel", go_on, WorkerDied("the worker was ended")])
    async with running(engine, HttpSettings(port=0, heartbeat=0.001)) as node, httpx2.AsyncClient() as client:
        ask = client.stream("POST", f"{node.url}/v1/messages", json=HELLO, headers={"x-request-id": "r1"})
        async with ask as response:
            pieces = response.aiter_text()
            assert (await anext(pieces)).isspace()
            go_on.set()
            error = json.loads("".join([piece async for piece in pieces]))
    assert (error["type"], error["error"]["code"], error["request_id"]) == ("error", "engine_worker_died", "r1")


async def test_an_error_in_the_middle_of_a_whole_answer_is_the_status(ask: Ask, engine: ScriptedEngine) -> None:
    engine.script = ["Hel", RunFailed("broken")]
    response = await ask(HELLO)
    assert (response.status_code, response.json()["error"]["code"]) == (500, "engine_run_failed")
