"""The server `rkllama serve`: its settings, which models are in memory when, and its end."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from npu_board import NEWEST, SimBoard

from rkllama_support import (
    MODEL_MIB,
    Rkllama,
    command,
    destroyed,
    is_running,
    loads,
    model_of,
    one_sentence,
    serve,
    set_free,
)
from support import RKLLAMA, Node, wait_until

pytestmark = pytest.mark.slow

LONG: dict[str, Any] = {"answer": (2000, 2000), "decode_ms": 10}


@pytest.fixture
def board(tmp_path: Path) -> SimBoard:
    return SimBoard(tmp_path / "board")


@contextlib.contextmanager
def running(board: SimBoard, folder: Path, *flags: str, **env: Any) -> Iterator[Rkllama]:
    with serve(board, folder, *flags, **env) as node:
        yield Rkllama(board, node)


@contextlib.contextmanager
def streaming(rkllama: Rkllama, model: str) -> Iterator[Iterator[str]]:
    """An answer of /api/chat whose first line has come; its end is not waited for."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    with rkllama.http.stream("POST", "/api/chat", json=body) as response:
        assert response.status_code == 200
        lines = response.iter_lines()
        next(lines)
        yield lines  # whoever drops them closes the connection


def pid_of(board: SimBoard, model: str) -> int:
    """The process that has loaded a model last."""
    return [int(call["pid"]) for call in loads(board) if model_of(call) == model][-1]


# --- settings ---


def test_without_a_library_it_does_not_start(board: SimBoard) -> None:
    missing = command(board, "serve", "--port", "0", RKLLM_LIB="/nowhere/librkllmrt.so", RKLLM_SERVER_HOST="127.0.0.1")
    assert "/nowhere/librkllmrt.so" in one_sentence(missing)
    assert "librkllmrt.so" in one_sentence(command(board, "serve", "--port", "0", RKLLM_LIB=""))
    no_library = board.home / "librkllmrt.so"
    no_library.write_text("no library")
    assert str(no_library) in one_sentence(command(board, "serve", "--port", "0", RKLLM_LIB=str(no_library)))


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (["--target_platform", "rk9999"], {}, "rk9999"),
        (["--target-platform", "rk9999"], {}, "rk9999"),
        (["--port", "70000"], {}, "--port"),
        ([], {"RKLLAMA_PORT": "many"}, "RKLLAMA_PORT"),
        ([], {"RKLLAMA_QUEUE_LIMIT": "many"}, "RKLLAMA_QUEUE_LIMIT"),
        ([], {"RKLLM_SLOTS": "0"}, "RKLLM_SLOTS"),
        (["--host", "0.0.0.0", "--port", "0"], {}, "RKLLAMA_API_KEYS or RKLLAMA_API_KEYS_FILE (--api-keys-file)"),
        ([], {"RKLLAMA_API_KEYS": ","}, "there is none"),
    ],
)
def test_a_mistake_is_one_sentence(board: SimBoard, arguments: list[str], env: dict[str, str], said: str) -> None:
    assert said in one_sentence(command(board, "serve", *arguments, **env))


def test_the_port_comes_from_a_variable_too(board: SimBoard) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert port in one_sentence(command(board, "serve", RKLLAMA_PORT=port))


@pytest.mark.parametrize("flag", ["--target_platform", "--target-platform"])
def test_the_platform_and_the_folder_of_the_models(board: SimBoard, tmp_path: Path, flag: str) -> None:
    board.add_model("made-for-rk3588")
    folder = tmp_path / "elsewhere"
    board.store.rename(folder)
    with running(board, tmp_path, flag, "rk3576", "--models", str(folder)) as rkllama:
        assert f"serves the models of {folder} on " in rkllama.node.log
        assert rkllama.answer("made-for-rk3588")
        wait_until(lambda: "made for rk3588" in rkllama.node.log, timeout=5, what="the warning in the log")
        assert "this is rk3576" in rkllama.node.log


def test_home_tilde_and_no_other_server(board: SimBoard, tmp_path: Path) -> None:
    board.add_model("m")
    board.home.rename(board.home.with_name("RKLLAMA"))
    no_home = {name: value for name, value in board.env.items() if name != "RKLLAMA_HOME"}
    env = no_home | {"RKLLM_SERVER_HOST": "127.0.0.1", "RKLLM_SERVER_PORT": "many"}  # not even read
    with Node(folder=tmp_path, env=env, command=(RKLLAMA, "serve")) as node:
        assert f"serves the models of {tmp_path / 'board' / 'RKLLAMA' / 'models'} on " in node.log
        assert Rkllama(board, node).answer("m")


