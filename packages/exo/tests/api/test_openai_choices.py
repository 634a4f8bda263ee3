from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai_engine import OpenAIEngine, events, post
from scripted_server import CHAT, Step, running, until

from exo.api import HttpSettings, KeyRing
from exo.api.keys import Key, digest_of
from exo.api.openai.choices import Choices
from exo.inference import Answer
from exo.inference.caller import Caller
from exo.types import ContextOverflow, Delta, RunFailed, Sampling, Timings, Usage, WorkerDied

PATH = "/v1/chat/completions"


def last(completion: int, *, finish: Any = "stop", cached: int = 0) -> Delta:
    return Delta(
        finish_reason=finish,
        usage=Usage(prompt_tokens=7, completion_tokens=completion, cached_tokens=cached, reasoning_tokens=1),
        timings=Timings(load=0.5, prefill=0.25, decode=0.125),
    )


THREE: list[list[Step]] = [
    ["a", last(1)],
    ["b", "c", last(2, finish="length", cached=6)],
    [Delta(reasoning="hm"), last(3)],
]


async def test_every_choice_of_a_whole_answer_has_its_index() -> None:
    async with running(OpenAIEngine(scripts=THREE, slots=3)) as node:
        body = (await post(node, PATH, {**CHAT, "n": 3})).json()
        assert node.sample("exo_tokens_generated_total", {"model": "one"}) == 6
        assert node.sample("exo_requests_total", {"model": "one", "status": "200"}) == 1
    ChatCompletion.model_validate(body, strict=True)
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert [choice["message"]["content"] for choice in body["choices"]] == ["a", "bc", ""]
    assert [choice["finish_reason"] for choice in body["choices"]] == ["stop", "length", "stop"]
    assert body["choices"][2]["message"]["reasoning_content"] == "hm"
    usage = body["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (7, 6, 13)
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0}, "of the first choice; the others find its prompt"
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 3}
    timings = body["timings"]
    assert (timings["load_ms"], timings["prompt_ms"], timings["predicted_ms"]) == (500, 250, 375)


async def test_choices_are_streamed_as_they_come() -> None:
    first, second = asyncio.Event(), asyncio.Event()
    engine = OpenAIEngine(scripts=[["a", first, "A", last(2)], ["b", second, "B", last(2)]])
    body = {**CHAT, "n": 2, "stream": True, "stream_options": {"include_usage": True}}
    seen: list[tuple[int, str]] = []
    async with running(engine) as node, httpx2.AsyncClient() as client:
        async with client.stream("POST", f"{node.url}{PATH}", json=body) as response:
            text = ""
            async for piece in response.aiter_text():
                text += piece
                if '"content":"b"' in text and '"content":"a"' in text:
                    second.set()
                if '"content":"B"' in text:
                    first.set()
            found = httpx2.Response(200, headers=response.headers, text=text)
    *chunks, counted, done = events(found)
    assert done == "[DONE]"
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
        choice = chunk["choices"][0]
        seen += [(choice["index"], choice["delta"].get("content") or choice["finish_reason"] or "")]
    assert seen[:2] == [(0, ""), (1, "")], "a role for each"
    assert sorted(seen[2:4]) == [(0, "a"), (1, "b")]
    assert seen[4:] == [(1, "B"), (1, "stop"), (0, "A"), (0, "stop")]
    assert len({chunk["id"] for chunk in [*chunks, counted]}) == 1
    assert counted["choices"] == []
    assert (counted["usage"]["prompt_tokens"], counted["usage"]["completion_tokens"]) == (7, 4)


async def test_choices_wait_for_each_other_where_there_is_one_slot() -> None:
    texts = [str(number) for number in range(50)]
    async with running(OpenAIEngine(texts, slots=1)) as node:
        *chunks, _ = events(await post(node, PATH, {**CHAT, "n": 4, "stream": True}))
    for index in range(4):
        own = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert [choice["delta"].get("content") for choice in own] == ["", *texts, None]
        assert own[-1]["finish_reason"] == "stop"


async def test_each_choice_has_a_seed_of_its_own() -> None:
    async with running(OpenAIEngine()) as node:
        await post(node, PATH, {**CHAT, "n": 3, "seed": 41, "temperature": 0.5})
        await post(node, PATH, {**CHAT, "n": 2})
    samplings = [request.sampling for request in node.engine.requests]
    assert samplings[:3] == [Sampling(temperature=0.5, seed=seed) for seed in (41, 42, 43)]
    assert samplings[3:] == [Sampling(), Sampling()]


async def test_one_choice_too_many_for_the_queue_refuses_all() -> None:
    hang = asyncio.Event()
    async with running(OpenAIEngine(["a", hang], slots=1), queue_limit=2) as node:
        for stream in (False, True):
            response = await post(node, PATH, {**CHAT, "n": 4, "stream": stream})
            assert (response.status_code, response.json()["error"]["code"]) == (429, "queue_full")
            assert "retry-after" in response.headers
        await until(lambda: node.sample("exo_requests_in_progress") == 0)
        assert (await node.service.readiness()).queued == 0
        assert node.engine.closed_early == len(node.engine.requests)


