"""What /metrics tells of a board: on rkllama, on a node that drives the NPU, and on one that has it elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from board_tree import NPU_LOAD, put, running_rk3588
from npu_board import SimBoard

from rkllama_support import serve
from support import Node, StartNode, wait_until

pytestmark = pytest.mark.slow

OF_THE_BOARD = (
    "rkllm_npu_load_ratio",
    "rkllm_npu_frequency_hertz",
    "rkllm_npu_frequency_max_hertz",
    "rkllm_ddr_frequency_hertz",
    "rkllm_temperature_celsius",
    "rkllm_throttled",
    "rkllm_governor_info",
    "rkllm_driver_info",
)
NAMED = ("--inference-engine", "rkllm")


@pytest.fixture
def board(tmp_path: Path) -> SimBoard:
    board = SimBoard(tmp_path)
    board.add_model("m")
    running_rk3588(board.root)
    return board


def told(node: Node) -> dict[str, float]:
    """The samples of the board, by name and labels as they are written."""
    lines = [line for line in node.http.get("/metrics").text.splitlines() if line.startswith(OF_THE_BOARD)]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def wait_for(node: Node, sample: str, value: float) -> dict[str, float]:
    """All of them, as soon as one has a value; on a busy machine a reading may come too late for an answer."""
    found: dict[str, float] = {}

    def has_come() -> bool:
        found.clear()
        found.update(told(node))
        return found.get(sample) == value

    wait_until(has_come, timeout=20, what=f"{sample} {value}")
    return found


def types(node: Node) -> set[str]:
    lines = node.http.get("/metrics").text.splitlines()
    return {line.split()[2] for line in lines if line.startswith("# TYPE ")}


def test_rkllama_and_a_node_on_the_board_tell_of_it(board: SimBoard, tmp_path: Path, start_node: StartNode) -> None:
    load = 'rkllm_npu_load_ratio{core="0"}'
    with serve(board, tmp_path) as rkllama:
        found = wait_for(rkllama, load, 0.63)
        assert {name.partition("{")[0] for name in found} == set(OF_THE_BOARD)
        assert found['rkllm_temperature_celsius{zone="npu-thermal"}'] == 60.076
        assert found['rkllm_governor_info{device="dmc",governor="dmc_ondemand"}'] == 1
        put(board.root, NPU_LOAD, "NPU load:  Core0:  7%, Core1:  0%, Core2:  0%,\n")
        wait_for(rkllama, load, 0.07)
    found = wait_for(start_node(*NAMED, env=board.env), load, 0.07)
    assert found['rkllm_throttled{device="cpufreq-cpu4"}'] == 1
    assert found['rkllm_driver_info{version="0.9.8"}'] == 1


def test_a_node_that_forwards_tells_nothing_of_the_machine_that_it_is_on(
    board: SimBoard, tmp_path: Path, start_node: StartNode
) -> None:
    with serve(board, tmp_path) as rkllama:
        port = rkllama.url.rpartition(":")[2]
        env = {"RKLLM_SERVER_HOST": "127.0.0.1", "RKLLM_SERVER_PORT": port, "RKLLM_ROOT": str(board.root)}
        node = start_node(*NAMED, env=env | {"HOME": str(tmp_path)})
        assert types(node) >= set(OF_THE_BOARD)
        assert told(node) == {}


def test_other_engines_have_no_such_families(board: SimBoard, start_node: StartNode) -> None:
    node = start_node("--inference-engine", "dummy", env=board.env)
    assert not types(node) & set(OF_THE_BOARD)


def test_counters_of_rare_events_are_there_before_the_first_one(board: SimBoard, start_node: StartNode) -> None:
    text = start_node(*NAMED, "--no-preload", env=board.env, ready=False).http.get("/metrics").text
    assert 'rkllm_worker_restarts_total{model="m"} 0.0' in text
    assert 'rkllm_pad_loops_stopped_total{model="m"} 0.0' in text
