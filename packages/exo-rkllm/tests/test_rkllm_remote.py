"""The ways to an NPU, and the engine by way of another server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from npu_board import SimBoard
from prometheus_client import CollectorRegistry
from remote_server import (
    END,
    NDJSON,
    NOT_FOUND,
    VERSION,
    RemoteServer,
    answer,
    collect,
    line,
    ollama_chat,
    ollama_end,
    ollama_line,
    remote_server,
    until_error,
)

from exo.inference import EngineContext
from exo.inference.remote.watch import Pace
from exo.models import ModelStore
from exo.types import ChatRequest, CompletionRequest, ConfigurationError, Message, RemoteUnavailable
from exo_rkllm.detection import detect_rockchip_npu
from exo_rkllm.engine import RKLLMInferenceEngine
from exo_rkllm.remote import RkllmServerEngine
from exo_rkllm.ways import answers, choose, url_of

Until = Callable[[Callable[[], bool]], Awaitable[None]]
REQUEST = ChatRequest(model="m", messages=(Message(role="user", content="hi"),))
RUNS = "rkllm_inference_duration_seconds_count"


@pytest.fixture
def board(tmp_path: Path) -> SimBoard:
    return SimBoard(tmp_path)


@pytest.fixture
def until() -> Until:
    """Wait until a condition holds; the test fails if it never does."""

    async def wait(condition: Callable[[], bool]) -> None:
        clock = asyncio.get_running_loop().time
        end = clock() + 10.0
        while not condition():
            assert clock() < end, "the condition was never met"
            await asyncio.sleep(0.001)

    return wait


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """A machine without a board and without a library."""
    return {"HOME": str(tmp_path), "RKLLM_ROOT": str(tmp_path)}


@pytest.fixture
def nobody() -> Iterator[tuple[str, int]]:
    """A port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()


@pytest.fixture
async def server() -> AsyncIterator[RemoteServer]:
    async with remote_server() as found:
        found.speak_ollama("m")
        yield found


class QuickEngine(RkllmServerEngine):
    pace = Pace(refresh=0.01, first_retry=0.01, longest_retry=0.02, wait=5.0)


@contextlib.asynccontextmanager
async def running(server: RemoteServer) -> AsyncIterator[tuple[RkllmServerEngine, CollectorRegistry]]:
    registry = CollectorRegistry()
    env = {"RKLLM_SERVER_HOST": "127.0.0.1", "RKLLM_SERVER_PORT": str(server.port), "EXO_REMOTE_API_KEY": "k"}
    engine = QuickEngine(EngineContext(store=ModelStore(Path("nowhere")), env=env, registry=registry))
    try:
        yield engine, registry
    finally:
        await engine.close()


async def threaded(server: RemoteServer) -> bool:
    """`answers` blocks, and the server is in this event loop."""
    return await asyncio.to_thread(answers, "127.0.0.1", server.port)


# the ways


@pytest.mark.parametrize(
    ("env", "url"),
    [
        ({"RKLLM_SERVER_HOST": "board"}, "http://board:8080"),
        ({"RKLLM_SERVER_PORT": "9000"}, "http://localhost:9000"),
        ({"RKLLM_SERVER_HOST": "::1", "RKLLM_SERVER_PORT": "1"}, "http://[::1]:1"),
        ({"RKLLM_SERVER_HOST": "[fe80::1]"}, "http://[fe80::1]:8080"),
    ],
)
def test_a_server_by_name_is_the_first_way(board: SimBoard, env: dict[str, str], url: str) -> None:
    way = choose({**board.env, **env})
    assert way.url == url
    assert way.availability.ok
    assert url in way.availability.reason


def test_a_library_is_the_second_way(board: SimBoard, nobody: tuple[str, int]) -> None:
    way = choose(board.env, beside=nobody)
    assert (way.url, way.availability.ok) == (None, True)
    assert "librkllmrt" in way.availability.reason


