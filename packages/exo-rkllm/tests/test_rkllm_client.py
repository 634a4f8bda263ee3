from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from remote_server import (
    END,
    NDJSON,
    VERSION,
    RemoteServer,
    answer,
    line,
    ollama_chat,
    ollama_end,
    ollama_line,
    remote_server,
)

from exo.types import (
    ContextOverflow,
    InvalidRequest,
    Message,
    ModelLoadError,
    RemoteFailed,
    RemoteUnavailable,
    UnsupportedParameter,
)
from exo_rkllm.client import RKLLMHTTPClient, RKLLMServerConfig

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "1"},
    {"role": "user", "content": "two"},
]


@pytest.fixture
async def server() -> AsyncIterator[RemoteServer]:
    async with remote_server() as found:
        found.speak_ollama("m", "n")
        yield found


@pytest.fixture
async def client(server: RemoteServer) -> AsyncIterator[RKLLMHTTPClient]:
    async with RKLLMHTTPClient(RKLLMServerConfig("127.0.0.1", server.port, timeout=10.0)) as made:
        yield made


def test_the_defaults() -> None:
    config = RKLLMServerConfig()
    assert (config.host, config.port, config.timeout) == ("localhost", 8080, 300.0)
    assert config.base_url == "http://localhost:8080"
    assert RKLLMServerConfig("::1", 1).base_url == "http://[::1]:1"


async def test_the_whole_conversation_is_sent(server: RemoteServer, client: RKLLMHTTPClient) -> None:
    server.routes["/api/chat"] = ollama_chat("2", "!")
    assert await client.generate(TALK, "m") == "2!"
    assert server.body("/api/chat")["messages"] == TALK
    assert server.body("/api/chat")["model"] == "m"


async def test_pieces_and_the_callback(server: RemoteServer, client: RKLLMHTTPClient) -> None:
    server.routes["/api/chat"] = ollama_chat("a", "b")
    heard: list[tuple[str, bool]] = []
    expected = [("a", False), ("b", False), ("", True)]
    found = [piece async for piece in client.generate_stream(TALK, lambda *piece: heard.append(piece), "m")]
    assert found == heard == expected


async def test_a_callback_may_be_a_coroutine_function(server: RemoteServer, client: RKLLMHTTPClient) -> None:
    server.routes["/api/chat"] = ollama_chat("a")
    heard: list[str] = []

    async def callback(text: str, finished: bool) -> None:  # noqa: FBT001 - as the client calls it
        await asyncio.sleep(0)
        heard.append(f"{text}{finished}")

    assert [text async for text, _ in client.generate_stream(TALK, callback, "m")] == ["a", ""]
    assert heard == ["aFalse", "True"]


async def test_options(server: RemoteServer, client: RKLLMHTTPClient) -> None:
    server.routes["/api/chat"] = ollama_chat("a")
    options: dict[str, Any] = {"temperature": 0, "top_k": 1, "seed": 3, "max_tokens": 5, "stop": "x"}
    await client.generate([Message(role="user", content="hi")], "m", **options, think=False, format="json")
    body = server.body("/api/chat")
    assert body["options"] == {"temperature": 0, "top_k": 1, "seed": 3, "num_predict": 5, "stop": ["x"]}
    assert (body["think"], body["format"]) == (False, "json")


async def test_a_schema_and_for_ever(server: RemoteServer, client: RKLLMHTTPClient) -> None:
    server.routes["/api/chat"] = ollama_chat("a")
    await client.generate(TALK, "m", format={"type": "object"}, keep_alive=math.inf, stop=["a", "b"])
    body = server.body("/api/chat")
    assert (body["format"], body["keep_alive"], body["options"]) == ({"type": "object"}, -1, {"stop": ["a", "b"]})


@pytest.mark.parametrize(
    "options",
    [{"max_tokens": "many"}, {"temperature": "hot"}, {"stop": 7}, {"keep_alive": "long"}, {"format": "xml"}],
)
async def test_options_that_make_no_sense(
    server: RemoteServer, client: RKLLMHTTPClient, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest):
        await client.generate(TALK, "m", **options)
    assert server.asked == []


