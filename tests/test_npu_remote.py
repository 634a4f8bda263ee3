"""Two processes on one machine: rkllama on the simulator, and a node that uses it in place of an NPU."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from npu_board import SimBoard

from npu_support import error_of, events, joined, text_of
from rkllama_support import serve
from support import REPOSITORY, Node, NodeFailed, fenced_blocks, run_well, wait_until

pytestmark = pytest.mark.slow
THINKING = 'text "<think>Hm, let me see.</think>The answer is 4."\n'
ASKED = [{"role": "user", "content": "Hello"}]


class Pair:
    """rkllama on a port of its own, which it gets again after a restart, and the node in front of it."""

    def __init__(self, board: SimBoard, folder: Path) -> None:
        self.board = board
        self._folder = folder
        self.rkllama = serve(board, folder / "rkllama")
        self.port = self.rkllama.url.rpartition(":")[2]
        env = {"RKLLM_SERVER_HOST": "127.0.0.1", "RKLLM_SERVER_PORT": self.port, "HOME": str(folder)}
        self.node = Node("--inference-engine", "rkllm", "--default-model", "hash", folder=folder / "exo", env=env)

    def restart(self) -> None:
        self.rkllama.end()
        self.rkllama = serve(self.board, self._folder / "rkllama", "--port", self.port)

    def end(self) -> None:
        self.node.end()
        self.rkllama.end()

    def ask(self, **fields: Any) -> httpx2.Response:
        return self.node.http.post("/v1/chat/completions", json={"model": "hash", "messages": ASKED, **fields})

    def metric(self, name: str) -> float:
        lines = self.node.http.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@pytest.fixture
def board(tmp_path: Path) -> SimBoard:
    board = SimBoard(tmp_path / "board")
    board.add_model("hash")
    board.add_model("slow", decode_ms=20, answer=(400, 500))
    board.add_model("think", lm="script", script=THINKING, thinking=True)
    board.add_model("broken", lm="script", script='text "one two"\nerror\n')
    return board


@pytest.fixture
def pair(board: SimBoard, tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(board, tmp_path)
    with contextlib.ExitStack() as ends:
        ends.callback(pair.end)
        yield pair


def test_chats_streams_and_usage_are_those_of_the_board(pair: Pair) -> None:
    assert pair.node.engine == "rkllm"
    direct = pair.rkllama.http.post("/v1/chat/completions", json={"model": "hash", "messages": ASKED}).json()
    through = pair.ask().json()
    assert text_of(through) == text_of(direct)
    assert through["usage"]["prompt_tokens"] == direct["usage"]["prompt_tokens"] == pair.board.runs()[-1]["n_tokens"]
    assert through["usage"]["completion_tokens"] == direct["usage"]["completion_tokens"]
    stream = events(pair.ask(stream=True, stream_options={"include_usage": True}).text)
    assert joined(stream) == text_of(direct)
    assert stream[-1]["usage"]["completion_tokens"] == direct["usage"]["completion_tokens"]
    assert pair.node.http.get("/v1/models").json()["data"][0]["id"] == "hash"
    thought = pair.ask(model="think").json()
    assert (text_of(thought, "reasoning_content"), text_of(thought)) == ("Hm, let me see.", "The answer is 4.")


def test_whole_conversations_are_sent_and_the_boards_cache_is_used(pair: Pair) -> None:
    first = text_of(pair.ask().json())
    talk = [*ASKED, {"role": "assistant", "content": first}, {"role": "user", "content": "And then?"}]
    found = pair.ask(messages=talk).json()
    run = pair.board.runs()[-1]
    assert run["n_tokens"] == found["usage"]["prompt_tokens"]
    assert run["reused"] == found["usage"]["prompt_tokens_details"]["cached_tokens"] > 0


def test_ollamas_dialect_goes_through_too(pair: Pair) -> None:
    body = {"model": "think", "messages": ASKED, "stream": False}
    found = pair.node.http.post("/api/chat", json=body).json()
    assert (found["message"]["thinking"], found["message"]["content"]) == ("Hm, let me see.", "The answer is 4.")
    assert found["eval_count"] > 0
    assert found["eval_duration"] > 0
    assert found["prompt_eval_duration"] > 0
    raw = {"model": "hash", "prompt": "<|im_start|>user\nHi<|im_end|>", "raw": True, "stream": False}
    direct = pair.rkllama.http.post("/api/generate", json=raw).json()["response"]
    tokens = pair.board.runs()[-1]["tokens"]
    assert pair.node.http.post("/api/generate", json=raw).json()["response"] == direct
    assert pair.board.runs()[-1]["tokens"] == tokens, "a raw prompt arrives as it was sent"
    vectors = [
        node.http.post("/api/embed", json={"model": "hash", "input": "x"}).json() for node in (pair.node, pair.rkllama)
    ]
    assert vectors[0]["embeddings"] == vectors[1]["embeddings"]


@pytest.mark.parametrize("stream", [False, True])
def test_the_boards_errors_keep_status_code_and_words(pair: Pair, *, stream: bool) -> None:
    long = [{"role": "user", "content": "word " * 20_000}]
    refused = pair.ask(messages=long, stream=stream)
    assert (refused.status_code, error_of(refused)["code"]) == (400, "context_length_exceeded")
    assert "4096" in error_of(refused)["message"]
    unknown = pair.ask(model="gpt-4", stream=stream)
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "model_not_found")
    seed = pair.ask(min_p=0.5, stream=stream)
    assert (seed.status_code, error_of(seed)["code"]) == (400, "unsupported_parameter")
    broken = pair.ask(model="broken", stream=stream)
    if stream:
        assert broken.status_code == 200
        *_, last = [json.loads(line.removeprefix("data: ")) for line in broken.text.split("\n\n") if line]
        assert last["error"]["code"] == "engine_run_failed"
    else:
        assert (broken.status_code, error_of(broken)["code"]) == (500, "engine_run_failed")
    assert pair.ask().status_code == 200


def test_a_client_that_leaves_stops_the_run_on_the_board(pair: Pair) -> None:
    body = {"model": "slow", "messages": ASKED, "stream": True}
    with pair.node.http.stream("POST", "/v1/chat/completions", json=body) as response:
        next(response.iter_bytes())
    wait_until(lambda: bool(pair.board.runs()[-1].get("aborted")), timeout=10, what="the abort on the board")
    assert pair.board.runs()[-1]["generated"] < 400
    assert pair.ask().status_code == 200


def test_killing_rkllama_in_mid_stream_costs_that_answer_alone(pair: Pair) -> None:
    body = {"model": "slow", "messages": ASKED, "stream": True}
    with pair.node.http.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        while "content" not in next(lines):
            pass
        pair.rkllama.end()
        *_, last = [line for line in lines if line]
    error = json.loads(last.removeprefix("data: "))["error"]
    assert error["code"] == "remote_failed"
    assert f"127.0.0.1:{pair.port}" in error["message"]
    down = pair.ask()
    assert (down.status_code, error_of(down)["code"]) == (503, "remote_unavailable")
    assert pair.port in error_of(down)["message"]
    wait_until(lambda: pair.node.http.get("/ready").status_code == 503, timeout=30, what="the node to see it")
    assert pair.metric("rkllm_server_up") == 0
    pair.restart()
    assert pair.ask().status_code == 200, "the next request works, without a restart of the node"
    wait_until(lambda: pair.node.http.get("/ready").status_code == 200, timeout=60, what="the node to be ready")
    assert pair.metric("rkllm_server_up") == 1
    assert pair.metric('rkllm_http_requests_total{endpoint="/v1/chat/completions",status="200"}') >= 2
    assert pair.metric("rkllm_http_requests_total{endpoint=") > 3


def test_a_crash_of_the_boards_worker_is_told_and_mended_there(pair: Pair) -> None:
    pair.board.set_faults("segv_at=3")
    crashed = pair.ask()
    assert (crashed.status_code, error_of(crashed)["code"]) == (502, "engine_worker_died")
    pair.board.set_faults()
    assert pair.ask().status_code == 200


def test_concurrent_answers_are_not_mixed(pair: Pair) -> None:
    expected = {text: text_of(pair.ask(messages=[{"role": "user", "content": text}]).json()) for text in "abcdef"}
    wrong: list[str] = []

    def ask(text: str) -> None:
        with httpx2.Client(base_url=pair.node.url, trust_env=False, timeout=60) as http:
            for _ in range(5):
                body = {"model": "hash", "messages": [{"role": "user", "content": text}], "stream": True}
                if joined(events(http.post("/v1/chat/completions", json=body).text)) != expected[text]:
                    wrong.append(text)

    threads = [threading.Thread(target=ask, args=(text,)) for text in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_server_that_is_not_there_yet_is_found_when_it_comes(board: SimBoard, tmp_path: Path) -> None:
    with serve(board, tmp_path / "first") as first:
        port = first.url.rpartition(":")[2]
    env = {"RKLLM_SERVER_HOST": "127.0.0.1", "RKLLM_SERVER_PORT": port, "HOME": str(tmp_path)}
    with Node("--inference-engine", "rkllm", folder=tmp_path / "exo", env=env, ready=False) as node:
        early = node.http.post("/v1/chat/completions", json={"model": "hash", "messages": ASKED})
        assert early.status_code == 503
        assert port in error_of(early)["message"]
        with serve(board, tmp_path / "second", "--port", port):
            late = node.http.post("/v1/chat/completions", json={"model": "hash", "messages": ASKED})
            assert late.status_code == 200


def test_the_client_of_the_readme(board: SimBoard, tmp_path: Path) -> None:
    (program,) = fenced_blocks(REPOSITORY / "packages/exo-rkllm/README.md", "python")
    with serve(board, tmp_path) as server:
        port = server.url.rpartition(":")[2]
        asked = [{"role": "user", "content": "Why is the sky blue?"}]
        direct = server.http.post("/api/chat", json={"model": "hash", "messages": asked, "stream": False}).json()
        shown = run_well(sys.executable, "-c", program.replace("8080", port))  # it takes the model that is loaded
        assert shown.strip() == direct["message"]["content"].strip()


def test_without_any_way_the_three_are_named(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    env = {"HOME": str(tmp_path), "RKLLM_ROOT": str(tmp_path / "root")}
    with pytest.raises(NodeFailed) as caught:
        Node("--inference-engine", "rkllm", folder=tmp_path, env=env)
    for word in ("RKLLM_SERVER_HOST", "librkllmrt.so", "localhost:8080"):
        assert word in str(caught.value)
