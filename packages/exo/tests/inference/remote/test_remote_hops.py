"""A node in front of another server: what its own clients are told of it."""

from __future__ import annotations

from typing import Any

import pytest
from ollama_engine import ask
from remote_engines import OLLAMA, OPENAI, engine_for
from remote_server import RemoteServer, answer, ollama_chat

from exo.types import ModelNotFound

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": False}
WORDS = "model 'm' is not there any more, it has qwen"


@pytest.mark.parametrize("code", [None, ModelNotFound.code], ids=["another", "this project's"])
async def test_what_a_server_says_of_a_missing_model_is_kept(server: RemoteServer, code: str | None) -> None:
    server.speak_ollama("m")
    server.routes[OLLAMA] = [answer({"error": WORDS, **({"code": code} if code else {})}, "404 Not Found")]
    async with engine_for(server) as engine, engine_for(server) as another:
        plain, nested = await ask(engine, OLLAMA, CHAT), await ask(another, OPENAI, CHAT)
    assert (plain.status_code, nested.status_code) == (404, 404)
    assert WORDS in plain.json()["error"]
    assert WORDS in nested.json()["error"]["message"]
    assert plain.json()["code"] == nested.json()["error"]["code"] == ModelNotFound.code
    assert server.paths().count(OLLAMA) == 2, "both have crossed two hops"


@pytest.mark.parametrize("dialect", ["ollama", "openai"])
async def test_a_model_that_the_node_itself_does_not_know(server: RemoteServer, dialect: str) -> None:
    server.speak_ollama("m")
    async with engine_for(server) as engine:
        refused = await ask(engine, OLLAMA if dialect == "ollama" else OPENAI, {**CHAT, "model": "x"})
    assert refused.status_code == 404
    assert "x" in refused.text
    assert "not found" in refused.text
    assert OLLAMA not in server.paths()


@pytest.mark.parametrize(
    ("owner", "resident", "parameters", "num_ctx", "status"),
    [
        ("library", 0, "", 131_072, 200),
        ("library", 4096, "", 4096, 200),
        ("library", 4096, "", 8192, 400),
        ("library", 0, "num_ctx 8192", 8192, 200),
        ("library", 0, "num_ctx 8192", 8193, 400),
        ("library", 0, "num_ctx 999999", 131_073, 400),
        ("exo", 0, "", 131_072, 200),
        ("exo", 0, "", 131_073, 400),
    ],
)
async def test_num_ctx_is_judged_by_what_the_server_serves(
    server: RemoteServer, *, owner: str, resident: int, parameters: str, num_ctx: int, status: int
) -> None:
    server.speak_ollama("m")
    server.speak_openai("m", owner=owner)
    shown: dict[str, Any] = {"model_info": {"qwen2.context_length": 131_072}, "parameters": parameters}
    server.routes |= {"/api/show": [answer(shown)], OLLAMA: ollama_chat("hi")}
    if resident:
        server.routes["/api/ps"] = [answer({"models": [{"name": "m", "context_length": resident}]})]
    server.routes[OPENAI] = [answer({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]})]
    async with engine_for(server) as engine:
        answered = await ask(engine, OLLAMA, {**CHAT, "options": {"num_ctx": num_ctx}})
    assert answered.status_code == status
    assert "num_ctx" not in str([asked.body for asked in server.asked]), "there is no way to pass it on"
