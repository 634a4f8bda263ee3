from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx2
import pytest
from ollama_engine import OllamaEngine, ask, lines, post
from scripted_server import ScriptedEngine, running, until

from exo.api import HttpSettings
from exo.api.ollama.progress import Steps
from exo.models import Modelfile, ModelParameters, Progress, parse_modelfile
from exo.types import BadModelName, Message, ModelExists, NotEnoughDisk, PullError, Sampling

STEPS = [
    Progress("pulling manifest"),
    Progress("pulling x.rkllm", "x.rkllm", total=100, completed=40),
    Progress("writing manifest"),
    Progress("success"),
]


async def test_a_pull_is_told_step_by_step() -> None:
    engine = OllamaEngine()
    engine.own_library.steps = STEPS
    async with running(engine) as node:
        response = await post(node, "/api/pull", {"name": "owner/repo/x.rkllm", "insecure": True})
    assert lines(response) == [
        {"status": "pulling manifest"},
        {"status": "pulling x.rkllm", "digest": "x.rkllm", "total": 100, "completed": 40},
        {"status": "writing manifest"},
        {"status": "success"},
    ]
    assert engine.own_library.calls == [("pull", "owner/repo/x.rkllm", False)]


async def test_a_pull_without_a_stream_is_one_object() -> None:
    engine = OllamaEngine()
    engine.own_library.steps = STEPS
    async with running(engine) as node:
        response = await post(node, "/api/pull", {"model": "one:latest", "stream": False, "force": True})
        without_steps = await post(node, "/api/pull", {"model": "one"})
    assert (response.headers["content-type"], response.json()) == ("application/json", {"status": "success"})
    assert lines(without_steps)[-1] == {"status": "success"}
    assert engine.own_library.calls == [("pull", "one", True), ("pull", "one", False)]
    assert engine.unloads == ["one", "one"]  # what is loaded of it is out of date


async def test_a_pull_of_what_is_there_already_unloads_nothing() -> None:
    engine = OllamaEngine()
    engine.own_library.is_there = True
    async with running(engine) as node:
        assert (await post(node, "/api/pull", {"model": "one", "stream": False})).json() == {"status": "success"}
    assert engine.unloads == []


async def test_the_tokenizer_of_a_model_that_is_there() -> None:
    engine = OllamaEngine()
    engine.own_library.steps = STEPS
    async with running(engine) as node:
        body = {"model": "one:latest", "tokenizer": True, "repository": "owner/original"}
        response = await post(node, "/api/pull", body)
        unknown = await post(node, "/api/pull", {"model": "owner/repo/x", "tokenizer": True})
    assert lines(response)[-1] == {"status": "success"}
    assert engine.own_library.calls == [("pull_tokenizer", "one", "owner/original")]
    assert engine.unloads == ["one"]  # the next request has it loaded with the tokenizer
    assert unknown.status_code == 404


async def test_a_pull_that_fails_at_once_keeps_its_status() -> None:
    engine = OllamaEngine()
    engine.own_library.error = NotEnoughDisk("5 bytes are needed, 3 are free")
    async with running(engine) as node:
        for stream in (True, False):
            response = await post(node, "/api/pull", {"model": "a/b", "stream": stream})
            assert response.status_code == 507
            assert response.json() == {"error": "5 bytes are needed, 3 are free", "code": "insufficient_disk"}


async def test_a_pull_that_fails_later_ends_with_the_error() -> None:
    engine = OllamaEngine()
    engine.own_library.steps = STEPS[:2]
    engine.own_library.error = PullError("cut off")
    async with running(engine) as node:
        streamed = await post(node, "/api/pull", {"model": "a/b"})
        whole = await post(node, "/api/pull", {"model": "a/b", "stream": False})
    assert streamed.status_code == 200
    assert lines(streamed)[-1] == {"error": "cut off", "code": "pull_failed"}
    assert (whole.status_code, whole.json()["code"]) == (502, "pull_failed")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_away_cancels_its_pull(*, stream: bool) -> None:
    engine = OllamaEngine()
    library, begun = engine.own_library, threading.Event()

    def pause() -> None:
        begun.set()
        assert library.cancelled.wait(10)

    library.steps, library.pause = STEPS[:1], pause
    async with running(engine) as node, httpx2.AsyncClient() as client:
        asked = asyncio.create_task(client.post(f"{node.url}/api/pull", json={"model": "a/b", "stream": stream}))
        await until(begun.is_set)
        assert not library.cancelled.is_set()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await until(library.cancelled.is_set)


