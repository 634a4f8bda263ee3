"""Ten models, memory for two, and clients that want them all: nothing is lost, nothing stays behind."""

from __future__ import annotations

import collections
import json
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, final

import httpx2
import psutil
import pytest
from npu_board import SimBoard

from rkllama_support import MODEL_MIB, Rkllama, is_running, loads, serve, set_free
from support import wait_until

pytestmark = pytest.mark.slow

MODELS = tuple(f"model-{letter}" for letter in "abcdefghij")
ROOM = 2 * MODEL_MIB + MODEL_MIB // 2
"""MiB: for two models, not for three."""
REQUESTS = 300
CLIENTS = 10
PLACES = 7
"""In the queue: with two that run, one client too many."""
SEED = 20_240_607
MAY_GROW_MIB = 24
"""By how much the server's memory may be above what it was after the warm-up. Ten tokenizers alone would be more than
that if they stayed; what is allowed is for the allocator, and for what the interpreter keeps of its own."""
KNOWN_REFUSALS = {(429, "queue_full"), (503, "insufficient_memory"), (503, "model_load_failed")}


@final
class Memory:
    """Keeps MemAvailable of a simulated board as it would be with the models that are in memory now.

    A model takes its room from the moment its worker lives. `most` is the most workers that were seen at once.
    """

    def __init__(self, board: SimBoard, room_mib: int) -> None:
        self.most = 0
        self._board = board
        self._room = room_mib
        self._server: psutil.Process | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow)
        set_free(board, room_mib)

    def watch(self, server_pid: int) -> None:
        self._server = psutil.Process(server_pid)
        self._thread.start()

    def __enter__(self) -> Memory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        assert self._server is not None
        shown = -1
        while not self._ended.wait(0.002):
            try:
                workers = sum(map(is_running, self._server.children()))
            except psutil.NoSuchProcess:
                return
            self.most = max(self.most, workers)
            if workers != shown:
                shown = workers
                set_free(self._board, max(0, self._room - workers * MODEL_MIB))


def pss_mib(pid: int) -> float:
    """Proportional set size: shared pages count by their share."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


class Client:
    """Sends requests of every dialect to random models, and notes how each one ended."""

    def __init__(self, url: str, seed: int, expected: Callable[[str], str]) -> None:
        self.outcomes: collections.Counter[tuple[int, str]] = collections.Counter()
        self._random = random.Random(seed)
        self._http = httpx2.Client(base_url=url, trust_env=False, timeout=120)
        self._expected = expected

    def run(self, requests: int) -> None:
        with self._http:
            for _ in range(requests):
                self._one(self._random.choice(MODELS))

    def _one(self, model: str) -> None:
        kind = self._random.choice(("api", "v1", "stream", "gone", "earlier"))
        messages = [{"role": "user", "content": "Hello"}]
        body: dict[str, Any] = {"model": model, "messages": messages, "stream": False}
        if kind == "gone":
            self._leave_early({**body, "stream": True})
            return
        if kind == "api" and self._random.random() < 0.2:
            body["keep_alive"] = self._random.choice((0, "1s"))
        path = {"v1": "/v1/chat/completions", "earlier": "/generate"}.get(kind, "/api/chat")
        response = self._http.post(path, json=body | {"stream": kind == "stream"})
        found = response.text if kind == "stream" else response.json()
        if response.status_code != 200:
            error = response.json()["error"]
            code = error["code"] if kind == "v1" else response.json()["code"]
            self.outcomes[response.status_code, code] += 1
            return
        text = _joined(found) if isinstance(found, str) else _text(found)
        assert text == self._expected(model), f"{kind}: the answer of {model} is not its own"
        self.outcomes[200, ""] += 1

    def _leave_early(self, body: dict[str, Any]) -> None:
        with self._http.stream("POST", "/api/chat", json=body) as response:
            lines = response.iter_lines()
            if response.status_code == 200:
                next(lines)
                self.outcomes[200, "left"] += 1
            else:
                response.read()
                self.outcomes[response.status_code, response.json()["code"]] += 1


def _text(found: dict[str, Any]) -> str:
    """The text of a whole answer of any dialect."""
    if "choices" not in found:
        return str(found["message"]["content"])
    choice = found["choices"][0]
    return str(choice.get("message", choice)["content"])


def _joined(stream: str) -> str:
    lines = [json.loads(line) for line in stream.splitlines()]
    assert lines[-1]["done"] is True, lines[-1]
    return "".join(line["message"]["content"] for line in lines)


def test_ten_models_with_memory_for_two(tmp_path: Path) -> None:
    board = SimBoard(tmp_path / "board")
    for number, name in enumerate(MODELS):
        board.add_model(name, seed=number, answer=(8, 24), decode_ms=1)
    with (
        Memory(board, ROOM) as memory,
        serve(board, tmp_path, "--queue-limit", str(PLACES), RKLLM_SLOTS="2", RKLLM_KEEP_ALIVE="2s") as node,
    ):
        memory.watch(node.pid)
        rkllama = Rkllama(board, node)
        own = {name: rkllama.answer(name) for name in MODELS}
        assert len(set(own.values())) == len(MODELS)
        rkllama.wait_for_loaded()
        wait_until(lambda: rkllama.workers() == [], timeout=20, what="no worker after the warm-up")
        before, children, threads = pss_mib(node.pid), rkllama.workers(), psutil.Process(node.pid).num_threads()
        warm = len(loads(board))

        clients = [Client(node.url, SEED + number, own.__getitem__) for number in range(CLIENTS)]
        with ThreadPoolExecutor(CLIENTS) as pool:
            for done in [pool.submit(client.run, REQUESTS // CLIENTS) for client in clients]:
                done.result()

        outcomes = sum((client.outcomes for client in clients), collections.Counter[tuple[int, str]]())
        assert outcomes.total() == REQUESTS
        assert {outcome for outcome in outcomes if outcome[0] != 200} <= KNOWN_REFUSALS, outcomes
        assert outcomes[200, ""] > REQUESTS / 3, outcomes
        assert outcomes[200, "left"] > 0, outcomes
        evictions = node.log.count("unloading ")
        assert len(loads(board)) - warm > len(MODELS), "models were loaded again and again"
        assert evictions > len(MODELS)
        assert memory.most == 2

        rkllama.wait_for_loaded()
        wait_until(lambda: rkllama.workers() == children == [], timeout=20, what="no worker at the end")
        assert psutil.Process(node.pid).num_threads() <= threads + CLIENTS
        assert pss_mib(node.pid) <= before + MAY_GROW_MIB
        assert [call for call in board.calls("rkllm_destroy") if call["ret"] != 0] == []
        assert rkllama.answer(MODELS[0]) == own[MODELS[0]]
        assert "Traceback" not in node.log
        assert node.stop() == 0
