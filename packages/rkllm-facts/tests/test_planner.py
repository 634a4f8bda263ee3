"""Plans: figures, what they consist of, what fits, what would."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest

from rkllm_facts import benchmark
from rkllm_facts.architecture import known_architecture
from rkllm_facts.chips import CHIPS, legal_types
from rkllm_facts.errors import BadPlan, IllegalType, UnknownChip
from rkllm_facts.planner import Plan, calibration, memory_of_file, plan, remedies, reserved_mb, usual_type

QWEN = known_architecture("Qwen2.5-1.5B")
SEVEN = known_architecture("Qwen2.5-7B")
PHI = known_architecture("Phi-3-mini")


def planned(**changes: Any) -> Plan:
    return plan(QWEN, **{"platform": "rk3588", "dtype": "w8a8", **changes})


@pytest.mark.parametrize(
    ("name", "tokens_per_s", "ttft_ms", "memory_mb"),
    [
        ("TinyLlama-1.1B", 24.43, 243.93, 1093.66),
        ("Qwen2.5-1.5B", 16.69, 378.31, 1689.21),
        ("chatglm3-6b", 4.98, 1352.94, 5985.99),
        ("DeepSeek-OCR", 31.60, 701.21, 3066.66),
    ],
)
def test_rows_that_the_fit_has_not_seen(name: str, tokens_per_s: float, ttft_ms: float, memory_mb: float) -> None:
    """RK3588, w8a8. Source: benchmark.md of rknn-llm at release 1.3.0; the tables here lack these rows."""
    found = plan(known_architecture(name), platform="rk3588", dtype="w8a8", context=320)
    assert found.tokens_per_s == pytest.approx(tokens_per_s, rel=0.05)
    assert found.ttft_ms == pytest.approx(ttft_ms, rel=0.16)
    assert found.memory_mb == pytest.approx(memory_mb, rel=0.09)


@pytest.mark.parametrize(
    ("model", "name"),
    [("Qwen2-VL-2B", "Qwen2.5-1.5B"), ("Qwen2.5-VL-3B", "Qwen2.5-3B"), ("MiniCPM-V-2_6", "Qwen2.5-7B")],
)
def test_speeds_of_vision_models_whose_text_models_are_known(model: str, name: str) -> None:
    for row in benchmark.find_multimodal(model=model):
        found = plan(known_architecture(name), platform=row.platform, dtype=row.dtype, prompt_tokens=row.prompt_tokens)
        assert found.tokens_per_s == pytest.approx(row.tokens_per_s, rel=0.04)
        assert found.ttft_ms == pytest.approx(row.prefill_ms, rel=0.3)


@pytest.mark.parametrize(
    ("name", "quant", "size"),
    [
        ("Qwen2.5-1.5B", "w8a8", 2.04e9),
        ("Qwen2.5-3B", "w8a8", 3.74e9),
        ("Qwen2.5-3B", "w8a8_g128", 3.97e9),
        ("Qwen2.5-7B", "w8a8", 8.19e9),
        ("Qwen2.5-7B", "w8a8_g512", 8.31e9),
        ("gemma-2-2b", "w8a8", 3.82e9),
        ("Llama-3.2-1B", "w8a8", 1.78e9),
    ],
)
def test_files_have_the_size_of_published_ones(name: str, quant: str, size: float) -> None:
    found = plan(known_architecture(name), platform="rk3588", dtype=quant)
    assert found.file_mb * 2**20 == pytest.approx(size, rel=0.02)


@pytest.mark.parametrize(("name", "size"), [("Qwen3-VL-2B", 1.74), ("Qwen3-4B", 3.16), ("Qwen2.5-VL-3B", 2.60)])
def test_files_of_four_bits_come_within_a_tenth(name: str, size: float) -> None:
    found = plan(known_architecture(name), platform="rk3576", dtype="w4a16_g128")
    assert found.file_mb / 1024 == pytest.approx(size, rel=0.1)


def test_figures_are_the_sums_of_their_parts() -> None:
    found = planned()
    assert {part.name for part in found.memory_parts} == {"weights", "KV cache", "tokenizer", "runtime"}
    memory = {part.name: part.value for part in found.memory_parts}
    assert memory["weights"] == QWEN.weight_values / 2**20
    assert memory["KV cache"] == 28 * 2 * 2 * 128 * 2 * 4096 / 2**20
    assert sum(memory.values()) == pytest.approx(found.memory_mb)
    assert found.tokens_per_s == pytest.approx(1000 / sum(part.value for part in found.token_parts))
    assert sum(part.value for part in found.ttft_parts) == pytest.approx(found.ttft_ms)
    assert sum(part.value for part in found.file_parts) == pytest.approx(found.file_mb)


@pytest.mark.parametrize(("platform", "quant"), [("rk3588", "w8a8"), ("rk3576", "w4a16")])
def test_a_file_that_is_there_takes_what_was_planned(platform: str, quant: str) -> None:
    for embed_flash in (True, False):
        found = plan(QWEN, platform=platform, dtype=quant, context=2048, embed_flash=embed_flash)
        parts = memory_of_file(QWEN, found.file_mb, context=2048, embed_flash=embed_flash)
        assert parts is not None
        wider = 0.0 if quant == "w8a8" else QWEN.output_values / 2 / 2**20  # a file keeps the output in 8 bits
        assert sum(part.value for part in parts) == pytest.approx(found.memory_mb + wider)


def test_a_file_that_is_too_small_is_another_model() -> None:
    assert memory_of_file(SEVEN, planned().file_mb, context=4096) is None


def test_embeddings_count_in_memory_if_they_are_kept_there() -> None:
    with_them, without = planned(embed_flash=False), planned(embed_flash=True)
    assert with_them.memory_mb - without.memory_mb == pytest.approx(151936 * 1536 * 2 / 2**20)
    assert with_them.file_mb == without.file_mb


def test_the_cache_grows_with_the_context_and_the_prompt_with_its_square() -> None:
    assert planned(context=8192).memory_mb - planned(context=4096).memory_mb == pytest.approx(112)
    short, double, four = (planned(prompt_tokens=tokens).ttft_ms for tokens in (512, 1024, 2048))
    assert 2 < double / short < four / double < 4
    assert planned(prompt_tokens=2048).tokens_per_s < planned(prompt_tokens=128).tokens_per_s


@pytest.mark.parametrize(("chip", "quant"), [(chip.name, quant) for chip in CHIPS for quant in chip.types])
def test_every_legal_pair_can_be_planned(chip: str, quant: str) -> None:
    found = plan(QWEN, platform=chip, dtype=quant)
    assert 0.5 < found.tokens_per_s < 50
    assert 100 < found.ttft_ms < 20_000
    assert 900 < found.memory_mb < 2000
    assert found.memory_mb < found.file_mb + 500
    assert bool(found.notes) == (f"{found.platform.removesuffix('S')} {quant}" not in calibration().generation.speeds)


def test_smaller_groups_are_slower_and_larger() -> None:
    for platform, types in (
        ("rk3588", ("w8a8", "w8a8_g512", "w8a8_g256", "w8a8_g128")),
        ("rk3562", ("w4a16_g128", "w4a16_g64", "w4a16_g32")),
    ):
        plans = [plan(QWEN, platform=platform, dtype=one) for one in types]
        for coarse, fine in itertools.pairwise(plans):
            assert coarse.tokens_per_s > fine.tokens_per_s
            assert coarse.ttft_ms < fine.ttft_ms
            assert coarse.memory_mb < fine.memory_mb
            assert coarse.file_mb < fine.file_mb


def test_groups_slow_an_rk3588_down_as_published() -> None:
    """In Rockchip's table of release 1.1.0 it has 16.46 tokens/s without groups, 7.00 with; other models lose less."""
    plain, grouped = planned(), planned(dtype="w8a8_g128")
    assert 1.6 < plain.tokens_per_s / grouped.tokens_per_s < 2.4
    assert "RK3588 w8a8" in grouped.notes[0]


