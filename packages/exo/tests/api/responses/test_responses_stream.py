"""Streams: the events, in order, and what clients make of them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from responses_node import (
    PATH,
    TIME,
    WEATHER,
    CapableEngine,
    Node,
    call,
    check_response,
    create,
    events,
    last,
    refusal,
    send,
)
from scripted_server import Step, running, until

from exo.types import ContextOverflow, Delta, QueueFull, TokenChance, TokenLogprob, WorkerDied

STREAM = {"model": "uno", "input": "hi", "stream": True}
TOOLS = {**STREAM, "tools": [WEATHER, TIME]}
BEGIN = ["response.created", "response.in_progress"]
REASONING = [
    "response.output_item.added",
    "response.content_part.added",
    "response.reasoning_text.delta",
    "response.reasoning_text.done",
    "response.content_part.done",
    "response.output_item.done",
]
TEXT = [name.replace("reasoning_text", "output_text") for name in REASONING]
CALL = [
    "response.output_item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
]


async def streamed(node: Node, body: dict[str, Any] = STREAM) -> list[dict[str, Any]]:
    response = await create(node, body)
    assert response.status_code == 200, response.text
    return events(response)


def types(found: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in found]


def accumulated(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items that a client makes of the events, which each event has to fit."""
    items: list[dict[str, Any]] = []
    for event in found:
        place = event.get("output_index", -1)
        match event["type"].removeprefix("response."):
            case "output_item.added":
                assert (place, event["item"]["status"]) == (len(items), "in_progress")
                items.append(event["item"])
            case "content_part.added":
                assert event["content_index"] == len(items[place]["content"]) == 0
                items[place]["content"].append(event["part"])
            case "output_text.delta" | "reasoning_text.delta":
                part = items[place]["content"][event["content_index"]]
                assert event["type"] == f"response.{part['type']}.delta"
                part["text"] += event["delta"]
                if part["type"] == "output_text":
                    part["logprobs"] += event["logprobs"]
            case "output_text.done" | "reasoning_text.done":
                assert items[place]["content"][event["content_index"]]["text"] == event["text"]
            case "content_part.done":
                assert items[place]["content"][event["content_index"]] == event["part"]
            case "function_call_arguments.delta":
                items[place]["arguments"] += event["delta"]
            case "function_call_arguments.done":
                assert (items[place]["name"], items[place]["arguments"]) == (event["name"], event["arguments"])
            case "output_item.done":
                items[place]["status"] = event["item"]["status"]
                assert items[place] == event["item"]
        if "item_id" in event:
            assert event["item_id"] == items[place]["id"]
    return items


async def test_the_events_of_reasoning_text_and_calls_come_in_order() -> None:
    script = [
        Delta(reasoning="hm"),
        Delta(text="I ask."),
        *call(0, "weather", '{"city": "Oslo"}'),
        *call(1, "time", "{}"),
        last("tool_calls"),
    ]
    node = Node(CapableEngine(script))
    found = await streamed(node, TOOLS)
    # The service hands on the arguments of a call whole, once it has checked them.
    assert types(found) == [*BEGIN, *REASONING, *TEXT, *CALL, *CALL, "response.completed"]
    created, in_progress, *_, completed = [event["response"] for event in found if "response" in event]
    assert created == in_progress
    assert (created["status"], created["output"], created["usage"]) == ("in_progress", [], None)
    assert completed["output"] == accumulated(found)
    assert [item["type"] for item in completed["output"]] == ["reasoning", "message", "function_call", "function_call"]
    assert (completed["status"], completed["usage"]["total_tokens"], completed["id"]) == (
        "completed",
        29,
        created["id"],
    )
    check_response(completed)


async def test_each_delta_of_a_text_is_an_event() -> None:
    texts = ['quote " and \\ back', "line\nbreak\u2028", "emoji \U0001f642 \0 nul", "event: x\n\ndata: y"]
    node = Node(CapableEngine([*texts, last()]))
    found = await streamed(node)
    deltas = [event["delta"] for event in found if event["type"] == "response.output_text.delta"]
    assert deltas == texts
    assert accumulated(found)[0]["content"][0]["text"] == "".join(texts)


async def test_a_stream_and_a_whole_answer_say_the_same() -> None:
    node = Node(CapableEngine([Delta(reasoning="hm", text="yes"), Delta(text=" no", finish_reason="stop")]))
    found = await streamed(node)
    whole = (await create(node, {**STREAM, "stream": False})).json()
    completed = found[-1]["response"]
    own = {"id", "created_at", "completed_at"}
    assert _without(completed, own) == _without(whole, own)


