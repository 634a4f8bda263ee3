from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from remote_server import (
    END,
    EVENTS,
    NDJSON,
    RemoteServer,
    answer,
    chunk,
    collect,
    event,
    line,
    ollama_chat,
    ollama_end,
    openai_chat,
    said,
    until_error,
    usage,
)

from exo.inference import EngineContext, InferenceService, NodeMetrics, choose, discover
from exo.inference.remote import RemoteEngine
from exo.inference.remote.dialects import Offer
from exo.inference.remote.settings import Dialect
from exo.inference.remote.watch import Pace
from exo.models import ModelStore
from exo.types import (
    AnswerFormat,
    ChatRequest,
    CompletionRequest,
    ConfigurationError,
    EmbeddingRequest,
    ExoError,
    InvalidRequest,
    Message,
    ModelNotFound,
    QueueFull,
    RemoteFailed,
    RemoteUnavailable,
    UnsupportedParameter,
)

Until = Callable[[Callable[[], bool]], Awaitable[None]]
OPENAI, OLLAMA = "/v1/chat/completions", "/api/chat"
REQUEST = ChatRequest(model="m", messages=(Message(role="user", content="hi"),))
LATER = 3600.0


class QuickEngine(RemoteEngine):
    """Looks at the server all the time, so that tests need not wait."""

    pace = Pace(refresh=0.01, first_retry=0.01, longest_retry=0.02, wait=5.0)


class SlowEngine(RemoteEngine):
    """Looks at the server once; later only when it is told to."""

    pace = Pace(refresh=LATER, first_retry=LATER, longest_retry=LATER, wait=5.0)


@contextlib.asynccontextmanager
async def running(
    server: RemoteServer, kind: type[RemoteEngine] = SlowEngine, **env: str
) -> AsyncIterator[RemoteEngine]:
    engine = kind(EngineContext(store=ModelStore(Path("nowhere")), env={"EXO_REMOTE_URL": server.url, **env}))
    try:
        yield engine
    finally:
        await engine.close()


async def text_of(engine: RemoteEngine, request: ChatRequest = REQUEST) -> str:
    return "".join(delta.text for delta in await collect(engine.chat(request)))


async def ids(engine: RemoteEngine) -> list[str]:
    return [card.id for card in await engine.models()]


# availability


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
    async with running(server, EXO_REMOTE_SLOTS="7") as engine:
        assert engine.slots == 7
        assert server.connections == 0
    assert server.connections == 0


# the dialects


@pytest.mark.parametrize(
    ("offer", "change", "dialect"),
    [
        (Offer(ollama=True, openai=True, is_exo=True), {}, "openai"),
        (Offer(ollama=True, openai=True, is_exo=True), {"think": False}, "ollama"),
        (Offer(ollama=True, openai=True, is_exo=True), {"keep_alive": 0.0}, "ollama"),
        (Offer(ollama=True, openai=True, is_exo=True), {"format": AnswerFormat()}, "ollama"),
        (Offer(ollama=True, openai=True), {}, "ollama"),
        (Offer(ollama=True, openai=False), {}, "ollama"),
        (Offer(ollama=False, openai=True), {}, "openai"),
        (Offer(ollama=False, openai=True), {"think": True, "keep_alive": 1.0}, "openai"),
    ],
)
def test_the_rule(offer: Offer, change: dict[str, Any], dialect: Dialect) -> None:
    assert offer.for_chat(msgspec.structs.replace(REQUEST, **change)) == dialect


@pytest.mark.parametrize("dialect", ["auto", "ollama"])
async def test_a_server_with_ollamas_dialect(server: RemoteServer, dialect: str) -> None:
    server.speak_ollama("m")
    server.routes[OLLAMA] = ollama_chat("hi ", "there")
    async with running(server, EXO_REMOTE_DIALECT=dialect) as engine:
        assert await text_of(engine) == "hi there"
    assert server.paths() == [*(["/api/version", "/v1/models"] if dialect == "auto" else []), OLLAMA]


@pytest.mark.parametrize("dialect", ["auto", "openai"])
async def test_a_server_with_openais_dialect(server: RemoteServer, dialect: str) -> None:
    server.speak_openai("m")
    server.routes[OPENAI] = openai_chat("hi ", "there")
    async with running(server, EXO_REMOTE_DIALECT=dialect) as engine:
        assert await text_of(engine) == "hi there"
        assert await text_of(engine) == "hi there"
    assert server.paths() == [*(["/api/version", "/v1/models"] if dialect == "auto" else []), OPENAI, OPENAI]


