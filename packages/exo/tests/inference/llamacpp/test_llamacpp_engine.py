"""Which models are loaded and which make room, with a model that loads at once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from exo.inference import EngineContext
from exo.inference.llamacpp import engine as engine_module
from exo.inference.llamacpp.engine import LlamaCppEngine, check_gguf, settings_from
from exo.inference.llamacpp.loaded import WorkerSettings
from exo.inference.pool import PooledModel
from exo.models import ModelStore, StoredModel
from exo.types import (
    ChatRequest,
    CompletionRequest,
    ConfigurationError,
    Delta,
    Message,
    ModelCard,
    ModelLoadError,
)

Until = Callable[[Callable[[], bool]], Awaitable[None]]


class FakeModel(PooledModel):
    """What the engine asks of a loaded model, without a process."""

    log: ClassVar[list[str]]
    may_start: ClassVar[asyncio.Event]
    may_answer: ClassVar[asyncio.Event]
    failures: ClassVar[list[Exception]]

    def __init__(self, card: ModelCard, path: Path, settings: WorkerSettings, env: Mapping[str, str]) -> None:
        super().__init__()
        self.name = card.id
        self.trouble = ""

    @property
    def problem(self) -> str:
        return self.trouble

    async def start(self) -> None:
        self.log.append(f"start {self.name}")
        try:
            await self.may_start.wait()
        except asyncio.CancelledError:
            await self.close()  # as a real one does
            raise
        if self.failures:
            raise self.failures.pop(0)

    async def close(self) -> None:
        self.log.append(f"close {self.name}")

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        yield Delta(text=self.name)
        await self.may_answer.wait()
        yield Delta(finish_reason="stop")

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        yield Delta(text=request.prompt)

    async def tokenize(self, text: str) -> list[int]:
        return [len(text)]

    async def count(self, request: ChatRequest) -> int:
        return 5


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeModel]:
    class Fake(FakeModel):
        log: ClassVar[list[str]] = []
        may_start = asyncio.Event()
        may_answer = asyncio.Event()
        failures: ClassVar[list[Exception]] = []

    Fake.may_start.set()
    Fake.may_answer.set()
    monkeypatch.setattr(engine_module, "LoadedModel", Fake)
    return Fake


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    for name in "abc":
        (tmp_path / f"{name}.gguf").write_bytes(b"GGUF")
    return ModelStore(tmp_path)


@pytest.fixture
def make(fake: type[FakeModel], store: ModelStore) -> Callable[..., LlamaCppEngine]:
    def made(max_models: int = 1, **context: Any) -> LlamaCppEngine:
        env = {"EXO_LLAMACPP_MAX_MODELS": str(max_models)}
        return LlamaCppEngine(EngineContext(store, env=env, **context))

    return made


async def chat(engine: LlamaCppEngine, model: str) -> str:
    request = ChatRequest(model=model, messages=(Message(role="user", content="hi"),))
    async with contextlib.aclosing(engine.chat(request)) as deltas:
        return "".join([delta.text async for delta in deltas])


def test_settings() -> None:
    settings, max_models = settings_from({})
    assert (settings, max_models) == (WorkerSettings(slots=4, context=4096, threads=0, cache_mib=256), 1)
    names = ("SLOTS", "CONTEXT", "THREADS", "CACHE_MIB", "MAX_MODELS")
    env = {f"EXO_LLAMACPP_{name}": str(number) for number, name in enumerate(names, start=60)}
    with pytest.raises(ConfigurationError, match="EXO_LLAMACPP_CONTEXT has to be between 256 and 1048576, not 61"):
        settings_from(env)
    env["EXO_LLAMACPP_CONTEXT"] = "512"
    assert settings_from(env) == (WorkerSettings(slots=60, context=512, threads=62, cache_mib=63), 64)


@pytest.mark.parametrize("value", ["four", "1.5", "0", "65", "-1"])
def test_settings_that_do_not_fit_are_named(value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"EXO_LLAMACPP_SLOTS has to be .*{value}"):
        settings_from({"EXO_LLAMACPP_SLOTS": value})


def test_an_empty_setting_is_no_setting() -> None:
    assert settings_from({"EXO_LLAMACPP_SLOTS": ""}) == settings_from({})


@pytest.mark.parametrize("content", [b"", b"GGU", b"<html>", b"\x00\x00\x00\x00"])
def test_what_is_no_gguf_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match=r"m\.gguf is not a GGUF model"):
        check_gguf(StoredModel("m", path, len(content)))


def test_a_file_that_is_gone_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="cannot be read: No such file"):
        check_gguf(StoredModel("m", tmp_path / "gone.gguf", 0))


async def test_models_are_the_files_of_the_store_with_their_cards(make: Callable[..., LlamaCppEngine]) -> None:
    card = ModelCard(id="b", family="f")
    engine = make(cards={"b": card, "not-here": ModelCard(id="not-here")})
    models = {found.id: found for found in await engine.models()}
    assert list(models) == ["a", "b", "c"]
    assert models["b"] is card
    assert models["a"].files == {"llamacpp": str(engine.context.store.root / "a.gguf")}


async def test_a_model_is_loaded_once_and_on_demand(make: Callable[..., LlamaCppEngine], fake: type[FakeModel]) -> None:
    engine = make()
    assert engine.loaded() == []
    assert [await chat(engine, "a") for _ in range(3)] == ["a"] * 3
    await engine.load("a")
    assert fake.log == ["start a"]
    assert engine.loaded() == ["a"]
    assert await engine.tokenize("a", "xyz") == [3]
    assert await engine.count(ChatRequest(model="a", messages=())) == 5
    assert [delta.text async for delta in engine.complete(CompletionRequest(model="a", prompt="p"))] == ["p"]
    assert fake.log == ["start a"]


async def test_the_load_that_a_request_waited_for_is_told(
    make: Callable[..., LlamaCppEngine], fake: type[FakeModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make()
    monkeypatch.setattr("exo.inference.pool.time.monotonic", itertools.count(step=2.5).__next__)
    last = [delta async for delta in engine.chat(ChatRequest(model="a", messages=()))][-1]
    assert last.timings is not None
    assert last.timings.load >= 2.5


async def test_requests_for_one_model_share_one_load(
    make: Callable[..., LlamaCppEngine], fake: type[FakeModel], until: Until
) -> None:
    engine = make()
    fake.may_start.clear()
    tasks = [asyncio.create_task(chat(engine, "a")) for _ in range(5)]
    await until(lambda: bool(fake.log))
    fake.may_start.set()
    assert await asyncio.gather(*tasks) == ["a"] * 5
    assert fake.log == ["start a"]


async def test_the_model_used_least_recently_makes_room(
    make: Callable[..., LlamaCppEngine], fake: type[FakeModel]
) -> None:
    engine = make(max_models=2)
    for name in ("a", "b", "a", "c"):
        await chat(engine, name)
    assert fake.log == ["start a", "start b", "close b", "start c"]
    assert engine.loaded() == ["a", "c"]


async def test_an_idle_model_makes_room_before_a_busy_one(
    make: Callable[..., LlamaCppEngine], fake: type[FakeModel]
) -> None:
    engine = make(max_models=2)
    busy = engine.chat(ChatRequest(model="a", messages=()))
    await anext(busy)
    await chat(engine, "b")
    await chat(engine, "c")
    assert "close b" in fake.log
    assert "close a" not in fake.log
    await busy.aclose()


async def test_a_busy_model_finishes_before_it_makes_room(
    make: Callable[..., LlamaCppEngine], fake: type[FakeModel]
) -> None:
    engine = make()
    busy = engine.chat(ChatRequest(model="a", messages=()))
    await anext(busy)
    other = asyncio.create_task(chat(engine, "b"))
    for _ in range(5):
        await asyncio.sleep(0)
    late = asyncio.create_task(chat(engine, "a"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert fake.log == ["start a"], "neither unloaded under its request, nor given new ones"
    assert [delta.finish_reason async for delta in busy] == ["stop"]
    assert await asyncio.wait_for(other, 5) == "b"
    assert await asyncio.wait_for(late, 5) == "a"
    assert fake.log == ["start a", "close a", "start b", "close b", "start a"]


async def test_a_request_cancelled_while_it_waits_for_room_leaves_the_model_in_use(
    make: Callable[..., LlamaCppEngine], fake: type[FakeModel]
) -> None:
    engine = make()
    busy = engine.chat(ChatRequest(model="a", messages=()))
    await anext(busy)
    other = asyncio.create_task(chat(engine, "b"))
    for _ in range(5):
        await asyncio.sleep(0)
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not engine._pool.models["a"].retiring
    assert await chat(engine, "a") == "a"
    assert fake.log == ["start a"]
    await busy.aclose()


async def test_a_model_that_failed_to_load_is_tried_again(
    make: Callable[..., LlamaCppEngine], fake: type[FakeModel]
) -> None:
    engine = make()
    fake.failures.append(ModelLoadError("no memory"))
    with pytest.raises(ModelLoadError, match="no memory"):
        await engine.load("a")
    assert engine.loaded() == []
    assert await chat(engine, "a") == "a"


async def test_a_model_without_a_file_is_refused_and_unloads_nothing(
    make: Callable[..., LlamaCppEngine], fake: type[FakeModel]
) -> None:
    engine = make()
    await engine.load("a")
    with pytest.raises(ModelLoadError, match="exo pull gone"):
        await engine.load("gone")
    (engine.context.store.root / "b.gguf").write_bytes(b"<html>")
    with pytest.raises(ModelLoadError, match="not a GGUF model"):
        await engine.load("b")
    assert (engine.loaded(), fake.log) == (["a"], ["start a"])


async def test_unload(make: Callable[..., LlamaCppEngine], fake: type[FakeModel]) -> None:
    engine = make()
    await engine.unload("a")
    await engine.load("a")
    await engine.unload("a")
    assert (engine.loaded(), fake.log) == ([], ["start a", "close a"])


async def test_a_worker_that_cannot_be_started_again_makes_the_engine_unready(
    make: Callable[..., LlamaCppEngine],
) -> None:
    engine = make()
    await engine.load("a")
    assert (await engine.health()).ready
    setattr(engine._pool.models["a"], "trouble", "no file")  # noqa: B010 - a field of the fake model alone
    health = await engine.health()
    assert (health.ready, health.detail) == (False, "the worker of a cannot be started: no file")


async def test_a_load_goes_on_when_its_first_requester_leaves(
    make: Callable[..., LlamaCppEngine], fake: type[FakeModel]
) -> None:
    engine = make()
    fake.may_start.clear()
    first, second = (asyncio.create_task(engine.load("a")) for _ in range(2))
    for _ in range(5):
        await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    fake.may_start.set()
    await asyncio.wait_for(second, 5)
    assert (fake.log, engine.loaded()) == (["start a"], ["a"])


async def test_close_closes_every_model(make: Callable[..., LlamaCppEngine], fake: type[FakeModel]) -> None:
    engine = make(max_models=3)
    for name in "abc":
        await engine.load(name)
    await engine.close()
    assert sorted(fake.log[3:]) == ["close a", "close b", "close c"]
    assert engine.loaded() == []


async def test_close_during_a_load_leaves_no_model_behind(
    make: Callable[..., LlamaCppEngine], fake: type[FakeModel], until: Until
) -> None:
    engine = make()
    fake.may_start.clear()
    loading = asyncio.create_task(engine.load("a"))
    await until(lambda: fake.log == ["start a"])
    closing = asyncio.create_task(engine.close())
    await asyncio.sleep(0)
    fake.may_start.set()
    await asyncio.gather(loading, closing, return_exceptions=True)
    assert fake.log == ["start a", "close a"]


async def test_close_while_a_model_makes_room(make: Callable[..., LlamaCppEngine], fake: type[FakeModel]) -> None:
    engine = make()
    busy = engine.chat(ChatRequest(model="a", messages=()))
    await anext(busy)
    other = asyncio.create_task(chat(engine, "b"))
    for _ in range(5):
        await asyncio.sleep(0)
    await engine.close()
    await busy.aclose()
    (result,) = await asyncio.gather(other, return_exceptions=True)
    assert not isinstance(result, KeyError)
    await engine.close()
    starts = sum(step.startswith("start") for step in fake.log)
    assert starts == sum(step.startswith("close") for step in fake.log)
