from __future__ import annotations

import logging
from typing import Any

import httpx2
import pytest
from scripted_server import CHAT, ScriptedEngine, running

from exo.api import HttpSettings, KeyRing

MESSAGE = {"role": "user", "content": "hi"}
BAD_BODIES: list[tuple[bytes, str | None]] = [
    (b"", None),
    (b"{", None),
    (b"null", None),
    (b"[]", None),
    (b'"text"', None),
    (b"\xff\xfe", None),
    (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', None),
    (b"[" * 100_000, None),
    (b'{"x":' * 100_000, None),
    (b'{"messages": ' + b"[" * 100_000, "messages[0]"),
    (b'{"messages": [{"role": "user", "content": "a"}], "max_tokens": NaN}', None),
]
BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [1]}, "messages[0]"),
    ({"messages": [{}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "king", "content": "a"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].tool_call_id"),
    ({"messages": [MESSAGE], "model": 5}, "model"),
    ({"messages": [MESSAGE], "max_tokens": -1}, "max_tokens"),
    ({"messages": [MESSAGE], "max_tokens": 0}, "max_tokens"),
    ({"messages": [MESSAGE], "max_tokens": 10**12}, "max_tokens"),
    ({"messages": [MESSAGE], "max_tokens": 10**40}, "max_tokens"),
    ({"messages": [MESSAGE], "max_tokens": "5"}, "max_tokens"),
    ({"messages": [MESSAGE], "max_tokens": 1.5}, "max_tokens"),
    ({"messages": [MESSAGE], "max_completion_tokens": -5}, "max_completion_tokens"),
    ({"messages": [MESSAGE], "temperature": -1}, "temperature"),
    ({"messages": [MESSAGE], "temperature": 3}, "temperature"),
    ({"messages": [MESSAGE], "temperature": "hot"}, "temperature"),
    ({"messages": [MESSAGE], "top_p": 1.1}, "top_p"),
    ({"messages": [MESSAGE], "presence_penalty": 9}, "presence_penalty"),
    ({"messages": [MESSAGE], "stop": 5}, "stop"),
    ({"messages": [MESSAGE], "stop": [5]}, "stop[0]"),
    ({"messages": [MESSAGE], "stop": ["x"] * 100}, "stop"),
    ({"messages": [MESSAGE], "stream": "yes"}, "stream"),
    ({"messages": [MESSAGE], "seed": 1.5}, "seed"),
    ({"messages": [MESSAGE], "n": 0}, "n"),
    ({"messages": [MESSAGE], "n": 17}, "n"),
    ({"messages": [MESSAGE], "response_format": {"type": "xml"}}, "response_format.type"),
    ({"messages": [MESSAGE], "tools": {}}, "tools"),
    ({"messages": [MESSAGE], "tools": [{"type": "magic"}]}, "tools[0].type"),
    ({"messages": [MESSAGE], "tools": [{"type": "function"}]}, "tools[0].function"),
    ({"messages": [MESSAGE], "tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
    ({"messages": [MESSAGE], "tool_choice": "always"}, "tool_choice"),
    ({"messages": [MESSAGE], "tool_choice": {"type": "function"}}, "tool_choice.function"),
    ({"messages": [MESSAGE], "top_logprobs": 21}, "top_logprobs"),
    ({"messages": [MESSAGE], "reasoning_effort": "huge"}, "reasoning_effort"),
    ({"messages": [MESSAGE], "thinking_budget_tokens": -2}, "thinking_budget_tokens"),
    ({"messages": [MESSAGE], "stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
]

WRONG_KEYS: list[dict[bytes, bytes]] = [
    {},
    {b"authorization": b"Bearer wrong"},
    {b"authorization": b"Basic right"},
    {b"authorization": b"Bearer"},
    {b"x-api-key": b"\xe9"},
]


async def test_malformed_bodies_get_400() -> None:
    async with running() as node, httpx2.AsyncClient(base_url=node.url) as client:
        for body, param in BAD_BODIES:
            response = await client.post("/v1/chat/completions", content=body)
            assert response.status_code == 400, body[:40]
            error = response.json()["error"]
            assert error["code"] == "invalid_request"
            assert error["param"] == param
    assert node.engine.requests == []


async def test_bad_fields_get_400_and_their_name() -> None:
    async with running() as node, httpx2.AsyncClient(base_url=node.url) as client:
        for body, param in BAD_FIELDS:
            response = await client.post("/v1/chat/completions", json=body)
            error = response.json()["error"]
            assert (response.status_code, error["param"]) == (400, param), error
            assert error["type"] == "invalid_request_error"
            assert param in error["message"]
    assert node.engine.requests == []


async def test_wrong_paths_and_methods() -> None:
    async with running() as node, httpx2.AsyncClient(base_url=node.url) as client:
        nowhere = await client.get("/v1/nowhere")
        wrong = await client.get("/v1/chat/completions")
        head = await client.head("/healthcheck")
    assert (nowhere.status_code, nowhere.json()["error"]["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert (head.status_code, head.content) == (200, b"")


async def test_a_body_over_the_limit_gets_413_with_and_without_a_length() -> None:
    async def chunks() -> Any:
        for _ in range(20):
            yield b"x" * 1000

    async with running(settings=HttpSettings(port=0, max_body=5000)) as node:
        async with httpx2.AsyncClient(base_url=node.url) as client:
            told = await client.post("/v1/chat/completions", content=b"x" * 6000)
            untold = await client.post("/v1/chat/completions", content=chunks())
            after = await client.post("/v1/chat/completions", json=CHAT)
    assert (told.status_code, untold.status_code, after.status_code) == (413, 413, 200)
    assert told.json()["error"]["code"] == "body_too_large"


async def test_keys_are_asked_for_without_a_hint() -> None:
    keys = KeyRing.from_plain(["right"])
    async with running(settings=HttpSettings(port=0, keys=keys)) as node:
        async with httpx2.AsyncClient(base_url=node.url) as client:
            answers = [await client.get("/v1/models", headers=headers) for headers in WRONG_KEYS]
            allowed = await client.get("/v1/models", headers={"authorization": "Bearer right"})
            allowed_too = await client.get("/v1/models", headers={"x-api-key": "right"})
            open_paths = [await client.get(path) for path in ("/healthcheck", "/ready")]
            closed_paths = [await client.get(path) for path in ("/metrics", "/docs", "/v1/topology", "/nowhere")]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].headers["www-authenticate"] == "Bearer"
    assert (allowed.status_code, allowed_too.status_code) == (200, 200)
    assert [answer.status_code for answer in open_paths] == [200, 200]
    assert {answer.status_code for answer in closed_paths} == {401}


async def test_an_unexpected_failure_is_500_with_the_request_id(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ScriptedEngine):
        def loaded(self) -> Any:
            raise ZeroDivisionError

    async with running(Broken()) as node, httpx2.AsyncClient(base_url=node.url) as client:
        response = await client.get("/ready", headers={"x-request-id": "abc-1"})
    assert response.status_code == 500
    assert "abc-1" in response.json()["error"]["message"]
    assert response.headers["x-request-id"] == "abc-1"
    assert any(record.exc_info and record.levelno == logging.ERROR for record in caplog.records)