async def test_text_after_a_call_is_a_message_of_its_own() -> None:
    script = [*call(0, "time", "{}"), Delta(text="one"), Delta(reasoning="hm"), Delta(text="two"), last("tool_calls")]
    node = Node(CapableEngine(script))
    found = await streamed(node, TOOLS)
    assert types(found) == [*BEGIN, *CALL, *TEXT, *REASONING, *TEXT, "response.completed"]
    assert found[-1]["response"]["output"] == accumulated(found)


async def test_an_answer_that_was_cut_off_ends_with_its_own_event() -> None:
    node = Node(CapableEngine(["So I", last("length")]))
    found = await streamed(node)
    assert types(found) == [*BEGIN, *TEXT, "response.incomplete"]
    response = found[-1]["response"]
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"] == accumulated(found)
    assert response["output"][0]["status"] == "incomplete"


async def test_an_empty_answer_has_all_events_but_a_delta() -> None:
    node = Node(CapableEngine([last()]))
    found = await streamed(node)
    assert types(found) == [*BEGIN, *(name for name in TEXT if "delta" not in name), "response.completed"]
    assert found[-1]["response"]["output"] == accumulated(found)


async def test_probabilities_come_with_the_delta_of_their_token() -> None:
    tokens = [TokenLogprob(chosen=TokenChance(text=text, logprob=-1.0)) for text in ("a", "b")]
    script = [*(Delta(text=token.chosen.text, logprobs=(token,)) for token in tokens), last()]
    node = Node(CapableEngine(script))
    found = await streamed(node, {**STREAM, "top_logprobs": 1})
    told = [event["logprobs"] for event in found if event["type"] == "response.output_text.delta"]
    assert [[token["token"] for token in tokens] for tokens in told] == [["a"], ["b"]]
    part = found[-1]["response"]["output"][0]["content"][0]
    assert [token["token"] for token in part["logprobs"]] == ["a", "b"]
    assert accumulated(found)[0]["content"][0] == part


async def test_an_error_in_mid_stream_ends_it_with_the_error_and_a_response_that_has_failed() -> None:
    script: list[Step] = [Delta(reasoning="hm"), "Hel", WorkerDied("the worker was ended by SIGKILL")]
    node = Node(CapableEngine(script))
    found = await streamed(node)
    gone = await send(node, "GET", f"{PATH}/{found[0]['response']['id']}")
    labels = {"model": "one", "status": "502"}
    assert node.engine.context.registry.get_sample_value("exo_requests_total", labels) == 1
    *_, error, failed = found
    assert types(found) == [*BEGIN, *REASONING, *TEXT[:3], "error", "response.failed"]
    assert (error["code"], error["message"], error["param"]) == (
        "engine_worker_died",
        "the worker was ended by SIGKILL",
        None,
    )
    response = failed["response"]
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert [item["type"] for item in response["output"]] == ["reasoning"]
    assert gone.status_code == 404


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ContextOverflow(prompt_tokens=900, context_tokens=512), (400, "context_length_exceeded", "input")),
        (QueueFull("full", retry_after=7), (429, "queue_full", None)),
    ],
)
async def test_a_refusal_keeps_its_status(error: Any, expected: tuple[int, str, str | None]) -> None:
    node = Node(CapableEngine([error]))
    assert refusal(await create(node, STREAM)) == expected


async def test_a_client_that_goes_away_stops_the_run_and_nothing_is_stored() -> None:
    never = asyncio.Event()
    async with running(CapableEngine(["Hel", never])) as node, httpx2.AsyncClient(base_url=node.url) as client:
        async with client.stream("POST", PATH, json=STREAM) as response:
            pieces = response.aiter_text()
            text = await anext(pieces)
            while '"delta":"Hel"' not in text:
                text += await anext(pieces)
        await until(lambda: node.engine.closed_early)
        response_id = text.partition('"id":"')[2].partition('"')[0]
        gone = await client.get(f"{PATH}/{response_id}")
    assert response_id.startswith("resp_")
    assert gone.status_code == 404


def _without(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {name: _without(inner, names) for name, inner in value.items() if name not in names}
    return [_without(inner, names) for inner in value] if isinstance(value, list) else value