def test_an_empty_store_says_what_to_do(board: SimBoard, tmp_path: Path) -> None:
    with serve(board, tmp_path, ready=False) as node:
        wait_until(lambda: "rkllama pull" in node.log, timeout=5, what="the greeting")
        assert node.http.get("/ready").status_code == 503
        assert node.http.get("/api/tags").json() == {"models": []}
        board.add_model("late")
        assert Rkllama(board, node).answer("late")
        node.wait_until_ready()


# --- which models are in memory ---


def test_models_load_on_demand_or_as_the_default_one(board: SimBoard, tmp_path: Path) -> None:
    board.add_model("a")
    board.add_model("b")
    with running(board, tmp_path) as rkllama:
        assert (rkllama.loaded(), board.calls("rkllm_init")) == ([], [])
        assert rkllama.answer("b")
        assert rkllama.loaded() == ["b"]
    with running(board, tmp_path, "--default-model", "b") as rkllama:  # ready means that it is loaded
        assert rkllama.loaded() == ["b"]
        assert [model_of(call) for call in loads(board)] == ["b", "b"]
        messages = [{"role": "user", "content": "Hello"}]
        found = rkllama.http.post("/v1/chat/completions", json={"messages": messages}).json()
        assert found["choices"][0]["message"]["content"] == rkllama.answer("b")


@pytest.mark.parametrize("abi", ["1.1.4", NEWEST])
def test_two_models_run_at_once_in_two_workers(tmp_path: Path, abi: str) -> None:
    board = SimBoard(tmp_path / "board", abi)
    board.add_model("a", **LONG)
    board.add_model("b", **LONG)
    with running(board, tmp_path, RKLLM_SLOTS="2") as rkllama, streaming(rkllama, "a"), streaming(rkllama, "b"):
        under_way = [run for run in board.runs() if run["event"] == "enter"]
        assert {run["pid"] for run in under_way} == {worker.pid for worker in rkllama.workers()}
        assert len(under_way) == 2
        domains = sorted(call.get("base_domain_id", 0) for call in loads(board))
        assert domains == ([0, 0] if abi == "1.1.4" else [0, 1])
        assert sorted(rkllama.loaded()) == ["a", "b"]


def test_one_slot_means_one_run(board: SimBoard, tmp_path: Path) -> None:
    board.add_model("a", **LONG)
    board.add_model("b")
    with running(board, tmp_path, "--queue-limit", "0") as rkllama, streaming(rkllama, "a"):
        refused = rkllama.chat("b")
        assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
        assert "retry-after" in refused.headers


def test_keep_alive_of_the_server_and_of_a_request(board: SimBoard, tmp_path: Path) -> None:
    for name in ("short", "ever", "none", "own"):
        board.add_model(name)
    with running(board, tmp_path, RKLLM_KEEP_ALIVE="300ms") as rkllama:
        rkllama.answer("ever", keep_alive=-1)
        rkllama.answer("own", keep_alive="1h")
        rkllama.answer("none", keep_alive=0)
        rkllama.answer("short")
        rkllama.wait_for_loaded("ever", "own")
        gone = {pid_of(board, "short"), pid_of(board, "none")}
        board.wait_for(lambda: destroyed(board) == gone)
        assert int(rkllama.expiry("ever")[:4]) > int(rkllama.expiry("own")[:4]) + 100
        rkllama.answer("own")  # of several requests the last one says how long
        rkllama.wait_for_loaded("ever")
        unload = {"model": "ever", "keep_alive": 0, "stream": False}
        assert rkllama.http.post("/api/generate", json=unload).json()["done_reason"] == "unload"
        assert rkllama.loaded() == []
        wait_until(lambda: rkllama.workers() == [], timeout=10, what="no worker left")