async def test_a_long_pull_without_a_stream_begins_with_white_space() -> None:
    go_on = threading.Event()
    engine = OllamaEngine()
    engine.own_library.pause = lambda: go_on.wait(10)
    body = {"model": "a/b", "stream": False}
    async with running(engine, HttpSettings(port=0, heartbeat=0.01)) as node, httpx2.AsyncClient() as client:
        async with client.stream("POST", f"{node.url}/api/pull", json=body) as response:
            received = response.aiter_bytes()
            assert (await anext(received)).strip() == b""
            go_on.set()
            rest = b"".join([piece async for piece in received])
    assert rest.strip() == b'{"status":"success"}'


async def test_steps_that_nobody_took_are_replaced_by_newer_ones() -> None:
    steps = Steps()
    given = [Progress("a"), *[Progress("b", "f", 10, done) for done in (1, 2, 2, 3)], Progress("c"), Progress("c")]

    def tell() -> None:
        for step in given:
            steps.report(step)

    thread = threading.Thread(target=tell)
    thread.start()
    thread.join()
    asyncio.get_running_loop().call_soon(steps.end)
    assert [step async for step in steps] == [Progress("a"), Progress("b", "f", 10, 3), Progress("c")]


async def created(fields: dict[str, Any]) -> tuple[Modelfile, OllamaEngine]:
    engine = OllamaEngine()
    response = await ask(engine, "/api/create", {"model": "mario", **fields})
    assert (response.status_code, lines(response)[-1]) == (200, {"status": "success"})
    return parse_modelfile(engine.own_library.calls[0][2]), engine


async def test_a_new_model_is_made_of_every_field() -> None:
    found, _ = await created(
        {
            "from": "UNO:latest",
            "system": 'You are "Mario".\nBe brief.',
            "template": "{{ .Prompt }}",
            "license": ["MIT", "Apache-2.0"],
            "parameters": {"temperature": 0.5, "num_ctx": 2048, "stop": ["a", "b"], "seed": 3, "num_gpu": 1},
            "messages": [{"role": "user", "content": "who?"}, {"role": "assistant", "content": "me"}],
        }
    )
    assert found == Modelfile(
        from_="one",
        system='You are "Mario".\nBe brief.',
        template="{{ .Prompt }}",
        licence="MIT\nApache-2.0",
        parameters=ModelParameters(temperature=0.5, num_ctx=2048, seed=3, stop=("a", "b")),
        messages=(Message(role="user", content="who?"), Message(role="assistant", content="me")),
    )


@pytest.mark.parametrize(
    ("given", "parameters", "sampling"),
    [
        ({"top_k": -1}, ModelParameters(top_k=0), Sampling(top_k=0)),
        ({"seed": -1}, ModelParameters(seed=-1), Sampling()),
        ({"seed": -2}, ModelParameters(seed=-2), Sampling(seed=-2)),
        ({"num_predict": -5}, ModelParameters(num_predict=-1), Sampling()),
        ({"num_predict": 0}, ModelParameters(num_predict=-1), Sampling()),
        ({"num_predict": 7}, ModelParameters(num_predict=7), Sampling()),
    ],
)
async def test_parameters_mean_what_the_options_of_a_request_mean(
    given: dict[str, Any], parameters: ModelParameters, sampling: Sampling
) -> None:
    found, _ = await created({"from": "one", "parameters": given})
    assert (found.parameters, found.sampling()) == (parameters, sampling)


async def test_a_new_model_may_come_from_a_file_or_a_text() -> None:
    found, _ = await created({"from": "./x.rkllm", "license": "MIT"})
    assert (found.from_, found.licence) == ("./x.rkllm", "MIT")
    _, engine = await created({"modelfile": "FROM one\nSYSTEM hi\n", "name": "other", "model": "luigi:latest"})
    assert engine.own_library.calls == [("create", "luigi", "FROM one\nSYSTEM hi\n", False)]


async def test_a_model_that_is_replaced_is_unloaded() -> None:
    _, engine = await created({"model": "one", "from": "two/b:1", "force": True})
    assert engine.own_library.calls[0][1:] == ("one", "FROM two/b:1\n", True)
    assert engine.unloads == ["one"]


