from __future__ import annotations

import asyncio
import base64
import struct
from typing import Any

import httpx2
import pytest
from openai.types import CreateEmbeddingResponse
from openai_engine import OpenAIEngine, post
from scripted_server import ScriptedEngine, running, until

from exo.api import HttpSettings
from exo.types import ContextOverflow, EmbeddingRequest, Embeddings, RunFailed

PATH = "/v1/embeddings"


class Waiting(OpenAIEngine):
    """Waits for `may_go` and then fails; `ended` tells that it has been left."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.may_go, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        self.begun.set()
        try:
            await self.may_go.wait()
            raise RunFailed("broken")
        finally:
            self.ended.set()


async def test_every_text_has_a_vector() -> None:
    engine = OpenAIEngine()
    async with running(engine) as node:
        several = (await post(node, PATH, {"model": "uno", "input": ["abc", "a"], "user": "me"})).json()
        single = (await post(node, PATH, {"input": "abc", "encoding_format": "float", "dimensions": None})).json()
        assert node.sample("exo_requests_total", {"model": "one", "status": "200"}) == 2
    CreateEmbeddingResponse.model_validate(several, strict=True)
    assert several == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [3.0, 4.0, 0.0]},
            {"object": "embedding", "index": 1, "embedding": [1.0, 4.0, 0.0]},
        ],
        "model": "one",
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    }
    assert [entry["embedding"] for entry in single["data"]] == [[3.0, 4.0, 0.0]]
    assert [request.inputs for request in engine.embedded] == [("abc", "a"), ("abc",)]


async def test_vectors_in_base64_are_little_endian_floats() -> None:
    async with running(OpenAIEngine()) as node:
        body = (await post(node, PATH, {"input": "abc", "encoding_format": "base64"})).json()
    text = body["data"][0]["embedding"]
    assert base64.b64decode(text) == b"\0\0\x40\x40\0\0\x80\x40\0\0\0\0"
    assert struct.unpack("<3f", base64.b64decode(text)) == (3.0, 4.0, 0.0)


async def test_vectors_are_shortened() -> None:
    async with running(OpenAIEngine()) as node:
        body = (await post(node, PATH, {"input": "abc", "dimensions": 2})).json()
        longer = await post(node, PATH, {"input": "abc", "dimensions": 4})
    assert body["data"][0]["embedding"] == pytest.approx([0.6, 0.8])
    error = longer.json()["error"]
    assert (longer.status_code, error["code"], error["param"]) == (400, "invalid_request", "dimensions")
    assert "3" in error["message"]
    assert "4" in error["message"]


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({}, "invalid_request", "input"),
    ({"input": ""}, "invalid_request", "input"),
    ({"input": []}, "invalid_request", "input"),
    ({"input": ["a", ""]}, "invalid_request", "input[1]"),
    ({"input": ["a"] * 2049}, "invalid_request", "input"),
    ({"input": [1, 2]}, "unsupported_parameter", "input"),
    ({"input": [[1, 2]]}, "unsupported_parameter", "input"),
    ({"input": 5}, "invalid_request", "input"),
    ({"input": "a", "dimensions": 0}, "invalid_request", "dimensions"),
    ({"input": "a", "encoding_format": "hex"}, "invalid_request", "encoding_format"),
]


async def test_what_is_wrong_is_refused_by_name() -> None:
    engine = OpenAIEngine()
    async with running(engine) as node:
        for fields, code, param in WRONG:
            response = await post(node, PATH, fields)
            error = response.json()["error"]
            assert (response.status_code, error["code"], error["param"]) == (400, code, param), error
    assert engine.embedded == []


async def test_refusals_of_the_engine() -> None:
    class Short(OpenAIEngine):
        async def embed(self, request: EmbeddingRequest) -> Embeddings:
            raise ContextOverflow(prompt_tokens=900, context_tokens=512)

    async with running(Short()) as node:
        response = await post(node, PATH, {"input": "a"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "input")
    async with running(ScriptedEngine()) as node:
        response = await post(node, PATH, {"input": "a"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "unsupported_parameter")


async def test_an_answer_that_takes_long_begins_with_white_space() -> None:
    engine = Waiting()
    async with running(engine, HttpSettings(port=0, heartbeat=0.01)) as node, httpx2.AsyncClient() as client:
        async with client.stream("POST", f"{node.url}{PATH}", json={"input": "a"}) as response:
            body = b""
            async for piece in response.aiter_raw():
                body += piece
                engine.may_go.set()
        assert node.sample("exo_errors_total", {"type": "engine_run_failed", "model": "one"}) == 1
    assert body.startswith(b" ")
    assert body.lstrip().startswith(b'{"error"')


async def test_a_client_that_goes_away_gives_up_the_embedding() -> None:
    engine = Waiting()
    async with running(engine) as node, httpx2.AsyncClient() as client:
        asked = asyncio.create_task(client.post(f"{node.url}{PATH}", json={"input": "a"}))
        await engine.begun.wait()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await until(engine.ended.is_set)
        await until(lambda: node.sample("exo_requests_in_progress") == 0)
