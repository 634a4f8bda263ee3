"""Rockchip's measurements, typed."""

from __future__ import annotations

import pytest

from rkllm_facts import benchmark
from rkllm_facts.benchmark import BenchmarkRow, MultimodalRow


def test_every_row_is_there() -> None:
    rows = benchmark.rows()
    assert len(rows) == 101
    count = {
        (version, platform): len(benchmark.find(sdk_version=version, platform=platform)) for version, platform in PAIRS
    }
    assert count == PAIRS
    assert len({(row.sdk_version, row.platform, row.model, row.params, row.dtype) for row in rows}) == len(rows)


PAIRS = {
    ("1.2.3", "RK3588"): 11,
    ("1.2.3", "RK3576"): 25,
    ("1.2.3", "RK3562"): 3,
    ("1.2.3", "RV1126B"): 6,
    ("1.3.0", "RK3588"): 15,
    ("1.3.0", "RK3576"): 28,
    ("1.3.0", "RK3562"): 4,
    ("1.3.0", "RV1126B"): 9,
}


def test_spot_values() -> None:
    assert benchmark.rows()[0] == BenchmarkRow(
        "1.2.3", "RK3588", "Qwen2", "0.5B", "w8a8", 128, 64, 143.83, 42.58, 654.26
    )
    assert benchmark.rows()[-1] == BenchmarkRow(
        sdk_version="1.3.0",
        platform="RV1126B",
        model="Qwen3.5",
        params="0.8B",
        dtype="w8a8",
        seqlen=128,
        new_tokens=64,
        ttft_ms=4392.52,
        tokens_per_s=7.23,
        memory_mb=1017.12,
    )
    (phi,) = benchmark.find(sdk_version="1.3.0", platform="rk3576", model="phi-3", dtype="W4A16_G128", seqlen=128)
    assert (phi.params, phi.ttft_ms, phi.tokens_per_s, phi.memory_mb) == ("3.8B", 2253.14, 6.06, 2151.47)
    (gemma,) = benchmark.find(model="gemma4")
    assert (gemma.params, gemma.tokens_per_s) == ("E2B", 11.12)


def test_values_are_plausible() -> None:
    for row in benchmark.rows():
        assert (row.seqlen, row.new_tokens) == (128, 64)
        assert 100 < row.ttft_ms < 5000
        assert 3 < row.tokens_per_s < 50
        assert row.memory_mb is None or 200 < row.memory_mb < 5000
    unprinted = [row for row in benchmark.rows() if row.memory_mb is None]
    assert {(row.sdk_version, row.platform) for row in unprinted} == {("1.2.3", "RV1126B")}
    assert len(unprinted) == 6


def test_speeds_for_each_token() -> None:
    (row,) = benchmark.find(sdk_version="1.2.3", platform="RK3588", model="InternLM2")
    assert row.ms_per_prompt_token == pytest.approx(2.92, abs=0.01)
    assert row.ms_per_token == pytest.approx(64.2, abs=0.1)


@pytest.mark.parametrize("model", ["Gemma3n", "gemma-3n", "GEMMA_3N"])
def test_a_model_is_found_however_it_is_written(model: str) -> None:
    assert {row.model for row in benchmark.find(model=model)} == {"Gemma3n", "Gemma-3n"}


def test_what_is_not_there_is_not_found() -> None:
    assert benchmark.find(model="Qwen2", params="7B") == ()
    assert benchmark.find(seqlen=256) == ()
    assert benchmark.find(model="Qwen") == ()
    assert benchmark.find() == benchmark.rows()
    assert benchmark.find_multimodal(model="Qwen3-VL-2B", sdk_version="1.1.4") == ()


def test_vision_models() -> None:
    assert len(benchmark.multimodal_rows()) == 26
    assert len(benchmark.find_multimodal(sdk_version="1.2.3")) == 12
    (row,) = benchmark.find_multimodal(sdk_version="1.3.0", platform="RK3588", model="qwen3.5-0.8b", dtype="w8a8")
    assert row == MultimodalRow(
        sdk_version="1.3.0",
        platform="RK3588",
        model="Qwen3.5-0.8B",
        dtype="w8a8",
        image_size=(448, 448),
        image_encode_ms=690,
        prompt_tokens=216,
        prefill_ms=1560,
        tokens_per_s=27,
    )
    for one in benchmark.multimodal_rows():
        assert 600 < one.image_encode_ms < 4000
        assert 70 < one.prefill_ms < 4000
        assert 3 < one.tokens_per_s < 80


def test_a_misprinted_unit_is_put_right() -> None:
    encoders = benchmark.find_multimodal(platform="RK3576", model="DeepSeekOCR-3B(A570M)")
    assert [(row.sdk_version, row.image_encode_ms) for row in encoders] == [("1.2.3", 2270), ("1.3.0", 2270)]