async def test_a_node_of_this_project_is_asked_in_both(server: RemoteServer) -> None:
    server.speak_ollama("m")
    server.speak_openai("m", owner="exo")
    pieces = [line({"response": "raw", "done": False}), ollama_end()]
    server.routes |= {OPENAI: openai_chat("exact"), OLLAMA: ollama_chat("thinking")}
    server.routes |= {"/api/generate": [NDJSON, *pieces, END], "/api/embed": [answer({"embeddings": [[1]]})]}
    async with running(server) as engine:
        assert await text_of(engine) == "exact"
        assert await text_of(engine, msgspec.structs.replace(REQUEST, think=True)) == "thinking"
        deltas = await collect(engine.complete(CompletionRequest(model="m", prompt="p")))
        assert [delta.text for delta in deltas] == ["", "raw", ""]
        assert (await engine.embed(EmbeddingRequest(model="m", inputs=("a",)))).vectors == ((1.0,),)
    assert server.paths() == ["/api/version", "/v1/models", OPENAI, OLLAMA, "/api/generate", "/api/embed"]


async def test_a_server_with_openais_dialect_only_does_the_rest(server: RemoteServer) -> None:
    server.speak_openai("m")
    piece = event({"choices": [{"text": "raw", "finish_reason": "stop"}]})
    server.routes["/v1/completions"] = [EVENTS, piece, usage(), END]
    server.routes["/v1/embeddings"] = [answer({"data": [{"embedding": [1]}]})]
    async with running(server) as engine:
        deltas = await collect(engine.complete(CompletionRequest(model="m", prompt="p")))
        assert [delta.text for delta in deltas] == ["", "raw", ""]
        assert (await engine.embed(EmbeddingRequest(model="m", inputs=("a",)))).vectors == ((1.0,),)
        asked = server.paths()
        await engine.load("m", keep_alive=5.0)
        await engine.unload("m")
        assert server.paths() == asked, "there is no way to load"
        assert await ids(engine) == ["m"]
        assert engine.loaded() == []


async def test_a_server_that_speaks_neither(server: RemoteServer) -> None:
    async with running(server) as engine:
        with pytest.raises(RemoteFailed, match=r"neither.*has no /api/version.*has no /v1/models"):
            await text_of(engine)


async def test_a_server_that_wants_a_key(server: RemoteServer) -> None:
    server.routes["/api/version"] = [answer({"error": "key?", "code": "invalid_api_key"}, "401 Unauthorized")]
    async with running(server) as engine:
        with pytest.raises(RemoteUnavailable, match="EXO_REMOTE_API_KEY"):
            await text_of(engine)
        health = await engine.health()
        assert not health.ready
        assert "EXO_REMOTE_API_KEY" in health.detail


async def test_a_key_for_openais_paths_only_leaves_ollamas(server: RemoteServer) -> None:
    server.speak_ollama("m")
    server.routes |= {"/v1/models": [answer(b"", "401 Unauthorized")], OLLAMA: ollama_chat("hi")}
    async with running(server) as engine:
        assert await text_of(engine) == "hi"


# models and health


async def test_models_and_what_is_resident(server: RemoteServer) -> None:
    server.speak_ollama("qwen:latest", "phi:3b")
    server.routes["/api/ps"] = [answer({"models": [{"name": "phi:3b", "size": 7, "context_length": 4096}]})]
    async with running(server) as engine:
        found = await engine.models()
        assert [(card.id, card.aliases, card.family) for card in found] == [
            ("qwen:latest", ("qwen",), "qwen2"),
            ("phi:3b", (), "qwen2"),
        ]
        assert engine.loaded() == ["phi:3b"]
        assert [(one.size, one.context) for one in engine.resident()] == [(7, 4096)]
        assert (await engine.health()).ready


async def test_the_list_is_asked_for_once_and_then_in_the_background(server: RemoteServer, until: Until) -> None:
    server.speak_ollama("a")
    async with running(server) as engine:
        for _ in range(5):
            assert await ids(engine) == ["a"]
    assert server.paths().count("/api/tags") == 1
    async with running(server, QuickEngine) as engine:
        assert await ids(engine) == ["a"]
        server.speak_ollama("a", "b")
        await until(lambda: list(engine._models) == ["a", "b"])
        assert await ids(engine) == ["a", "b"]


async def test_a_server_that_does_not_answer_is_not_waited_for(server: RemoteServer) -> None:
    class ImpatientEngine(RemoteEngine):
        pace = Pace(refresh=LATER, wait=0.01)

    server.routes["/api/version"] = ["stay"]
    async with running(server, ImpatientEngine) as engine:
        assert await ids(engine) == []
        health = await engine.health()
        assert not health.ready
        assert "not answered" in health.detail


async def test_the_last_known_list_counts_while_the_server_is_down(server: RemoteServer, until: Until) -> None:
    server.speak_ollama("a")
    async with running(server, QuickEngine) as engine:
        assert await ids(engine) == ["a"]
        await server.stop()
        await until(lambda: bool(engine._watch.problem))
        assert await ids(engine) == ["a"]
        health = await engine.health()
        assert not health.ready
        assert f"127.0.0.1:{server.port} cannot be reached" in health.detail
        assert "tried again in 1 s" in health.detail
        await server.start()
        await until(lambda: not engine._watch.problem)
        assert (await engine.health()).ready


async def test_a_server_that_was_never_there_is_found_when_it_comes(server: RemoteServer) -> None:
    server.speak_ollama("a")
    await server.stop()
    async with running(server) as engine:
        assert await ids(engine) == []
        assert "cannot be reached" in engine.no_model_hint
        await server.start()
        assert await ids(engine) == ["a"], "whatever the pause of the background is"


