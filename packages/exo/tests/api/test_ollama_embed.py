from __future__ import annotations

import asyncio
import math
from typing import Any

import httpx2
import pytest
from ollama_engine import OllamaEngine, ask, post
from scripted_server import ScriptedEngine, running, until

from exo.types import ContextOverflow, EmbeddingRequest, Embeddings


async def test_texts_are_embedded_in_their_order() -> None:
    engine = OllamaEngine()
    async with running(engine) as node:
        body = {"model": "uno:latest", "input": ["ab", "", "abc"], "truncate": True, "keep_alive": -1}
        response = await post(node, "/api/embed", body)
        single = (await post(node, "/api/embed", {"model": "one", "input": "a"})).json()
        assert node.sample("exo_requests_total", {"model": "one", "status": "200"}) == 2
    found = response.json()
    assert response.status_code == 200
    assert found.pop("total_duration") > 0
    assert found == {
        "model": "uno:latest",
        "embeddings": [[2.0, 1.0], [0.0, 1.0], [3.0, 1.0]],
        "load_duration": 0,
        "prompt_eval_count": 3,
    }
    assert single["embeddings"] == [[1.0, 1.0]]
    request = engine.embedded[0]
    assert (request.model, request.inputs, request.keep_alive) == ("one", ("ab", "", "abc"), math.inf)


async def test_one_prompt_has_one_embedding() -> None:
    async with running(OllamaEngine()) as node:
        response = await post(node, "/api/embeddings", {"model": "one", "prompt": "abc"})
    assert response.json() == {"embedding": [3.0, 1.0]}


async def test_without_a_text_the_model_is_loaded() -> None:
    engine = OllamaEngine()
    async with running(engine) as node:
        engine.loads.clear()
        several = (await post(node, "/api/embed", {"model": "one", "input": [], "keep_alive": 5})).json()
        nothing = (await post(node, "/api/embed", {"model": "one"})).json()
        one = (await post(node, "/api/embeddings", {"model": "one", "prompt": ""})).json()
    assert (several["embeddings"], nothing["embeddings"], one) == ([], [], {"embedding": []})
    assert engine.loads == [("one", 5.0), ("one", None), ("one", None)]
    assert engine.embedded == []


@pytest.mark.parametrize(
    ("path", "fields", "word"),
    [
        ("/api/embed", {"dimensions": -1}, "dimensions"),
        ("/api/embed", {"dimensions": "2"}, "dimensions"),
        ("/api/embed", {"input": 5}, "input"),
        ("/api/embed", {"input": ["a", 5]}, "input"),
        ("/api/embed", {"options": {"num_ctx": 9999}}, "9999"),
        ("/api/embed", {"options": {"typical_p": 0.1}}, "options.typical_p"),
        ("/api/embed", {"keep_alive": "soon"}, "keep_alive"),
        ("/api/embed", {"model": ""}, "model"),
        ("/api/embeddings", {"prompt": ["a"]}, "prompt"),
        ("/api/embeddings", {"keep_alive": []}, "keep_alive"),
    ],
)
async def test_what_is_wrong_is_400_and_named(path: str, fields: dict[str, Any], word: str) -> None:
    engine = OllamaEngine()
    response = await ask(engine, path, {"model": "one", "input": "a", "prompt": "a", **fields})
    assert response.status_code == 400
    assert word in response.json()["error"]
    assert engine.embedded == []


async def test_the_wanted_length_reaches_the_engine() -> None:
    engine = OllamaEngine()
    async with running(engine) as node:
        for value in (2, 0, None):
            assert (await post(node, "/api/embed", {"model": "one", "input": "a", "dimensions": value})).is_success
    assert [request.dimensions for request in engine.embedded] == [2, None, None]


async def test_what_the_engine_cannot_or_will_not_is_refused() -> None:
    class Short(OllamaEngine):
        async def embed(self, request: EmbeddingRequest) -> Embeddings:
            raise ContextOverflow(prompt_tokens=900, context_tokens=512)

    async with running(ScriptedEngine()) as node:
        response = await post(node, "/api/embed", {"model": "one", "input": "a"})
        assert (response.status_code, response.json()["code"]) == (400, "unsupported_parameter")
    async with running(Short()) as node:
        response = await post(node, "/api/embed", {"model": "one", "input": "a" * 900})
        assert (response.status_code, response.json()["code"]) == (400, "context_length_exceeded")
        assert all(number in response.json()["error"] for number in ("900", "512"))


async def test_a_client_that_goes_away_gives_up_the_embedding() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    class Slow(OllamaEngine):
        async def embed(self, request: EmbeddingRequest) -> Embeddings:
            begun.set()
            try:
                return await asyncio.Future[Embeddings]()
            finally:
                ended.set()

    async with running(Slow()) as node, httpx2.AsyncClient() as client:
        asked = asyncio.create_task(client.post(f"{node.url}/api/embed", json={"model": "one", "input": "a"}))
        await begun.wait()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await until(ended.is_set)
        await until(lambda: node.sample("exo_requests_in_progress") == 0)
