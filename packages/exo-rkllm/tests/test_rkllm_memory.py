from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exo.types import InsufficientMemory
from exo_rkllm.memory import (
    MIB,
    KvGeometry,
    available,
    choose_evictions,
    geometry_of,
    needed,
    planned,
    read_architecture,
    read_geometry,
    refusal,
)
from exo_rkllm.models import NPU_CARDS, NpuCard
from rkllm_facts.architecture import known_architecture, known_model
from rkllm_facts.benchmark import find
from rkllm_facts.planner import calibration, plan

DOUBT = calibration().memory_doubt
QWEN = KvGeometry(layers=28, kv_heads=2, head_dim=128)
QWEN_CONFIG = {"num_hidden_layers": 28, "num_key_value_heads": 2, "num_attention_heads": 12, "hidden_size": 1536}
PHI_CONFIG = {"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 3072}
IDLE = [("old", 300, 1.0), ("new", 900, 9.0), ("middle", 500, 5.0)]


def test_the_parts_of_the_need() -> None:
    need = needed(1000 * MIB, QWEN, 4096)
    assert (need.weights, need.kv, need.margin) == (1000 * MIB, 112 * MIB, 178 * MIB)
    assert need.total == 1290 * MIB


def test_a_known_model_needs_what_is_planned() -> None:
    model = known_architecture("Qwen2.5-7B")
    expected = plan(model, platform="rk3588", dtype="w8a8", context=2048)
    need = planned(round(expected.file_mb * MIB), model, 2048)
    assert need is not None
    assert need.total == pytest.approx((expected.memory_mb * (1 + DOUBT) + 30) * MIB, rel=1e-6)
    assert need.weights == pytest.approx(model.weight_values, rel=1e-6)
    assert need.kv == NPU_CARDS["qwen2.5-7b-rkllm"].kv.bytes_per_position * 2048


def test_a_file_of_another_model_is_not_planned() -> None:
    assert planned(1000 * MIB, known_architecture("Qwen2.5-7B"), 2048) is None


@pytest.mark.parametrize("card", NPU_CARDS.values(), ids=NPU_CARDS)
def test_the_cards_say_what_the_known_architectures_say(card: NpuCard) -> None:
    assert known_architecture(card.tokenizer).kv_values * 2 == card.kv.bytes_per_position


def test_an_unknown_geometry_counts_nothing() -> None:
    assert needed(1000 * MIB, None, 4096).kv == 0


def test_rockchips_measurements_stay_below() -> None:
    """Their memory is the peak of a run with a short prompt; a W8A8 file has at least one byte for each parameter."""
    measured = [row.memory_mb for row in find(platform="RK3588", model="Phi3", dtype="w8a8")]
    assert measured
    need = needed(3_821_079_552, NPU_CARDS["phi-3-mini-rkllm"].kv, 256)
    assert all(memory is not None and memory * 1e6 < need.total for memory in measured)


@pytest.mark.parametrize(
    ("text", "free"),
    [
        ("MemTotal: 8 kB\nMemFree: 2 kB\nMemAvailable:    7340032 kB\nBuffers: 1 kB\n", 7168 * MIB),
        ("MemTotal:        8 kB\nMemFree:         2 kB\n", None),
        ("MemAvailable: many kB\n", None),
        ("", None),
    ],
)
def test_free_memory_is_what_the_kernel_says(tmp_path: Path, text: str, free: int | None) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(text)
    assert available(tmp_path) == free


def test_free_memory_may_be_unknown(tmp_path: Path) -> None:
    assert available(tmp_path) is None


@pytest.mark.parametrize(
    ("need", "free", "chosen"),
    [
        (1000, 1000, []),
        (1001, 1000, ["old"]),
        (1301, 1000, ["old", "middle"]),
        (2700, 1000, ["old", "middle", "new"]),
        (2701, 1000, None),
    ],
)
def test_the_least_recently_used_go_first(need: int, free: int, chosen: list[str] | None) -> None:
    assert choose_evictions(need, free, IDLE) == chosen


def test_some_may_have_to_go_in_any_case() -> None:
    assert choose_evictions(0, 0, IDLE, least=1) == ["old"]
    assert choose_evictions(0, 0, IDLE[:1], [("busy", 9, 0.0)], least=2) == ["old", "busy"]
    assert choose_evictions(1301, 1000, IDLE, least=1) == ["old", "middle"]
    assert choose_evictions(2701, 1000, IDLE, least=1) is None


def test_without_idle_models_there_is_nothing_to_choose() -> None:
    assert choose_evictions(2, 1, []) is None
    assert choose_evictions(1, 1, []) == []


@settings(max_examples=200, deadline=None, database=None)
@given(
    need=st.integers(0, 5000),
    free=st.integers(0, 2000),
    idle=st.lists(st.tuples(st.text(max_size=3), st.integers(0, 1000), st.floats(0, 10)), max_size=6),
)
def test_no_more_go_than_have_to(need: int, free: int, idle: Sequence[tuple[str, int, float]]) -> None:
    chosen = choose_evictions(need, free, idle)
    order = sorted(idle, key=lambda one: one[2])
    if chosen is None:
        assert free + sum(size for _, size, _ in idle) < need
        return
    sizes = [size for _, size, _ in order[: len(chosen)]]
    assert chosen == [name for name, _, _ in order[: len(chosen)]]
    assert free + sum(sizes) >= need
    assert not chosen or free + sum(sizes[:-1]) < need


def test_the_refusal_has_the_numbers() -> None:
    error = refusal("qwen", needed(1000 * MIB, QWEN, 4096), 600 * MIB, [("old", 300 * MIB, 1.0)])
    assert isinstance(error, InsufficientMemory)
    assert (error.needed, error.available) == (1290 * MIB, 600 * MIB)
    for part in ("qwen", "1290 MiB", "1000 MiB", "112 MiB", "178 MiB", "600 MiB", "300 MiB more", "NUM_CTX"):
        assert part in error.message
    assert "idle" not in refusal("qwen", needed(1, None, 1), 0).message


@pytest.mark.parametrize(
    ("config", "geometry"),
    [
        (QWEN_CONFIG, QWEN),
        ({**QWEN_CONFIG, "head_dim": 64}, KvGeometry(28, 2, 64)),
        (PHI_CONFIG, KvGeometry(32, 32, 96)),
        ({**QWEN_CONFIG, "head_dim": None}, QWEN),
        ({}, None),
        ({**QWEN_CONFIG, "num_hidden_layers": "28"}, None),
        ({**QWEN_CONFIG, "num_hidden_layers": True}, None),
        ({**QWEN_CONFIG, "num_hidden_layers": -28}, None),
        ({**QWEN_CONFIG, "num_hidden_layers": 10**12}, None),
        ({**QWEN_CONFIG, "hidden_size": 8}, None),
    ],
)
def test_the_geometry_of_a_configuration(config: dict[str, object], geometry: KvGeometry | None) -> None:
    assert geometry_of(config) == geometry


def test_the_cards_say_what_the_makers_configurations_say() -> None:
    assert geometry_of(QWEN_CONFIG) == NPU_CARDS["qwen2.5-1.5b-rkllm"].kv
    assert geometry_of(PHI_CONFIG) == NPU_CARDS["phi-3-mini-rkllm"].kv


def test_the_geometry_is_read_from_the_folder(tmp_path: Path) -> None:
    assert read_geometry(tmp_path) is None
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": {}, "text_config": QWEN_CONFIG}))
    assert read_geometry(tmp_path) == QWEN


def test_the_architecture_is_read_from_the_folder(tmp_path: Path) -> None:
    assert read_architecture(tmp_path) is None
    (tmp_path / "config.json").write_text(json.dumps(QWEN_CONFIG))  # of too little for it
    assert read_architecture(tmp_path) is None
    known = known_model("Qwen2.5-1.5B")
    (tmp_path / "config.json").write_text(json.dumps(dict(known.config)))
    assert read_architecture(tmp_path) == known.architecture
    (tmp_path / "config.json").write_text(json.dumps({**known.config, "model_type": "new_family"}))
    assert read_architecture(tmp_path) is None


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff", b"[" * 100_000, b'{"num_hidden_layers": 1e999}'])
def test_a_configuration_that_is_none_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    assert read_geometry(tmp_path) is None
    assert read_architecture(tmp_path) is None