async def test_an_unused_watch_ends_and_begins_anew(server: RemoteServer, until: Until) -> None:
    class ForgetfulEngine(RemoteEngine):
        pace = Pace(refresh=0.001, wait=5.0, unused=0.01)

    server.speak_ollama("a")
    async with running(server, ForgetfulEngine) as engine:
        assert await ids(engine) == ["a"]
        task = engine._watch._task
        assert task is not None
        await until(task.done)
        server.speak_ollama("b")
        assert await ids(engine) == ["b"], "the first result is waited for"


async def test_a_defect_does_not_end_the_watch(
    server: RemoteServer, until: Until, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server.speak_ollama("a")
    async with running(server, QuickEngine) as engine:
        assert await ids(engine) == ["a"]
        with monkeypatch.context() as patch:
            patch.setattr(engine._ollama, "models", lambda: 1 / 0)
            await until(lambda: "ZeroDivisionError" in engine._watch.problem)
        await until(lambda: not engine._watch.problem)
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(("failures", "pause"), [(1, 1.0), (2, 2.0), (3, 4.0), (5, 16.0), (6, 30.0), (2000, 30.0)])
async def test_the_pauses_grow(server: RemoteServer, failures: int, pause: float) -> None:
    async with running(server, RemoteEngine) as engine:
        engine._watch._failures = failures - 1
        assert await engine._watch._check_once() == pause


async def test_load_and_unload_are_seen_at_once(server: RemoteServer) -> None:
    server.speak_ollama("m")
    server.routes[OLLAMA] = [answer({"done": True, "done_reason": "load"})]
    async with running(server) as engine:
        assert await ids(engine) == ["m"]
        server.routes["/api/ps"] = [answer({"models": [{"name": "m"}]})]
        await engine.load("m", keep_alive=60.0)
        assert engine.loaded() == ["m"]
        server.routes["/api/ps"] = [answer({"models": []})]
        await engine.unload("m")
        assert engine.loaded() == []
    assert [asked.body["keep_alive"] for asked in server.asked if asked.path == OLLAMA] == [60.0, 0]


async def test_details_are_asked_for_once(server: RemoteServer) -> None:
    server.speak_ollama("m")
    server.routes["/api/show"] = [answer({"system": "Be brief.", "model_info": {"x.context_length": 4096}})]
    async with running(server) as engine:
        assert (await engine.describe("m")).system == ""
        assert server.paths() == [], "nothing is known of the server yet"
        await engine.models()
        for _ in range(2):
            described = await engine.describe("m")
            assert (described.system, described.context_length, described.size) == ("Be brief.", 4096, 5)
    assert server.paths().count("/api/show") == 1


async def test_details_that_cannot_be_had_leave_the_rest(server: RemoteServer) -> None:
    server.speak_ollama("m")
    async with running(server) as engine:
        await engine.models()
        assert (await engine.describe("m")).size == 5


async def test_counting_is_refused(server: RemoteServer) -> None:
    async with running(server) as engine:
        with pytest.raises(UnsupportedParameter, match="tokenizer"):
            await engine.count(REQUEST)
        with pytest.raises(UnsupportedParameter, match="tokenizer"):
            await engine.tokenize("m", "x")


# failures


async def test_a_request_tries_the_server_itself(server: RemoteServer) -> None:
    server.speak_ollama("m")
    server.routes[OLLAMA] = ollama_chat("hi")
    async with running(server) as engine:
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
    async with running(server) as engine:
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
    async with running(server) as engine:
        with pytest.raises(kind, match="odd words"):
            await anext(engine.chat(REQUEST))


async def test_an_answer_that_breaks_off(server: RemoteServer) -> None:
    server.speak_openai("m")
    server.routes[OPENAI] = [EVENTS, said("a"), "cut"]
    async with running(server) as engine:
        text, error = await until_error(engine.chat(REQUEST))
        assert text == "a"
        assert isinstance(error, RemoteFailed)


async def test_cancelling_is_seen_by_the_server(server: RemoteServer, until: Until) -> None:
    server.speak_openai("m")
    server.routes[OPENAI] = [EVENTS, said("a"), chunk(b": ping\n\n"), "stay"]
    async with running(server) as engine:
        deltas = engine.chat(REQUEST)
        assert [(await anext(deltas)).text for _ in range(2)] == ["", "a"]
        await deltas.aclose()
        await until(lambda: server.open == 0)


async def test_closing_in_the_middle_of_a_look(server: RemoteServer, until: Until) -> None:
    server.routes["/api/version"] = ["stay"]
    async with running(server) as engine:
        looking = asyncio.create_task(engine.models())
        await until(lambda: server.paths() == ["/api/version"])
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    await until(lambda: server.open == 0)


# in a node


async def test_a_node_in_front_of_a_server(server: RemoteServer) -> None:
    server.speak_ollama("qwen:latest")
    server.routes[OLLAMA] = ollama_chat("hi")
    async with running(server) as engine:
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
