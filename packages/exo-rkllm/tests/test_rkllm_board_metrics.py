from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest
from board_tree import NPU_LOAD, put, running_rk3588
from npu_board import SimBoard
from npu_engine import running
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from exo_rkllm.board_metrics import BoardCollector, LatestTelemetry, families
from exo_rkllm.metrics import NpuMetrics
from exo_rkllm.telemetry import Telemetry, read_telemetry

PATIENT = 30.0
"""Seconds that a test waits for a thread that does not hang."""


def samples(told: Telemetry) -> dict[tuple[str, ...], float]:
    """By name and values of the labels, after a turn through the text format."""
    registry = CollectorRegistry()
    registry.register(BoardCollector(lambda: told))
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def test_what_is_known_has_a_sample(tmp_path: Path) -> None:
    found = samples(read_telemetry(running_rk3588(tmp_path)))
    assert len(found) == 3 + 3 + 5 + 3 + 5 + 1
    assert found["rkllm_npu_load_ratio", "0"] == 0.63
    assert found["rkllm_npu_load_ratio", "2"] == 0
    assert found[("rkllm_npu_frequency_hertz",)] == 1e9
    assert found[("rkllm_npu_frequency_max_hertz",)] == 1e9
    assert found[("rkllm_ddr_frequency_hertz",)] == 2.112e9
    assert found["rkllm_temperature_celsius", "npu-thermal"] == 60.076
    assert found["rkllm_throttled", "cpufreq-cpu4"] == 1
    assert found["rkllm_throttled", "cpufreq-cpu0"] == 0
    assert found["rkllm_governor_info", "npu", "rknpu_ondemand"] == 1
    assert found["rkllm_driver_info", "0.9.8"] == 1


def test_what_is_not_known_has_none() -> None:
    assert samples(Telemetry()) == {}
    assert samples(Telemetry(npu_frequency=0)) == {("rkllm_npu_frequency_hertz",): 0}


def test_a_name_with_quotes_keeps_the_text_readable() -> None:
    name = 'a"b\\c d'
    assert samples(Telemetry(temperatures={name: 1.5})) == {("rkllm_temperature_celsius", name): 1.5}


def test_registering_and_describing_reads_nothing() -> None:
    def refuse() -> Telemetry:
        raise AssertionError

    registry = CollectorRegistry()
    registry.register(BoardCollector(refuse))
    assert [family.name for family in BoardCollector(refuse).describe()] == [
        family.name for family in families(Telemetry())
    ]


class Board:
    """Readings that are numbered by their frequency. While `free` is not set they hang."""

    def __init__(self) -> None:
        self.now = 100.0
        self.readings = 0
        self.free = threading.Event()
        self.free.set()

    def read(self) -> Telemetry:
        self.readings += 1
        found = Telemetry(npu_frequency=self.readings)
        assert self.free.wait(PATIENT)
        return found

    def latest(self, limit: float = PATIENT) -> LatestTelemetry:
        return LatestTelemetry(self.read, limit=limit, clock=lambda: self.now)


def test_the_board_is_read_once_a_second_at_most() -> None:
    board = Board()
    latest = board.latest()
    assert [latest().npu_frequency, latest().npu_frequency] == [1, 1]
    board.now += 0.9
    assert latest().npu_frequency == 1
    board.now += 0.2
    assert [latest().npu_frequency, latest().npu_frequency] == [2, 2]


def test_a_reading_that_hangs_is_waited_for_once_and_never_doubled() -> None:
    board = Board()
    board.free.clear()
    latest = board.latest(limit=0.01)
    assert latest() == Telemetry()
    board.now += 60
    assert [latest(), latest()] == [Telemetry(), Telemetry()]
    assert board.readings == 1
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "board-telemetry"]
    assert thread.daemon, "a node with a driver that hangs has to end"
    board.free.set()
    thread.join(PATIENT)
    latest._limit = PATIENT
    assert latest().npu_frequency == 2, "what a reading has found that ended long after is not shown"


def test_a_reading_that_fails_costs_the_other_metrics_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Telemetry:
        raise ZeroDivisionError

    latest = LatestTelemetry(fail, limit=PATIENT)
    with caplog.at_level(logging.ERROR):
        assert latest() == Telemetry()
    assert "ZeroDivisionError" in caplog.text


def test_without_a_thread_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    board = Board()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        told = board.latest()()
    assert told == Telemetry()


def test_the_metrics_of_another_machines_npu_have_no_board(tmp_path: Path) -> None:
    running_rk3588(tmp_path)
    registry = CollectorRegistry()
    NpuMetrics(registry)
    assert "# TYPE rkllm_npu_load_ratio gauge" in generate_latest(registry).decode()
    assert registry.get_sample_value("rkllm_npu_load_ratio", {"core": "0"}) is None


async def test_the_engine_tells_of_the_board_below_its_root(tmp_path: Path) -> None:
    board = SimBoard(tmp_path)
    running_rk3588(board.root)
    async with running(board) as engine:
        engine.metrics.board._latest._limit = PATIENT  # type: ignore[union-attr]  # a busy machine may be slow
        told = {
            sample.labels["core"]: sample.value
            for family in engine.context.registry.collect()
            for sample in family.samples
            if sample.name == "rkllm_npu_load_ratio"
        }
        assert told == {"0": 0.63, "1": 0.05, "2": 0}


async def test_a_listed_model_has_its_counters_of_rare_events(tmp_path: Path) -> None:
    board = SimBoard(tmp_path)
    put(board.root, NPU_LOAD, "")
    for name in ("first", "second"):
        board.add_model(name)
    async with running(board) as engine:
        await engine.models()
        for counter in ("rkllm_worker_restarts_total", "rkllm_pad_loops_stopped_total"):
            for name in ("first", "second"):
                assert engine.context.registry.get_sample_value(counter, {"model": name}) == 0
        assert engine.loaded() == []
        engine.metrics.pad_loops.labels("first").inc()
        await engine.models()
        assert engine.context.registry.get_sample_value("rkllm_pad_loops_stopped_total", {"model": "first"}) == 1
