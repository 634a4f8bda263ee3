"""Paces, by numbers and by measured profiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from rkllm_facts.benchmark import find
from rkllm_sim.errors import BadOptions, UnknownProfile
from rkllm_sim.model import write_model
from rkllm_sim.pace import pace, profiles


def test_two_numbers() -> None:
    figures = pace("2.95,60")
    assert (figures.prefill_ms, figures.decode_ms) == (2.95, 60)
    assert figures.model_options() == {"prefill_ms": 2.95, "decode_ms": 60}


@pytest.mark.parametrize("text", ["", "1", "1,2,3", "a,b", "-1,2", "1,nan", "1,inf"])
def test_wrong_numbers(text: str) -> None:
    with pytest.raises(BadOptions, match="is no pace"):
        pace(text)


def test_a_profile_is_the_newest_row_of_the_table() -> None:
    (row,) = find(platform="rk3588", model="Qwen3", params="0.6B", dtype="w8a8", sdk_version="1.3.0")
    figures = pace("RK3588:Qwen3-0.6B")
    assert (figures.prefill_ms, figures.decode_ms) == (row.ms_per_prompt_token, row.ms_per_token)
    assert figures.source == "rk3588:qwen3-0.6b:w8a8:1.3.0"
    assert figures.memory_mb == row.memory_mb


def test_dtype_and_sdk_can_be_said() -> None:
    assert pace("rk3576:qwen2-0.5b:w8a8:1.2.3").source == "rk3576:qwen2-0.5b:w8a8:1.2.3"
    assert pace("rk3576:qwen2-0.5b:w4a16_g128").dtype == "w4a16_g128"
    assert pace("rk3576:gemma3n-2b:w4a16:1.2.3").prefill_ms == pytest.approx(3187 / 128)


def test_the_pace_that_servers_are_compared_with() -> None:
    figures = pace("rk3588:qwen2.5-1.5b")
    assert (figures.prefill_ms, figures.decode_ms) == (2.95, 60)


def test_a_model_that_was_not_measured_is_planned() -> None:
    figures = pace("RK3588:Qwen2.5-7B")
    assert figures.source == "rk3588:qwen2.5-7b:w8a8:planned"
    assert figures.decode_ms == pytest.approx(1000 / 4.18, rel=0.05)  # as MiniCPM-V 2.6, which has this text model
    assert 8 < figures.prefill_ms < 12
    assert figures.model_options()["memory_mb"] == pytest.approx(6950, rel=0.02)
    assert pace(figures.source) == figures
    assert pace("rk3576:qwen2.5-3b").dtype == "w4a16"
    assert pace("rk3576:qwen2.5-3b:w8a8").decode_ms > pace("rk3576:qwen2.5-3b").decode_ms


def test_a_measured_model_is_planned_on_request_only() -> None:
    planned, measured = pace("rk3588:qwen3-0.6b:w8a8:planned"), pace("rk3588:qwen3-0.6b")
    assert (planned.source, measured.source) == ("rk3588:qwen3-0.6b:w8a8:planned", "rk3588:qwen3-0.6b:w8a8:1.3.0")
    assert planned.decode_ms == pytest.approx(measured.decode_ms, rel=0.1)


@pytest.mark.parametrize(
    "text",
    [
        "rk3588:qwen3-7b",
        "rk3588:qwen2.5-7b:w4a16",
        "rk3399:qwen2.5-7b",
        "rk3588:qwen2.5-7b:w8a8:1.3.0",
        "rk3588:qwen3-0.6b:w4a16",
        "rk3588:qwen3-0.6b:w8a8:1.0.0",
        "rk3588:",
        "a:b:c:d:e",
    ],
)
def test_an_unknown_profile_lists_near_ones(text: str) -> None:
    with pytest.raises(UnknownProfile, match=r"Near ones: rk\d+:.*`rkllm-sim profiles`"):
        pace(text)


def test_a_type_that_the_chip_does_not_run_comes_with_the_legal_ones() -> None:
    with pytest.raises(UnknownProfile, match=r"RK3588 does not run .*'w4a16'.*w8a8, w8a8_g128.*RK3576"):
        pace("rk3588:qwen2.5-7b:w4a16")


@pytest.mark.parametrize("model", ["qwen3-0.6b", "qwen2.5-1.5b", "qwen2.5-7b"])
def test_the_chip_with_fewer_interfaces_is_as_fast(model: str) -> None:
    assert pace(f"RK3588S:{model}") == pace(f"rk3588:{model}")


def test_near_ones_are_near() -> None:
    with pytest.raises(UnknownProfile, match=r"Near ones: .*rk3588:qwen3-0\.6b"):
        pace("rk3588:qwen3-0.6")


def test_every_profile_can_be_asked_for_by_its_name_and_makes_a_model(tmp_path: Path) -> None:
    assert len(profiles()) > 90
    for one in profiles():
        assert pace(one.source) == one
    write_model(tmp_path / "tiny", **pace("rk3576:qwen2-0.5b").model_options())
    text = (tmp_path / "tiny" / "tiny.rkllm").read_text(encoding="utf-8")
    assert "\nplatform rk3576\n" in text
    assert "\ndtype w4a16\n" in text