async def test_unknown_options_are_refused(client: RKLLMHTTPClient) -> None:
    with pytest.raises(UnsupportedParameter, match="num_predict"):
        await client.generate(TALK, "m", num_predict=3)
    with pytest.raises(UnsupportedParameter, match="think"):
        await client.generate_from_prompt("p", "m", think=True)


@pytest.mark.parametrize(
    "message", [{"role": "robot", "content": "x"}, {"role": "user"}, {"role": "user", "content": "x", "images": ["x"]}]
)
async def test_what_is_no_message_is_refused(client: RKLLMHTTPClient, message: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"messages\[1\]"):
        await client.generate([TALK[0], message], "m")


@pytest.mark.parametrize("prompt", ["<|im_start|>user\n\ttwo\\n \N{SNOWMAN}\r\n<|im_end|>", " \n", "user: one"])
async def test_a_prompt_goes_untouched(server: RemoteServer, client: RKLLMHTTPClient, prompt: str) -> None:
    server.routes["/api/generate"] = [NDJSON, line({"response": "a"}), line({"response": "b"}), ollama_end(), END]
    found = [piece async for piece in client.generate_from_prompt_stream(prompt, None, "m", max_tokens=3)]
    assert found == [("a", False), ("b", False), ("", True)]
    body = server.body("/api/generate")
    assert (body["prompt"], body["raw"], body["options"]) == (prompt, True, {"num_predict": 3})
    assert await client.generate_from_prompt(prompt, "m") == "ab"


async def test_the_loaded_model_is_the_default(server: RemoteServer, client: RKLLMHTTPClient) -> None:
    server.routes["/api/chat"] = ollama_chat("a")
    await client.generate(TALK)
    server.routes["/api/ps"] = [answer({"models": [{"name": "n"}]})]
    await client.generate(TALK)
    assert [asked.body["model"] for asked in server.asked if asked.path == "/api/chat"] == ["m", "n"]


async def test_no_model_at_all(server: RemoteServer, client: RKLLMHTTPClient) -> None:
    server.speak_ollama()
    with pytest.raises(ModelLoadError, match="no model"):
        await client.generate(TALK)


async def test_models(server: RemoteServer, client: RKLLMHTTPClient) -> None:
    assert await client.list_models() == ["m", "n"]
    assert await client.get_current_model() is None
    server.routes["/api/chat"] = [answer({"done": True})]
    await client.unload_model()
    await client.load_model("n")
    server.routes["/api/ps"] = [answer({"models": [{"name": "n"}]})]
    assert await client.get_current_model() == "n"
    await client.unload_model()
    await client.unload_model("m")
    bodies = [asked.body for asked in server.asked if asked.path == "/api/chat"]
    assert [(body["model"], body.get("keep_alive")) for body in bodies] == [("n", None), ("n", 0), ("m", 0)]


async def test_health(server: RemoteServer, client: RKLLMHTTPClient) -> None:
    assert await client.health_check()
    server.routes["/api/version"] = [answer(b"", "500 Oops")]
    assert not await client.health_check()
    server.routes["/api/version"] = [VERSION]
    await server.stop()
    assert not await client.health_check()


async def test_errors_are_raised(server: RemoteServer, client: RKLLMHTTPClient) -> None:
    refusal = {"error": "too long", "code": "context_length_exceeded"}
    server.routes["/api/chat"] = [answer(refusal, "400 Bad Request")]
    with pytest.raises(ContextOverflow, match="too long"):
        await client.generate(TALK, "m")
    server.routes["/api/chat"] = [NDJSON, ollama_line("a"), "cut"]
    with pytest.raises(RemoteFailed, match="after 1 pieces"):
        await client.generate(TALK, "m")
    await server.stop()
    with pytest.raises(RemoteUnavailable):
        await client.list_models()