async def test_a_library_by_name_that_is_not_there_is_no_way_at_all(bare: dict[str, str], server: RemoteServer) -> None:
    env = {**bare, "RKLLM_LIB": "/nowhere/librkllmrt.so"}
    way = await asyncio.to_thread(lambda: choose(env, beside=("127.0.0.1", server.port)))
    assert not way.availability.ok
    assert "/nowhere" in way.availability.reason
    assert server.asked == []


async def test_a_library_that_cannot_be_used_leads_nowhere_else(
    bare: dict[str, str], tmp_path: Path, server: RemoteServer
) -> None:
    library = tmp_path / "usr/lib/librkllmrt.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"no library")
    way = await asyncio.to_thread(lambda: choose(bare, beside=("127.0.0.1", server.port)))
    assert not way.availability.ok
    assert str(library) in way.availability.reason
    assert server.asked == []


async def test_a_server_beside_is_the_third_way(bare: dict[str, str], server: RemoteServer) -> None:
    way = await asyncio.to_thread(lambda: choose(bare, beside=("127.0.0.1", server.port)))
    assert (way.url, way.availability.ok) == (server.url, True)


def test_without_any_way_all_three_are_named(bare: dict[str, str], nobody: tuple[str, int]) -> None:
    way = choose(bare, beside=nobody)
    assert not way.availability.ok
    for named in ("RKLLM_SERVER_HOST", "librkllmrt.so", f"127.0.0.1:{nobody[1]}", "RKLLM_LIB", "no Rockchip board"):
        assert named in way.availability.reason


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RKLLM_SERVER_PORT", "many"),
        ("RKLLM_SERVER_HOST", "board:9000"),
        ("RKLLM_SERVER_HOST", "http://board"),
        ("RKLLM_SLOTS", "x"),
    ],
)
def test_a_setting_that_makes_no_sense_is_no_crash(bare: dict[str, str], name: str, value: str) -> None:
    way = choose({**bare, name: value})
    assert not way.availability.ok
    assert name in way.availability.reason


def test_a_host_with_its_port_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="RKLLM_SERVER_PORT"):
        url_of("board:9000", 8080)


@pytest.mark.parametrize(
    ("version", "root", "alike"),
    [
        (VERSION, NOT_FOUND, True),
        (NOT_FOUND, answer({"message": "Welcome to RKLLama!"}), True),
        (NOT_FOUND, answer(b"Ollama is running"), True),
        (NOT_FOUND, answer(b"<html>Jenkins</html>"), False),
        (answer({"version": "1"}, "500 Oops"), NOT_FOUND, False),
        (answer([1]), answer(b""), False),
        (answer(None), answer(b""), False),
        (answer(5), answer(b""), False),
        (answer("version"), answer(b""), False),
        (answer(b"[" * 60_000), answer(b""), False),
        (b"\xff", b"\xff", False),
    ],
)
async def test_only_a_server_of_that_kind_counts(version: bytes, root: bytes, *, alike: bool) -> None:
    async with remote_server() as server:
        server.routes = {"/api/version": [version, "cut"], "/": [root, "cut"]}
        assert await threaded(server) is alike


async def test_a_server_that_keeps_the_connection_open_is_heard_all_the_same() -> None:
    async with remote_server() as server:
        server.routes = {"/api/version": [VERSION, "stay"]}
        assert await threaded(server)


async def test_a_server_that_says_nothing_is_given_up() -> None:
    async with remote_server() as server:
        server.routes = {"/api/version": ["stay"], "/": ["stay"]}
        assert not await threaded(server)


# the choice of the engine


