"""Hundreds of faults of the simulated runtime, one after the other: nothing is left over, and others do not notice."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import psutil
import pytest
from npu_board import SimBoard

from support import StartNode

pytestmark = pytest.mark.slow

FAULTS = [
    "segv_at=2",
    "error_at=2",
    "kill_at=0",
    "run_fails",
    "exit_at=3",
    "hang_at=2",
    "text_null_at=1",
    "pad_endless_at=2",
]
ROUNDS = 200
CODES = {"engine_worker_died", "engine_run_failed", "engine_run_timed_out", "engine_endless_padding"}


def test_two_hundred_faults_leave_nothing_behind(tmp_path: Path, start_node: StartNode) -> None:
    board = SimBoard(tmp_path)
    board.add_model("m")
    limits = {"RKLLM_RUN_TIMEOUT": "0.3", "RKLLM_RUN_TIMEOUT_PER_TOKEN": "0", "RKLLM_PAD_LIMIT": "64"}
    node = start_node("--inference-engine", "rkllm", env=board.env | limits)
    process = psutil.Process(node.pid)
    good = node.chat("Hello").json()["choices"][0]["message"]["content"]
    before = (process.num_fds(), process.num_threads())
    seen = set()
    for fault in itertools.islice(itertools.cycle(FAULTS), ROUNDS):
        board.set_faults(fault)
        response = node.chat("Hello")
        if response.status_code != 200:
            seen.add(response.json()["error"]["code"])
        board.set_faults()
        response = node.chat("Hello")
        assert response.status_code == 200, (fault, response.text)
        assert response.json()["choices"][0]["message"]["content"] == good
    assert seen == CODES
    fds, threads = process.num_fds(), process.num_threads()
    assert fds <= before[0]
    assert threads <= before[1] + 4, "a few threads of the pool may have been added"
    assert len(process.children(recursive=True)) == 1
    assert all(child.status() != psutil.STATUS_ZOMBIE for child in process.children())


def test_other_streams_do_not_notice_a_death(tmp_path: Path, start_node: StartNode) -> None:
    """Two models with a slot each: one dies again and again while the other one answers."""
    board = SimBoard(tmp_path)
    board.add_model("steady", answer=(150, 150), decode_ms=10)
    board.add_model("weak", faults=("segv_at=3",))
    node = start_node("--inference-engine", "rkllm", "--default-model", "steady", env={**board.env, "RKLLM_SLOTS": "2"})
    alone = node.chat("Tell me", model="steady").json()
    together: list[object] = []
    steady = threading.Thread(target=lambda: together.append(node.chat("Tell me", model="steady").json()))
    steady.start()
    deaths = 0
    while steady.is_alive():
        response = node.chat("Hi", model="weak")
        assert response.json()["error"]["code"] == "engine_worker_died"
        deaths += 1
    steady.join()
    assert deaths > 1
    (answer,) = together
    assert isinstance(answer, dict)
    assert answer["choices"] == alone["choices"]
    runs = [run for run in board.runs() if run.get("generated") == 150]
    longest = max((run["t"] - run["t_first"]) for run in runs)
    shortest = min((run["t"] - run["t_first"]) for run in runs)
    assert longest < 2 * shortest