def test_a_chip_without_rows_of_a_type_says_whose_rows_it_takes() -> None:
    found = plan(QWEN, platform="rk3562", dtype="w4a16_g64")
    assert found.measured == "RK3562 w8a8 and RV1126B w4a16"
    assert "RV1126B" in found.notes[0]


def test_illegal_pairs_are_refused_with_the_legal_ones() -> None:
    with pytest.raises(IllegalType) as caught:
        plan(QWEN, platform="RK3588", dtype="w4a16")
    assert caught.value.legal == legal_types("rk3588")
    with pytest.raises(UnknownChip):
        plan(QWEN, platform="rk3399", dtype="w8a8")


@pytest.mark.parametrize(
    "changes",
    [
        {"context": 0},
        {"context": 16385},
        {"prompt_tokens": 0},
        {"prompt_tokens": 4096},
        {"ram_mb": 0.0},
        {"ram_mb": float("inf")},
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(BadPlan):
        planned(**changes)


def test_fits_is_about_what_the_system_leaves() -> None:
    assert planned().fits is None
    needed = planned().memory_mb
    assert planned(ram_mb=needed).fits is False
    assert planned(ram_mb=needed + 256).fits is True
    assert planned(ram_mb=needed + 255).fits is False
    assert reserved_mb(8192) == pytest.approx(819.2)


@pytest.mark.parametrize(
    ("name", "fits"), [("Qwen2.5-3B", True), ("Qwen2.5-7B", True), ("Phi-3-mini", True), ("Qwen3-8B", False)]
)
def test_an_rk3588_with_8_gb(name: str, fits: object) -> None:
    assert plan(known_architecture(name), platform="rk3588", dtype="w8a8", ram_mb=8192).fits is fits


def test_remedies_are_plans_that_fit() -> None:
    tight = plan(PHI, platform="rk3576", dtype="w8a8", ram_mb=4096, embed_flash=False)
    found = remedies(tight)
    assert found
    assert all(one.plan.fits for one in found)
    kinds = {one.kind for one in found}
    assert {"quant", "board"} <= kinds
    assert {one.plan.quant for one in found if one.kind == "quant"} <= set(legal_types("rk3576"))


def test_a_shorter_context_is_the_longest_that_fits() -> None:
    ram = plan(PHI, platform="rk3588", dtype="w8a8", context=2048).memory_mb / 0.9 + 1
    (shorter,) = (
        one.plan for one in remedies(plan(PHI, platform="rk3588", dtype="w8a8", ram_mb=ram)) if one.kind == "context"
    )
    assert shorter.context == 2048


def test_embeddings_in_the_file_are_a_remedy() -> None:
    ram = planned().memory_mb / 0.9 + 200
    assert remedies(planned(embed_flash=False, ram_mb=ram))[0].kind == "embed_flash"


def test_nothing_is_proposed_where_it_fits_or_nobody_knows() -> None:
    assert remedies(planned()) == ()
    assert remedies(planned(ram_mb=8192.0)) == ()


def test_no_remedy_drops_what_was_asked_for() -> None:
    asked = plan(SEVEN, platform="rk3588", dtype="w8a8", ram_mb=6144, prompt_tokens=700, context=8000)
    for one in remedies(asked):
        assert one.plan.prompt_tokens == 700
        changed = {
            field.name
            for field in dataclasses.fields(asked)
            if field.name in {"platform", "quant", "context", "embed_flash", "ram_mb"}
            and getattr(one.plan, field.name) != getattr(asked, field.name)
        }
        assert (
            changed <= {"board": {"platform", "quant", "ram_mb"}, "context": {"context"}, "quant": {"quant"}}[one.kind]
        )


def test_a_chip_has_a_usual_type() -> None:
    assert {chip.name: usual_type(chip.name) for chip in CHIPS} == {
        "RK3588": "w8a8",
        "RK3588S": "w8a8",
        "RK3576": "w4a16",
        "RK3562": "w8a8",
        "RV1126B": "w4a16",
    }
    assert all(usual_type(chip.name) in chip.types for chip in CHIPS)


def test_a_mixture_and_recurrent_layers_are_noted() -> None:
    (mixture,) = plan(known_architecture("DeepSeek-OCR"), platform="rk3576", dtype="w4a16").notes
    assert "mixture" in mixture
    (state,) = plan(known_architecture("Qwen3.5-2B"), platform="rk3588", dtype="w8a8").notes
    assert "state" in state


def test_groups_that_do_not_divide_a_layer_are_noted() -> None:
    noted = plan(known_architecture("Qwen2-0.5B"), platform="rk3588", dtype="w8a8_g512").notes
    assert any("k_proj" in note for note in noted)
