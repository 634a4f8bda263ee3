from __future__ import annotations

import pytest
from remote_engines import LATER, OLLAMA, REQUEST, QuickEngine, Until, engine_for, ids
from remote_server import (
    RemoteServer,
    answer,
)

from exo.inference.remote import RemoteEngine
from exo.inference.remote.watch import Pace
from exo.types import (
    UnsupportedParameter,
)


async def test_models_and_what_is_resident(server: RemoteServer) -> None:
    server.speak_ollama("qwen:latest", "phi:3b")
    server.routes["/api/ps"] = [answer({"models": [{"name": "phi:3b", "size": 7, "context_length": 4096}]})]
    async with engine_for(server) as engine:
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
    async with engine_for(server) as engine:
        for _ in range(5):
            assert await ids(engine) == ["a"]
    assert server.paths().count("/api/tags") == 1
    async with engine_for(server, QuickEngine) as engine:
        assert await ids(engine) == ["a"]
        server.speak_ollama("a", "b")
        await until(lambda: list(engine._models) == ["a", "b"])
        assert await ids(engine) == ["a", "b"]


async def test_a_server_that_does_not_answer_is_not_waited_for(server: RemoteServer) -> None:
    class ImpatientEngine(RemoteEngine):
        pace = Pace(refresh=LATER, wait=0.01)

    server.routes["/api/version"] = ["stay"]
    async with engine_for(server, ImpatientEngine) as engine:
        assert await ids(engine) == []
        health = await engine.health()
        assert not health.ready
        assert "not answered" in health.detail


async def test_the_last_known_list_counts_while_the_server_is_down(server: RemoteServer, until: Until) -> None:
    server.speak_ollama("a")
    async with engine_for(server, QuickEngine) as engine:
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
    async with engine_for(server) as engine:
        assert await ids(engine) == []
        assert "cannot be reached" in engine.no_model_hint
        await server.start()
        assert await ids(engine) == ["a"], "whatever the pause of the background is"


async def test_an_unused_watch_ends_and_begins_anew(server: RemoteServer, until: Until) -> None:
    class ForgetfulEngine(RemoteEngine):
        pace = Pace(refresh=0.001, wait=5.0, unused=0.01)

    server.speak_ollama("a")
    async with engine_for(server, ForgetfulEngine) as engine:
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
    async with engine_for(server, QuickEngine) as engine:
        assert await ids(engine) == ["a"]
        with monkeypatch.context() as patch:
            patch.setattr(engine._ollama, "models", lambda: 1 / 0)
            await until(lambda: "ZeroDivisionError" in engine._watch.problem)
        await until(lambda: not engine._watch.problem)
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(("failures", "pause"), [(1, 1.0), (2, 2.0), (3, 4.0), (5, 16.0), (6, 30.0), (2000, 30.0)])
async def test_the_pauses_grow(server: RemoteServer, failures: int, pause: float) -> None:
    async with engine_for(server, RemoteEngine) as engine:
        engine._watch._failures = failures - 1
        assert await engine._watch._check_once() == pause


async def test_load_and_unload_are_seen_at_once(server: RemoteServer) -> None:
    server.speak_ollama("m")
    server.routes[OLLAMA] = [answer({"done": True, "done_reason": "load"})]
    async with engine_for(server) as engine:
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
    server.speak_openai("m", owner="exo")
    server.routes["/api/show"] = [answer({"system": "Be brief.", "model_info": {"x.context_length": 4096}})]
    async with engine_for(server) as engine:
        assert (await engine.describe("m")).system == ""
        assert server.paths() == [], "nothing is known of the server yet"
        await engine.models()
        for _ in range(2):
            described = await engine.describe("m")
            assert (described.system, described.context_length, described.size) == ("Be brief.", 4096, 5)
    assert server.paths().count("/api/show") == 1


async def test_a_loaded_model_has_the_context_it_was_loaded_with(server: RemoteServer) -> None:
    server.speak_ollama("m", "n")
    server.routes["/api/show"] = [answer({"model_info": {"x.context_length": 131_072}})]
    server.routes["/api/ps"] = [answer({"models": [{"name": "m", "context_length": 4096}, {"name": "n"}]})]
    async with engine_for(server) as engine:
        await engine.models()
        assert [(await engine.describe(name)).context_length for name in ("m", "n")] == [4096, 0]
        server.routes["/api/ps"] = [answer({"models": []})]
        await engine._watch.again()
        assert (await engine.describe("m")).context_length == 0, "nothing is kept of it"


async def test_details_that_cannot_be_had_leave_the_rest(server: RemoteServer) -> None:
    server.speak_ollama("m")
    async with engine_for(server) as engine:
        await engine.models()
        assert (await engine.describe("m")).size == 5


async def test_counting_is_refused(server: RemoteServer) -> None:
    async with engine_for(server) as engine:
        with pytest.raises(UnsupportedParameter, match="tokenizer"):
            await engine.count(REQUEST)
        with pytest.raises(UnsupportedParameter, match="tokenizer"):
            await engine.tokenize("m", "x")