async def test_a_name_that_is_taken_is_409_and_a_bad_one_400() -> None:
    engine = OllamaEngine()
    async with running(engine) as node:
        for error, status in ((ModelExists("taken"), 409), (BadModelName("bad"), 400)):
            engine.own_library.error = error
            for path, body in (
                ("/api/create", {"model": "a", "from": "one"}),
                ("/api/create", {"model": "a", "from": "one", "stream": False}),
                ("/api/copy", {"source": "one", "destination": "a"}),
            ):
                response = await post(node, path, body)
                assert (response.status_code, response.json()["code"]) == (status, error.code)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"files": {"a.gguf": "sha256:1"}}, "Files"),
        ({"adapters": {"a": "b"}}, "Adapters"),
        ({"quantize": "q4_0"}, "quantised"),
        ({"quantization": "q4_0"}, "quantised"),
        ({"from": None}, "from is missing"),
        ({"modelfile": "FROM one\n"}, "contradict"),
        ({"parameters": {"top_k": "x"}}, "parameters.top_k"),
        ({"parameters": {"mirostat": 1}}, "parameters.mirostat"),
        ({"messages": [{"role": "user", "content": "a", "images": ["x"]}]}, "Images"),
        ({"messages": [{"role": "user", "content": 'a"""\nb'}]}, "Modelfile"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "Modelfile"),
        ({"model": ""}, "model"),
    ],
)
async def test_what_cannot_be_made_is_400_and_named(fields: dict[str, Any], word: str) -> None:
    engine = OllamaEngine()
    response = await ask(engine, "/api/create", {"model": "a", "from": "one", **fields})
    assert response.status_code == 400
    assert word in response.json()["error"]
    assert engine.own_library.calls == []


async def test_copy_and_delete() -> None:
    engine = OllamaEngine()
    async with running(engine) as node, httpx2.AsyncClient(base_url=node.url) as client:
        copied = await post(node, "/api/copy", {"source": "uno", "destination": "b:latest", "force": True})
        deleted = await client.request("DELETE", "/api/delete", json={"model": "uno:latest"})
        older = await client.request("DELETE", "/api/delete", json={"name": "two/b:1"})
        missing = await post(node, "/api/copy", {"source": "three", "destination": "b"})
        unknown = await client.request("DELETE", "/api/delete", json={"model": "three"})
        unnamed = await client.request("DELETE", "/api/delete", json={})
    assert [(r.status_code, r.content) for r in (copied, deleted, older)] == [(200, b"")] * 3
    assert (missing.status_code, unknown.status_code, unnamed.status_code) == (404, 404, 400)
    assert engine.own_library.calls == [("copy", "one", "b", True), ("delete", "one"), ("delete", "two/b:1")]
    # Of a deleted one once before the files go, and once for whoever loaded it again meanwhile.
    assert engine.unloads == ["b", "one", "one", "two/b:1", "two/b:1"]


async def test_what_a_deletion_leaves_is_told(caplog: pytest.LogCaptureFixture) -> None:
    engine = OllamaEngine()
    engine.own_library.left = ["notes.txt"]
    async with running(engine) as node, httpx2.AsyncClient(base_url=node.url) as client:
        deleted = await client.request("DELETE", "/api/delete", json={"model": "one"})
    assert deleted.json() == {"left": ["notes.txt"]}
    assert "notes.txt" in caplog.text


async def test_an_engine_without_a_library_refuses_changes() -> None:
    async with running(ScriptedEngine()) as node, httpx2.AsyncClient(base_url=node.url) as client:
        for method, path, body in (
            ("POST", "/api/pull", {"model": "a"}),
            ("POST", "/api/create", {"model": "a", "from": "one"}),
            ("POST", "/api/copy", {"source": "one", "destination": "a"}),
            ("DELETE", "/api/delete", {"model": "one"}),
        ):
            response = await client.request(method, path, json=body)
            assert (response.status_code, response.json()["code"]) == (400, "unsupported_parameter")
            assert "scripted" in response.json()["error"]


async def test_push_and_blobs_are_refused() -> None:
    async with running(OllamaEngine()) as node, httpx2.AsyncClient(base_url=node.url) as client:
        pushed = await client.post("/api/push", json={"model": "one"})
        found = await client.head("/api/blobs/sha256:12")
        uploaded = await client.post("/api/blobs/sha256:12", content=b"bytes")
    assert (pushed.status_code, uploaded.status_code, found.status_code) == (400, 400, 404)
    assert "pushed" in pushed.json()["error"]
    assert "uploaded" in uploaded.json()["error"]
