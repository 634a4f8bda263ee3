from __future__ import annotations

import asyncio
import math
from typing import Any

import httpx2
import pytest
from ollama_engine import TIMED, OllamaEngine, ask, lines, post
from scripted_server import ScriptedEngine, running, until

from exo.types import AnswerFormat, Delta, Limits, Message, Sampling, Usage

PROMPT: dict[str, Any] = {"model": "one", "prompt": "hi"}
WHOLE = {**PROMPT, "stream": False}


async def test_a_stream_of_responses() -> None:
    async with running(OllamaEngine(TIMED)) as node:
        response = await post(node, "/api/generate", PROMPT)
    found = lines(response)
    assert [(line["response"], line["done"]) for line in found] == [("Hello", False), ("!", False), ("", True)]
    assert found[0].keys() == {"model", "created_at", "response", "done"}
    last = found[-1]
    assert (last["done_reason"], last["eval_duration"], last["prompt_eval_count"]) == ("length", 1_500_000_000, 7)
    assert "context" not in last


async def test_a_whole_response_with_thinking() -> None:
    script = [Delta(reasoning="hm"), Delta(text="yes"), Delta(finish_reason="stop", usage=Usage())]
    async with running(OllamaEngine(script)) as node:
        thought = (await post(node, "/api/generate", WHOLE)).json()
        silent = (await post(node, "/api/generate", {**WHOLE, "think": False})).json()
    assert (thought["response"], thought["thinking"], thought["done_reason"]) == ("yes", "hm", "stop")
    assert silent["response"] == "yes"
    assert "thinking" not in silent


async def test_a_prompt_is_a_conversation_of_one_turn() -> None:
    engine = OllamaEngine()
    options = {"temperature": 0.5, "num_predict": 3}
    body = {**WHOLE, "system": "be brief", "template": "T", "format": "json", "keep_alive": "1m", "think": True}
    async with running(engine) as node:
        assert (await post(node, "/api/generate", {**body, "options": options})).status_code == 200
        assert (
            await post(node, "/api/generate", {**WHOLE, "system": "", "template": "", "suffix": "", "context": []})
        ).status_code == 200
    full, bare = engine.requests
    assert full.messages == (Message(role="system", content="be brief"), Message(role="user", content="hi"))
    assert (full.template, full.format, full.keep_alive, full.think) == ("T", AnswerFormat(), 60.0, True)
    assert (full.sampling, full.limits) == (Sampling(temperature=0.5), Limits(max_tokens=3))
    assert bare.messages == (Message(role="user", content="hi"),)
    assert (bare.template, bare.format) == (None, None)


async def test_a_raw_prompt_goes_in_as_it_is() -> None:
    engine = OllamaEngine()
    body = {**PROMPT, "prompt": "<|im_start|>", "raw": True, "keep_alive": -1, "options": {"seed": 3, "stop": ["x"]}}
    async with running(engine) as node:
        streamed = lines(await post(node, "/api/generate", body))
        whole = (await post(node, "/api/generate", {**body, "stream": False})).json()
    assert [line["response"] for line in streamed] == ["raw", ""]
    assert (whole["response"], whole["prompt_eval_count"]) == ("raw", 3)
    request = engine.completions[0]
    assert (request.model, request.prompt, request.keep_alive) == ("one", "<|im_start|>", math.inf)
    assert (request.sampling, request.limits) == (Sampling(seed=3), Limits(stop=("x",)))
    assert engine.requests == []


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"raw": True, "system": "be brief"}, "system"),
    ({"raw": True, "template": "T"}, "template"),
    ({"raw": True, "format": "json"}, "format"),
    ({"raw": True, "think": True}, "think"),
    ({"raw": True, "options": {"typical_p": 0.5}}, "options.typical_p"),
    ({"context": [1, 2]}, "/api/chat"),
    ({"suffix": "end"}, "suffix"),
    ({"images": ["aGk="]}, "Images"),
    ({"logprobs": True}, "probabilities"),
    ({"logprobs": True, "raw": True}, "probabilities"),
    ({"prompt": 5}, "prompt"),
    ({"keep_alive": "soon"}, "keep_alive"),
    ({"model": ""}, "model"),
]


@pytest.mark.parametrize(("fields", "word"), REFUSED)
async def test_what_is_wrong_or_cannot_be_honoured_is_400_and_named(fields: dict[str, Any], word: str) -> None:
    engine = OllamaEngine()
    response = await ask(engine, "/api/generate", {**PROMPT, **fields})
    assert response.status_code == 400
    assert word in response.json()["error"]
    assert (engine.requests, engine.completions) == ([], [])


async def test_what_the_engine_cannot_is_refused() -> None:
    async with running(ScriptedEngine()) as node:
        for fields, word in (({"raw": True}, "completions"), ({"template": "T"}, "template")):
            response = await post(node, "/api/generate", {**PROMPT, **fields})
            assert (response.status_code, response.json()["code"]) == (400, "unsupported_parameter")
            assert word in response.json()["error"]


async def test_without_a_prompt_the_model_is_loaded_or_unloaded() -> None:
    engine = OllamaEngine()
    async with running(engine) as node:
        engine.loads.clear()
        loaded = (await post(node, "/api/generate", {"model": "one", "keep_alive": "10m"})).json()
        unloaded = (await post(node, "/api/generate", {"model": "one", "prompt": "", "keep_alive": 0})).json()
    assert (loaded["response"], loaded["done"], loaded["done_reason"]) == ("", True, "load")
    assert unloaded["done_reason"] == "unload"
    assert (engine.loads, engine.unloads, engine.requests) == ([("one", 600.0)], ["one"], [])


async def test_a_client_that_goes_away_while_a_model_loads_is_noticed() -> None:
    begun = asyncio.Event()

    class Slow(OllamaEngine):
        async def load(self, model: str, *, keep_alive: float | None = None) -> None:
            if keep_alive is not None:
                begun.set()
                await asyncio.Event().wait()

    async with running(Slow()) as node:
        async with httpx2.AsyncClient() as client:
            asked = asyncio.create_task(client.post(f"{node.url}/api/generate", json={"model": "one", "keep_alive": 5}))
            await begun.wait()
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
        await until(lambda: node.sample("exo_requests_total", {"model": "one", "status": "499"}) == 1)
