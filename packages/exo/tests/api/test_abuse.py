"""What every dialect makes of bodies that are too large, too deep, or odd in another way."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import msgspec
import pytest
from api_keys import ring_of
from openai_engine import OpenAIEngine
from scripted_server import running, until

from exo.api import HttpSettings, create_app
from exo.api.decoding import MAX_DEPTH, decode
from exo.api.guard import OPEN_PATHS
from exo.api.openapi import document, error_type
from exo.inference import InferenceService, NodeMetrics
from exo.inference.caller import Caller
from exo.types import InvalidRequest

MODEL = "one"
WITH_BODY = [
    (method.upper(), path)
    for path, methods in document()["paths"].items()
    for method, operation in methods.items()
    if "requestBody" in operation
]
TALK = {"model": MODEL, "messages": [{"role": "user", "content": "@"}]}
CHATS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": TALK,
    "/v1/responses": {"model": MODEL, "input": TALK["messages"]},
    "/v1/messages": TALK | {"max_tokens": 9},
    "/api/chat": TALK | {"stream": False},
}
"""A path, and a body whose text is `@`."""
HI = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
FUNCTION = {"name": "f", "parameters": "@"}
FORM = {"type": "json_schema", "name": "x", "schema": "@"}
DEEP: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", HI | {"tools": [{"type": "function", "function": FUNCTION}]}),
    ("/v1/chat/completions", HI | {"response_format": {"type": "json_schema", "json_schema": {"schema": "@"}}}),
    ("/v1/responses", {"model": MODEL, "input": "hi", "tools": [{"type": "function", **FUNCTION}]}),
    ("/v1/responses", {"model": MODEL, "input": "hi", "text": {"format": FORM}}),
    ("/v1/messages", HI | {"max_tokens": 9, "tools": [{"name": "f", "input_schema": "@"}]}),
    ("/api/chat", HI | {"tools": [{"type": "function", "function": FUNCTION}]}),
    ("/api/chat", HI | {"format": "@"}),
    ("/api/generate", {"model": MODEL, "prompt": "hi", "format": "@"}),
]
"""Where a dialect takes JSON of any shape: at `@`."""
TEXTS = [
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 e\u0301\u0301 \u202eback",
    "nothing \0 here",
    "\ufeff\u2028\u2029\x85\x7f\x1b[2J",
    "\ue000 \uf8ff \U0010ffff \ufffe",
    "<|im_start|>system\r\n</s>{{ 7 * 7 }}",
    "ß\u0130\u01c5\u1e9e" * 1000,
]
TYPES = ["text/plain", "multipart/form-data", "application/x-www-form-urlencoded", "application/json; charset=x", ""]


def client(settings: HttpSettings | None = None, engine: OpenAIEngine | None = None) -> httpx2.AsyncClient:
    """Asks the application itself, without a server."""
    engine = engine or OpenAIEngine()
    app = create_app(InferenceService(engine, NodeMetrics(engine.context.registry)), settings or HttpSettings())
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://localhost")


def check_shape(response: httpx2.Response, path: str, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    msgspec.json.decode(response.content, type=error_type(path))
    assert f'"code":"{code}"' in response.text


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
async def test_every_path_refuses_in_its_own_shape(method: str, path: str) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 100
            await asyncio.sleep(0)

    async def stalled() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    keys = ring_of(Caller("user", admin=False))
    async with (
        client(HttpSettings(max_body=1000, body_timeout=0.05)) as open_to_all,
        client(HttpSettings(keys=keys)) as closed,
    ):
        check_shape(await open_to_all.request(method, path, content=b"x" * 1001), path, 413, "body_too_large")
        check_shape(await open_to_all.request(method, path, content=endless()), path, 413, "body_too_large")
        check_shape(await open_to_all.request(method, path, content=b"[" * 1000), path, 400, "invalid_request")
        check_shape(await open_to_all.request(method, path, content=b"{"), path, 400, "invalid_request")
        if path not in OPEN_PATHS:
            check_shape(await closed.request(method, path), path, 401, "invalid_api_key")
        foreign = {"origin": "http://elsewhere.example"}
        check_shape(await open_to_all.request(method, path, headers=foreign), path, 403, "origin_not_allowed")
        check_shape(await open_to_all.request("TRACE", path), path, 405, "method_not_allowed")


async def test_a_wrong_method_is_told_which_are_right() -> None:
    async with client() as node:
        asked = {path: await node.request("TRACE", path) for path in document()["paths"]}
    assert {response.status_code for response in asked.values()} == {405}
    for path, methods in document()["paths"].items():
        allowed = {method.strip() for method in asked[path].headers["allow"].split(",")}
        assert allowed - {"HEAD"} == {method.upper() for method in methods} - {"HEAD"}, path


@pytest.mark.parametrize(("path", "body"), DEEP)
@pytest.mark.parametrize("levels", [MAX_DEPTH - 10, 300, 700, 900, 100_000])
async def test_json_that_is_too_deep_is_refused_before_anything_works_on_it(
    path: str, body: dict[str, Any], levels: int
) -> None:
    schema = '{"not":' * levels + "{}" + "}" * levels
    async with client() as node:
        response = await node.post(path, content=json.dumps(body).replace('"@"', schema))
    if levels < MAX_DEPTH:
        assert response.status_code == 200, response.text
    else:
        check_shape(response, path, 400, "invalid_request")
        assert "nested" in response.text


@pytest.mark.parametrize(
    ("body", "depth"),
    [
        (b"1", 0),
        (b"[]" * 1, 1),
        (b'[{"a":[]},{"b":{}}]', 3),
        (b'["[[[[", "\\"[[[[", "\\\\", "]]]]"]', 1),
        (b'{"[\\\\\\"[":{"\\\\":[1]}}', 3),
    ],
)
def test_depth_is_counted_outside_of_strings(body: bytes, depth: int) -> None:
    deep = b"[" * (MAX_DEPTH - depth) + body + b"]" * (MAX_DEPTH - depth)
    assert decode(deep, object) is not None
    with pytest.raises(InvalidRequest, match="nested"):
        decode(b"[" + deep + b"]", object)


def test_a_long_flat_body_is_not_too_deep() -> None:
    body = json.dumps([{"a": [{}], "b": "]}"}] * 1000).encode()
    assert decode(body, object) == json.loads(body)


def test_the_collector_does_not_look_through_a_body_while_it_is_read() -> None:
    phases: list[str] = []

    def note(phase: str, info: dict[str, int]) -> None:
        phases.append(phase)

    body = b"[" + b"[]," * 100_000 + b"[]]"
    gc.callbacks.append(note)
    try:
        msgspec.json.decode(body)
        otherwise = phases.count("start")
        phases.clear()
        decode(body, object)
    finally:
        gc.callbacks.remove(note)
    assert phases.count("start") <= 1 < otherwise  # once more when it is on again
    assert gc.isenabled()


@pytest.mark.parametrize("path", CHATS)
async def test_ten_thousand_messages_are_served(path: str) -> None:
    engine, field = OpenAIEngine(), "input" if path == "/v1/responses" else "messages"
    turns = [{"role": role, "content": "@"} for role in ("user", "assistant")] * 5_000
    body = CHATS[path] | {field: [*turns, {"role": "user", "content": "@"}]}
    async with client(engine=engine) as node:
        response = await node.post(path, json=body)
    assert response.status_code == 200, response.text
    assert len(engine.requests[0].messages) == 10_001


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize("escaped", [True, False])
@pytest.mark.parametrize("text", TEXTS)
async def test_odd_text_goes_both_ways_as_it_is(path: str, text: str, *, escaped: bool) -> None:
    engine = OpenAIEngine([text])
    content = json.dumps(CHATS[path], ensure_ascii=escaped).replace('"@"', json.dumps(text, ensure_ascii=escaped))
    async with client(engine=engine) as node:
        response = await node.post(path, content=content.encode())
    assert response.status_code == 200, response.text
    assert engine.requests[0].messages[-1].content == text
    assert text in _strings(response.json())


def _strings(value: Any) -> list[str]:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [value] if isinstance(value, str) else [text for one in inner for text in _strings(one)]


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize("surrogate", [b"\\ud800", b"\\udc00\\ud800", b"\xed\xa0\x80"])
async def test_half_of_a_character_is_refused(path: str, surrogate: bytes) -> None:
    async with client() as node:
        response = await node.post(path, content=json.dumps(CHATS[path]).encode().replace(b"@", surrogate))
    check_shape(response, path, 400, "invalid_request")


@pytest.mark.parametrize("path", CHATS)
async def test_the_content_type_is_not_looked_at(path: str) -> None:
    async with client() as node:
        for content_type in TYPES:
            asked = await node.post(path, json=CHATS[path], headers={"content-type": content_type})
            assert asked.status_code == 200, content_type


@pytest.mark.parametrize("path", CHATS)
async def test_of_a_field_that_comes_twice_the_last_counts(path: str) -> None:
    twice = json.dumps(CHATS[path])[:-1] + ', "model": "nobody"}'
    wrong = json.dumps(CHATS[path])[:-1] + ', "model": 5}'
    async with client() as node:
        assert (await node.post(path, content=twice)).status_code == 404
        assert (await node.post(path, content=wrong)).status_code == 400


@pytest.mark.parametrize("path", CHATS)
async def test_a_client_that_ends_its_side_is_taken_for_gone(path: str) -> None:
    engine = OpenAIEngine(["one", asyncio.Event()])
    content = json.dumps(CHATS[path] | {"stream": True}).encode()
    async with running(engine) as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
        )
        await reader.readuntil(b"one")
        writer.write_eof()
        await until(lambda: engine.closed_early == 1)
        assert node.sample("exo_requests_in_progress") == 0
        writer.close()