async def test_more_choices_than_the_key_may_have_at_once_are_never_possible() -> None:
    keys = KeyRing([Key(digest_of("secret"), Caller("me", requests=2))])
    async with running(OpenAIEngine(), HttpSettings(port=0, keys=keys)) as node, httpx2.AsyncClient() as client:
        statuses = {}
        for n in (2, 3):
            headers = {"authorization": "Bearer secret"}
            response = await client.post(f"{node.url}{PATH}", json={**CHAT, "n": n}, headers=headers)
            statuses[n] = response.status_code
    error = response.json()["error"]
    assert statuses == {2: 200, 3: 400}
    assert (error["code"], error["param"]) == ("invalid_request", "n")
    assert "2 at once" in error["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_of_one_choice_is_that_of_all(stream: bool) -> None:  # noqa: FBT001 - a parameter of the test
    refusal = ContextOverflow(prompt_tokens=900, context_tokens=512)
    async with running(OpenAIEngine(scripts=[[refusal], [refusal]])) as node:
        response = await post(node, PATH, {**CHAT, "n": 2, "stream": stream})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")


async def test_a_choice_that_fails_ends_the_stream_and_the_others() -> None:
    wait = asyncio.Event()
    engine = OpenAIEngine(scripts=[["a", wait, WorkerDied("gone")], ["b", asyncio.Event()]])
    async with running(engine) as node, httpx2.AsyncClient() as client:
        async with client.stream("POST", f"{node.url}{PATH}", json={**CHAT, "n": 2, "stream": True}) as response:
            text = ""
            async for piece in response.aiter_text():
                text += piece
                wait.set()
        await until(lambda: node.sample("exo_requests_in_progress") == 0)
    *chunks, error = events(httpx2.Response(200, headers=response.headers, text=text))
    assert error["error"]["code"] == "engine_worker_died"
    assert all("error" not in chunk for chunk in chunks)
    assert node.engine.closed_early == 1


async def test_a_choice_that_fails_late_is_the_answer_behind_the_white_space() -> None:
    wait = asyncio.Event()
    engine = OpenAIEngine(scripts=[["a"], ["b", wait, RunFailed("broken")]])
    async with running(engine, HttpSettings(port=0, heartbeat=0.01)) as node, httpx2.AsyncClient() as client:
        async with client.stream("POST", f"{node.url}{PATH}", json={**CHAT, "n": 2}) as response:
            body = b""
            async for piece in response.aiter_raw():
                body += piece
                wait.set()
    assert body.lstrip().startswith(b'{"error"')
    assert b"engine_run_failed" in body


async def test_a_client_that_leaves_cancels_every_choice() -> None:
    hang = asyncio.Event()
    async with running(OpenAIEngine(["a", hang], slots=2)) as node, httpx2.AsyncClient() as client:
        for stream in (False, True):
            node.engine.requests.clear()
            node.engine.closed_early = 0
            body = {**CHAT, "n": 3, "stream": stream}
            asked = asyncio.create_task(client.post(f"{node.url}{PATH}", json=body))
            await until(lambda: len(node.engine.requests) == 2)
            assert node.sample("exo_requests_in_progress") == 3
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            await until(lambda: node.sample("exo_requests_in_progress") == 0)
            assert node.engine.closed_early == len(node.engine.requests)
            assert (await node.service.readiness()).queued == 0


async def test_engines_wait_for_a_client_that_reads_slowly() -> None:
    made = 0

    async def endless() -> AsyncGenerator[Delta, None]:
        nonlocal made
        while True:
            made += 1
            yield Delta(text="x")

    async def ask() -> Answer:
        answer = Answer(endless(), on_end=lambda _: None)
        await answer.begin()
        return answer

    answer = await Choices([ask, ask], for_each_prompt=2).begin()
    async with contextlib.aclosing(answer):
        for _ in range(100):
            await asyncio.sleep(0)
        waiting = made
        for _ in range(100):
            await asyncio.sleep(0)
        assert made == waiting < 50


async def test_values_in_force_are_told_for_several_choices_too() -> None:
    script: list[Step] = [Delta(sampling=Sampling(temperature=0.8)), "a"]
    async with running(OpenAIEngine(script)) as node:
        response = await post(node, PATH, {**CHAT, "n": 2})
    assert response.headers["x-exo-sampling"] == "temperature=0.8"


async def test_a_node_that_stops_ends_every_choice() -> None:
    async with running(OpenAIEngine(["a", asyncio.Event()])) as node, httpx2.AsyncClient() as client:
        asked = asyncio.create_task(client.post(f"{node.url}{PATH}", json={**CHAT, "n": 2}))
        await until(lambda: len(node.engine.requests) == 2)
        node.server._on_signal()
        response = await asked
    assert (response.status_code, response.json()["error"]["code"]) == (503, "shutting_down")
