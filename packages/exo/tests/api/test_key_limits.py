"""Keys of a running node: their limits, their turns, their metrics, and what becomes of one that is taken away."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import httpx2
import pytest
from api_keys import bearer, ring_of
from ollama_engine import OllamaEngine
from scripted_server import CHAT, Running, ScriptedEngine, running, until

from exo.api import HttpSettings, KeyFile
from exo.api.key_file import Keys
from exo.api.keys import Key, digest_of
from exo.inference.caller import Caller
from exo.types import ChatRequest, Delta


def with_keys(keys: Keys) -> HttpSettings:
    return HttpSettings(port=0, grace=0.2, keys=keys)


async def chat(node: Running, key: str, text: str = "hi", **fields: Any) -> httpx2.Response:
    body = {"messages": [{"role": "user", "content": text}], **fields}
    async with httpx2.AsyncClient(base_url=node.url, headers=bearer(key), timeout=10) as client:
        response: httpx2.Response = await client.post("/v1/chat/completions", json=body)
        return response


def asked(node: Running, key: str, text: str = "hi") -> asyncio.Task[httpx2.Response]:
    return asyncio.create_task(chat(node, key, text))


def waiting(node: Running) -> float:
    return node.sample("exo_requests_queued") or 0


class OneByOne(ScriptedEngine):
    """Notes the text of each chat in the order in which they run, and holds them until `go` is set."""

    def __init__(self) -> None:
        super().__init__(slots=1)
        self.go = asyncio.Event()
        self.script = [self.go, "done"]

    @property
    def texts(self) -> list[str]:
        return [request.messages[0].content for request in self.requests]


async def test_a_key_may_have_so_many_requests_under_way() -> None:
    engine = OneByOne()
    keys = ring_of(Caller("small", requests=2), Caller("other"))
    async with running(engine, with_keys(keys)) as node:
        first = [asked(node, "small"), asked(node, "small")]
        await until(lambda: node.sample("exo_key_requests_in_flight", {"key": "small"}) == 2)
        refused = await chat(node, "small")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert (refused.json()["error"]["code"], refused.json()["error"]["type"]) == ("key_limit", "rate_limit_error")
        other = asked(node, "other")
        engine.go.set()
        assert [(await task).status_code for task in (*first, other)] == [200] * 3
        assert (await chat(node, "small")).status_code == 200
        assert node.sample("exo_key_requests_in_flight", {"key": "small"}) == 0


async def test_a_client_that_goes_away_frees_its_place() -> None:
    engine = OneByOne()
    async with running(engine, with_keys(ring_of(Caller("small", requests=1)))) as node:
        gone = asked(node, "small")
        await until(lambda: engine.requests)
        gone.cancel()
        await until(lambda: node.sample("exo_key_requests_in_flight", {"key": "small"}) == 0)
        engine.go.set()
        assert (await chat(node, "small")).status_code == 200


async def test_a_key_that_has_spent_its_tokens_waits() -> None:
    keys = ring_of(Caller("small", tokens=9), Caller("large", tokens=1000))
    async with running(settings=with_keys(keys)) as node:
        statuses = [(await chat(node, key)).status_code for key in ("small", "large", "large")]
        refused = await chat(node, "small", stream=True)
    assert statuses == [200] * 3
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "key_limit")
    assert 0 < int(refused.headers["retry-after"]) <= 7, "7 of the prompt and 2 of the answer are 9, all of a minute"


async def test_answers_that_nobody_gets_are_paid_for_too() -> None:
    keys = ring_of(Caller("small", tokens=20))
    async with running(settings=with_keys(keys)) as node:
        failed = await chat(node, "small", response_format={"type": "json_object"})
        refused = await chat(node, "small")
    assert (failed.status_code, failed.json()["error"]["code"]) == (500, "answer_not_valid")
    assert refused.status_code == 429
    spent = [node.sample("exo_key_tokens_total", {"key": "small", "kind": kind}) for kind in ("prompt", "completion")]
    assert spent == [21, 6], "three attempts, each with 7 of the prompt and 2 of the answer"


async def test_embeddings_and_raw_prompts_are_paid_for_too() -> None:
    async with running(OllamaEngine(), with_keys(ring_of(Caller("small", tokens=6)))) as node:
        async with httpx2.AsyncClient(base_url=node.url, headers=bearer("small")) as client:
            embed = await client.post("/api/embed", json={"model": "one", "input": ["a", "b"]})
            raw = await client.post("/api/generate", json={"model": "one", "prompt": "x", "raw": True, "stream": False})
            refused = await client.post("/api/embed", json={"model": "one", "input": "c"})
    assert [embed.status_code, raw.status_code, refused.status_code] == [200, 200, 429]
    assert node.sample("exo_key_tokens_total", {"key": "small", "kind": "prompt"}) == 5
    assert node.sample("exo_key_tokens_total", {"key": "small", "kind": "completion"}) == 1


async def test_a_request_behind_the_flood_of_another_key_is_served_next() -> None:
    engine = OneByOne()
    async with running(engine, with_keys(ring_of(Caller("flood"), Caller("other")))) as node:
        flood = []
        for number in range(5):
            flood.append(asked(node, "flood", f"flood {number}"))
            await until(lambda: len(engine.requests) + waiting(node) == len(flood))
        other = asked(node, "other", "other")
        await until(lambda: waiting(node) == 5)
        engine.go.set()
        assert [(await task).status_code for task in (*flood, other)] == [200] * 6
    assert engine.texts == ["flood 0", "other", "flood 1", "flood 2", "flood 3", "flood 4"]


async def test_a_queue_that_one_key_has_filled_has_a_place_for_another() -> None:
    engine = OneByOne()
    async with running(engine, with_keys(ring_of(Caller("flood"), Caller("other"))), queue_limit=3) as node:
        flood = []
        for number in range(4):
            flood.append(asked(node, "flood", f"flood {number}"))
            await until(lambda: len(engine.requests) + waiting(node) == len(flood))
        refused = await chat(node, "flood", "flood 4")
        other = asked(node, "other", "other")
        displaced = await flood[3]
        engine.go.set()
        assert [(await task).status_code for task in (*flood[:3], other)] == [200] * 4
    assert [refused.status_code, displaced.status_code] == [429, 429]
    assert displaced.json()["error"]["code"] == "queue_full"
    assert int(displaced.headers["retry-after"]) >= 1
    assert engine.texts == ["flood 0", "other", "flood 1", "flood 2"]


def line(caller: Caller) -> str:
    return f"{Key(digest_of(caller.name), caller).line()}\n"


async def test_a_key_that_is_taken_out_of_the_file_is_refused_and_its_answer_goes_on(tmp_path: Path) -> None:
    engine, file = OneByOne(), tmp_path / "keys"
    file.write_text(line(Caller("alice")) + line(Caller("bob")))
    async with running(engine, with_keys(KeyFile(file))) as node:
        answer = asked(node, "alice")
        await until(lambda: engine.requests)
        file.write_text(line(Caller("bob")))
        refused = await chat(node, "alice")
        engine.go.set()
        assert (await answer).status_code == 200
        assert (await chat(node, "bob")).status_code == 200
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_keys_scopes_and_limits_change_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(line(Caller("alice", admin=False)))
    async with running(settings=with_keys(KeyFile(file))) as node:
        async with httpx2.AsyncClient(base_url=node.url, headers=bearer("alice")) as client:
            refused = await client.delete("/api/delete")
            file.write_text(line(Caller("alice", tokens=1)) + line(Caller("bob")))
            allowed = await client.delete("/api/delete")
        statuses = [(await chat(node, key)).status_code for key in ("alice", "alice", "bob")]
    assert [refused.status_code, allowed.status_code] == [403, 400], "without a body it is refused later"
    assert statuses == [200, 429, 200]


async def test_a_file_with_a_mistake_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "keys"
    file.write_text(line(Caller("alice")))
    async with running(settings=with_keys(KeyFile(file))) as node:
        file.write_text("alice:nonsense")
        assert [(await chat(node, key)).status_code for key in ("alice", "alice", "guess")] == [200, 200, 401]
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert f"{file}, line 1" in errors[0]


async def test_requests_are_counted_and_logged_by_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "exo.access")
    async with running(settings=with_keys(ring_of(Caller("alice"), Caller("bob")))) as node:
        for key in ("alice", "alice", "guess"):
            await chat(node, key)
        await chat(node, "bob", model="nowhere")
        async with httpx2.AsyncClient(base_url=node.url, headers=bearer("bob")) as client:
            await client.get("/v1/models")
            text = (await client.get("/metrics")).text
    counted = sorted(found for found in text.splitlines() if found.startswith("exo_key_requests_total{"))
    assert counted == [
        'exo_key_requests_total{key="alice",status="200"} 2.0',
        'exo_key_requests_total{key="bob",status="404"} 1.0',
    ]
    assert node.sample("exo_key_tokens_total", {"key": "alice", "kind": "prompt"}) == 14
    assert node.sample("exo_key_tokens_total", {"key": "alice", "kind": "completion"}) == 4
    assert "guess" not in text
    logged = [record.__dict__["fields"].get("key") for record in caplog.records if record.name == "exo.access"]
    assert logged[:4] == ["alice", "alice", None, "bob"]


async def test_without_keys_there_are_only_the_names_of_their_metrics() -> None:
    async with running() as node, httpx2.AsyncClient(base_url=node.url) as client:
        await client.post("/v1/chat/completions", json=CHAT)
        text = (await client.get("/metrics")).text
    assert [found for found in text.splitlines() if found.startswith("exo_key_")] == []
    assert "# TYPE exo_key_requests_total counter" in text


async def test_an_answer_that_is_broken_off_counts_with_what_it_has_said() -> None:
    class Talking(ScriptedEngine):
        async def chat(self, request: ChatRequest) -> Any:
            self.requests.append(request)
            for _ in range(3):
                yield Delta(text="word ")
            await asyncio.Event().wait()

    async with running(Talking(), with_keys(ring_of(Caller("alice", tokens=20)))) as node:
        async with httpx2.AsyncClient(base_url=node.url, headers=bearer("alice")) as client:
            body = {"messages": [{"role": "user", "content": "word " * 40}], "stream": True}
            async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                seen = 0
                async for piece in response.aiter_lines():
                    seen += "word" in piece
                    if seen == 3:
                        break
        await until(lambda: node.sample("exo_key_tokens_total", {"key": "alice", "kind": "completion"}) == 3)
        assert (await chat(node, "alice")).status_code == 429, (
            "50 tokens of a prompt that nobody has counted are guessed"
        )
    assert node.sample("exo_key_tokens_total", {"key": "alice", "kind": "prompt"}) == 0
    assert node.sample("exo_key_requests_total", {"key": "alice", "status": "499"}) == 1