def test_a_server_by_name_makes_the_detector_answer(bare: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RKLLM_LIB", "RKLLAMA_HOME", "RKLLM_SERVER_HOST", "RKLLM_SERVER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in bare.items():
        monkeypatch.setenv(name, value)
    assert detect_rockchip_npu() is None
    monkeypatch.setenv("RKLLM_SERVER_HOST", " ")
    assert detect_rockchip_npu() is None
    monkeypatch.setenv("RKLLM_SERVER_HOST", "board")
    assert detect_rockchip_npu() == "rkllm"
    monkeypatch.delenv("RKLLM_SERVER_HOST")
    monkeypatch.setenv("RKLLM_SERVER_PORT", "9000")
    assert detect_rockchip_npu() == "rkllm"


async def test_the_engine_is_made_for_the_way(board: SimBoard) -> None:
    for env, kind in ((board.env, RKLLMInferenceEngine), ({"RKLLM_SERVER_HOST": "board"}, RkllmServerEngine)):
        assert RKLLMInferenceEngine.available(env).ok
        context = EngineContext(store=ModelStore(Path("nowhere")), env=env, registry=CollectorRegistry())
        engine = RKLLMInferenceEngine.create(context)
        assert type(engine) is kind
        assert engine.name == "rkllm"
        await engine.close()


def test_the_reason_for_no_way_is_the_engines(bare: dict[str, str]) -> None:
    found = RKLLMInferenceEngine.available({**bare, "RKLLM_LIB": "/nowhere"})
    assert not found.ok
    assert "/nowhere" in found.reason
    assert not RkllmServerEngine.available({**bare, "RKLLM_LIB": "/nowhere"}).ok


def test_without_a_server_there_is_no_engine_for_one(board: SimBoard) -> None:
    env = {**board.env, "EXO_REMOTE_URL": "http://another:8080"}
    with pytest.raises(ConfigurationError, match="No server was found"):
        RkllmServerEngine(EngineContext(store=ModelStore(Path("nowhere")), env=env, registry=CollectorRegistry()))


# the engine


async def test_a_chat_by_way_of_a_server_and_its_metrics(server: RemoteServer) -> None:
    server.routes["/api/chat"] = ollama_chat("hi ", "there")
    server.routes["/api/generate"] = [NDJSON, line({"response": "raw"}), ollama_end(), END]
    async with running(server) as (engine, registry):
        assert registry.get_sample_value("rkllm_server_up") == 0
        assert [card.id for card in await engine.models()] == ["m"]
        assert registry.get_sample_value("rkllm_server_up") == 1
        assert "".join(delta.text for delta in await collect(engine.chat(REQUEST))) == "hi there"
        await collect(engine.complete(CompletionRequest(model="m", prompt="p")))
        assert registry.get_sample_value(RUNS) == 2
        for endpoint, status in (("/api/chat", "200"), ("/api/generate", "200"), ("/v1/models", "404")):
            labels = {"endpoint": endpoint, "status": status}
            assert registry.get_sample_value("rkllm_http_requests_total", labels) == 1
    assert registry.get_sample_value("rkllm_server_up") == 0
    assert {asked.headers["authorization"] for asked in server.asked} == {"Bearer k"}


async def test_a_server_that_goes_down(server: RemoteServer, until: Until) -> None:
    server.routes["/api/chat"] = ollama_chat("hi")
    async with running(server) as (engine, registry):
        await engine.models()
        await server.stop()
        await until(lambda: registry.get_sample_value("rkllm_server_up") == 0)
        text, error = await until_error(engine.chat(REQUEST))
        assert (text, type(error)) == ("", RemoteUnavailable)
        assert registry.get_sample_value(RUNS) == 0, "no run has begun"
        labels = {"endpoint": "/api/version", "status": "error"}
        assert (registry.get_sample_value("rkllm_http_requests_total", labels) or 0) > 0
        await server.start()
        await until(lambda: registry.get_sample_value("rkllm_server_up") == 1)


async def test_a_run_that_is_cancelled_counts_and_ends(server: RemoteServer, until: Until) -> None:
    server.routes["/api/chat"] = [NDJSON, ollama_line("a"), "stay"]
    async with running(server) as (engine, registry):
        deltas = engine.chat(REQUEST)
        assert [(await anext(deltas)).text for _ in range(2)] == ["", "a"]
        await deltas.aclose()
        assert registry.get_sample_value(RUNS) == 1
        await engine.close()
        await until(lambda: server.open == 0)