def test_no_more_models_than_max_models(board: SimBoard, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        board.add_model(name)
    with running(board, tmp_path, RKLLM_MAX_MODELS="2") as rkllama:
        for name in ("a", "b", "a", "c"):
            rkllama.answer(name)
        assert rkllama.loaded() == ["c", "a"]
        assert destroyed(board) == {pid_of(board, "b")}


def test_short_memory_evicts_the_model_that_was_used_least_recently(board: SimBoard, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        board.add_model(name)
    set_free(board, 4 * MODEL_MIB)
    with running(board, tmp_path) as rkllama:
        for name in ("a", "b", "a"):
            rkllama.answer(name)
        set_free(board, MODEL_MIB // 2)
        rkllama.answer("c")
        assert rkllama.loaded() == ["c", "a"]
        assert destroyed(board) == {pid_of(board, "b")}


def test_what_cannot_fit_is_refused_with_the_numbers(board: SimBoard, tmp_path: Path) -> None:
    board.add_model("a")
    set_free(board, 10)
    with running(board, tmp_path) as rkllama:
        refused = rkllama.chat("a")
        assert (refused.status_code, refused.json()["code"]) == (503, "insufficient_memory")
        assert f"{MODEL_MIB} MiB" in refused.json()["error"]
        assert "only 10 MiB" in refused.json()["error"]
        assert rkllama.node.chat("Hello", model="a").json()["error"]["code"] == "insufficient_memory"
        assert board.calls("rkllm_init") == []
        set_free(board, MODEL_MIB)
        assert rkllama.answer("a")
    with running(board, tmp_path, RKLLM_MEMORY_CHECK="no") as rkllama:
        set_free(board, 10)
        assert rkllama.answer("a")


def test_a_load_that_hangs_is_ended(board: SimBoard, tmp_path: Path) -> None:
    board.add_model("a")
    board.set_faults("load_ms=600000")
    with running(board, tmp_path, RKLLM_LOAD_TIMEOUT="0.5", RKLLM_LOAD_RATE="1") as rkllama:
        refused = rkllama.chat("a")
        assert (refused.status_code, refused.json()["code"]) == (503, "model_load_failed")
        allowed = 0.5 + (board.store / "a/a.rkllm").stat().st_size / 1e6
        assert f"{allowed:.3g}"[:4] in refused.json()["error"]
        assert rkllama.workers() == []
        board.set_faults()
        assert rkllama.answer("a")


# --- metrics and the end ---


def counted(rkllama: Rkllama) -> dict[tuple[str, str], int]:
    text = rkllama.http.get("/metrics").text
    found = re.findall(r'^rkllm_http_requests_total\{endpoint="(.*)",status="(\d+)"\} (\d+)', text, re.MULTILINE)
    return {(endpoint, status): int(number) for endpoint, status, number in found}


def test_requests_are_counted_by_endpoint_and_status(board: SimBoard, tmp_path: Path) -> None:
    board.add_model("a")
    with running(board, tmp_path) as rkllama:
        rkllama.answer("a")
        rkllama.answer("a")
        rkllama.chat("nobody")
        rkllama.http.get("/models")
        rkllama.http.get("/current_model")
        rkllama.http.get("/nowhere/a")
        rkllama.http.get("/nowhere/b")
        found = counted(rkllama)
        assert "# HELP rkllm_http_requests_total" in rkllama.http.get("/metrics").text
    expected = {
        ("/api/chat", "200"): 2,
        ("/api/chat", "404"): 1,
        ("/models", "200"): 1,
        ("/current_model", "200"): 1,
        ("other", "404"): 2,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert not any("nowhere" in endpoint for endpoint, _ in found)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_all_its_workers(board: SimBoard, tmp_path: Path, sent: signal.Signals) -> None:
    board.add_model("a")
    board.add_model("long", **LONG)
    with running(board, tmp_path, "--grace", "0") as rkllama:
        rkllama.answer("a")
        with streaming(rkllama, "long"):
            left = rkllama.workers()
            assert len(left) == 2
            psutil.Process(rkllama.node.pid).send_signal(sent)
            wait_until(lambda: not rkllama.node.is_running, timeout=20, what="the end of the server")
        assert rkllama.node.exit_code == 0
        assert "Traceback" not in rkllama.node.log
        wait_until(lambda: not any(map(is_running, left)), timeout=5, what="the end of the workers")


def test_a_signal_during_a_load_ends_it(board: SimBoard, tmp_path: Path) -> None:
    board.add_model("a")
    board.set_faults("load_ms=600000")
    with running(board, tmp_path, "--grace", "0") as rkllama:
        with (
            httpx2.Client(base_url=rkllama.node.url, trust_env=False) as other,
            contextlib.suppress(httpx2.ReadTimeout),
        ):
            other.post("/api/generate", json={"model": "a"}, timeout=0.5)
        wait_until(lambda: len(rkllama.workers()) == 1, timeout=10, what="a worker")
        (worker,) = rkllama.workers()
        assert rkllama.node.stop() == 0
        wait_until(lambda: not is_running(worker), timeout=5, what="the end of the worker")


def test_keys_are_asked_for_everywhere_but_for_the_checks(board: SimBoard, tmp_path: Path) -> None:
    board.add_model("a")
    with running(board, tmp_path, RKLLAMA_API_KEYS="sesame") as rkllama:
        asked: dict[str, Any] = {path: rkllama.http.get(path).status_code for path in ("/", "/models", "/api/tags")}
        assert set(asked.values()) == {401}
        assert rkllama.http.post("/load_model", json={"model_name": "a"}).json()["code"] == "invalid_api_key"
        assert rkllama.http.get("/healthcheck").status_code == 200
        assert rkllama.http.get("/models", headers={"authorization": "Bearer sesame"}).json() == {"models": ["a"]}
