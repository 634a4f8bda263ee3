from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
import pytest
from remote_engines import OLLAMA, OPENAI, REQUEST, Until, engine_for, ids, text_of
from remote_server import (
    EVENTS,
    RemoteServer,
    answer,
    chunk,
    ollama_chat,
    openai_chat,
    said,
    until_error,
)

from exo.inference import InferenceService, NodeMetrics, choose, discover
from exo.inference.remote import RemoteEngine
from exo.types import (
    ConfigurationError,
    ExoError,
    InvalidRequest,
    ModelNotFound,
    QueueFull,
    RemoteFailed,
    RemoteUnavailable,
)


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({}, "EXO_REMOTE_URL"),
        ({"EXO_REMOTE_URL": "board"}, "EXO_REMOTE_URL"),
        ({"EXO_REMOTE_URL": "http://board", "EXO_REMOTE_SLOTS": "x"}, "EXO_REMOTE_SLOTS"),
    ],
)
def test_what_is_missing_is_named(env: Mapping[str, str], named: str) -> None:
    found = RemoteEngine.available(env)
    assert not found.ok
    assert named in found.reason


def test_it_is_a_built_in_engine_that_is_chosen_by_name() -> None:
    plugins = discover(lambda group: [])
    assert plugins.engine_class("remote") is RemoteEngine
    assert choose(plugins, "remote", {"EXO_REMOTE_URL": "http://board:8080"}).engine == "remote"
    with pytest.raises(ConfigurationError, match="EXO_REMOTE_URL is not set"):
        choose(plugins, "remote", {})


async def test_making_one_asks_nothing(server: RemoteServer) -> None:
    async with engine_for(server, EXO_REMOTE_SLOTS="7") as engine:
        assert engine.slots == 7
        assert server.connections == 0
    assert server.connections == 0


# failures


async def test_a_request_tries_the_server_itself(server: RemoteServer) -> None:
    server.speak_ollama("m")
    server.routes[OLLAMA] = ollama_chat("hi")
    async with engine_for(server) as engine:
        assert await ids(engine) == ["m"]
        assert await text_of(engine) == "hi"
        await server.stop()
        with pytest.raises(RemoteUnavailable, match="cannot be reached"):
            await text_of(engine)
        await server.start()
        assert await text_of(engine) == "hi", "whatever the pause of the background is"


async def test_a_server_that_was_replaced_by_another_one(server: RemoteServer) -> None:
    server.speak_ollama("m")
    server.routes[OLLAMA] = ollama_chat("from the one")
    async with engine_for(server) as engine:
        assert await text_of(engine) == "from the one"
        await server.stop()
        with pytest.raises(RemoteUnavailable):
            await text_of(engine)
        server.routes = {OPENAI: openai_chat("from the other")}
        server.speak_openai("m")
        await server.start()
        assert await text_of(engine) == "from the other"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        ("400 Bad Request", {"error": "odd words"}, InvalidRequest),
        ("404 Not Found", {"error": "odd words", "code": "model_not_found"}, ModelNotFound),
        ("429 Too Many Requests", {"error": "odd words", "code": "queue_full"}, QueueFull),
        ("503 Service Unavailable", {"error": "odd words"}, RemoteUnavailable),
        ("500 Internal Server Error", {"error": "odd words"}, RemoteFailed),
    ],
)
async def test_a_refusal_keeps_its_kind(
    server: RemoteServer, status: str, body: dict[str, str], kind: type[ExoError]
) -> None:
    server.speak_ollama("m")
    server.routes[OLLAMA] = [answer(body, status)]
    async with engine_for(server) as engine:
        with pytest.raises(kind, match="odd words"):
            await anext(engine.chat(REQUEST))


async def test_an_answer_that_breaks_off(server: RemoteServer) -> None:
    server.speak_openai("m")
    server.routes[OPENAI] = [EVENTS, said("a"), "cut"]
    async with engine_for(server) as engine:
        text, error = await until_error(engine.chat(REQUEST))
        assert text == "a"
        assert isinstance(error, RemoteFailed)


async def test_cancelling_is_seen_by_the_server(server: RemoteServer, until: Until) -> None:
    server.speak_openai("m")
    server.routes[OPENAI] = [EVENTS, said("a"), chunk(b": ping\n\n"), "stay"]
    async with engine_for(server) as engine:
        deltas = engine.chat(REQUEST)
        assert [(await anext(deltas)).text for _ in range(2)] == ["", "a"]
        await deltas.aclose()
        await until(lambda: server.open == 0)


async def test_closing_in_the_middle_of_a_look(server: RemoteServer, until: Until) -> None:
    server.routes["/api/version"] = ["stay"]
    async with engine_for(server) as engine:
        looking = asyncio.create_task(engine.models())
        await until(lambda: server.paths() == ["/api/version"])
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    await until(lambda: server.open == 0)


# in a node


async def test_a_node_in_front_of_a_server(server: RemoteServer) -> None:
    server.speak_ollama("qwen:latest")
    server.routes[OLLAMA] = ollama_chat("hi")
    async with engine_for(server) as engine:
        service = InferenceService(engine, NodeMetrics(engine.context.registry))
        card = await service.resolve("qwen")
        found = await service.chat(msgspec.structs.replace(REQUEST, model=card.id))
        assert [delta.text async for delta in found if delta.text] == ["hi"]
        assert (found.usage.prompt_tokens, found.completion_tokens) == (9, 2)
        await found.aclose()
        readiness = await service.readiness()
        assert (readiness.ready, readiness.models) == (True, ["qwen:latest"])
        await server.stop()
        with pytest.raises(RemoteUnavailable):
            await service.chat(msgspec.structs.replace(REQUEST, model=card.id))
        await engine._watch.again()
        readiness = await service.readiness()
        assert not readiness.ready
        assert "cannot be reached" in readiness.reason
