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
from rkllm_facts.planner import Plan, asked_mb, calibration, memory_of_file, plan, remedies, reserved_mb, usual_type

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


VISION = {
    "Qwen2-VL-2B": ("Qwen2.5-1.5B", 0.04, 0.2),
    "Qwen2.5-VL-3B": ("Qwen2.5-3B", 0.04, 0.2),
    "MiniCPM-V-2_6": ("Qwen2.5-7B", 0.04, 0.3),
    "SmolVLM-256M": ("SmolLM2-135M", 0.2, 0.55),
    "Qwen3-VL-2B": ("Qwen3-VL-2B", 0.25, 0.25),
    "DeepSeekOCR-3B(A570M)": ("DeepSeek-OCR", 0.1, 0.25),
    "Qwen3.5-0.8B": ("Qwen3.5-0.8B", 0.2, 0.32),
}
"""Text model, and how far off tokens/s and first token are at most."""


@pytest.mark.parametrize("row", benchmark.multimodal_rows(), ids=lambda row: f"{row.model} {row.platform}")
def test_speeds_of_all_vision_models(row: benchmark.MultimodalRow) -> None:
    name, speed, first = VISION[row.model]
    found = plan(known_architecture(name), platform=row.platform, dtype=row.dtype, prompt_tokens=row.prompt_tokens)
    assert found.tokens_per_s == pytest.approx(row.tokens_per_s, rel=speed)
    assert found.ttft_ms == pytest.approx(row.prefill_ms, rel=first)


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
    assert found.file_mb * 2**20 == pytest.approx(size, rel=0.011)


@pytest.mark.parametrize(("name", "size"), [("Qwen3-VL-2B", 1.74), ("Qwen3-4B", 3.16), ("Qwen2.5-VL-3B", 2.60)])
def test_files_of_four_bits_come_within_a_tenth(name: str, size: float) -> None:
    found = plan(known_architecture(name), platform="rk3576", dtype="w4a16_g128")
    assert found.file_mb / 1024 == pytest.approx(size, rel=0.1)


def test_figures_are_the_sums_of_their_parts() -> None:
    found = planned()
    assert {part.name for part in found.memory_parts} == {
        "weights",
        "KV cache",
        "what grows with the vocabulary",
        "runtime",
    }
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


def test_a_file_of_another_size_is_another_model() -> None:
    assert memory_of_file(SEVEN, planned().file_mb, context=4096) is None
    assert memory_of_file(QWEN, plan(SEVEN, platform="rk3588", dtype="w8a8").file_mb, context=4096) is None


@pytest.mark.parametrize("name", ["Qwen2.5-1.5B", "Qwen2.5-7B", "gemma-2-2b", "Llama-3.2-1B", "Qwen3-0.6B"])
@pytest.mark.parametrize(("platform", "quant"), [("rk3588", "w8a8"), ("rk3588", "w8a8_g128"), ("rk3576", "w4a16")])
def test_a_file_without_embeddings_has_as_many_weights(name: str, platform: str, quant: str) -> None:
    model = known_architecture(name)
    found = plan(model, platform=platform, dtype=quant)
    size = found.file_mb - model.embedding_values * 2 / 2**20
    parts = memory_of_file(model, size, context=4096, platform=platform)
    assert parts is not None
    assert sum(part.value for part in parts) >= found.memory_mb * 0.999


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
    measured = f"{found.platform.removesuffix('S')} {quant}" in calibration().generation.speeds
    assert (found.notes == ()) == (found.errors is not None) == measured


def test_smaller_groups_are_slower_and_larger() -> None:
    for platform, types in (
        ("rk3588", ("w8a8", "w8a8_g512", "w8a8_g256", "w8a8_g128")),
        ("rk3562", ("w4a16_g128", "w4a16_g64", "w4a16_g32")),
    ):
        plans = [plan(QWEN, platform=platform, dtype=one) for one in types]
        for coarse, fine in itertools.pairwise(plans):
            assert coarse.tokens_per_s > fine.tokens_per_s
            assert coarse.ttft_ms <= fine.ttft_ms
            assert coarse.memory_mb < fine.memory_mb
            assert coarse.file_mb < fine.file_mb


def test_groups_slow_an_rk3588_down_as_published() -> None:
    """In Rockchip's table of release 1.1.0 it has 16.46 tokens/s without groups, 7.00 with; other models lose less."""
    plain, grouped = planned(), planned(dtype="w8a8_g128")
    assert 1.6 < plain.tokens_per_s / grouped.tokens_per_s < 2.4
    assert "RK3588 w8a8" in grouped.notes[0]


def test_a_chip_without_rows_of_a_type_says_whose_rows_it_takes() -> None:
    found = plan(QWEN, platform="rk3562", dtype="w4a16_g64")
    assert found.measured == "RK3562 w4a16_g128"
    assert "w4a16_g128" in found.notes[0]
    assert found.errors is None


@pytest.mark.parametrize(
    ("quant", "tokens_per_s", "ttft_ms"), [("w4a16_g128", 5.67, 524), ("w4a8_g32", 12.0, 873), ("w8a8", 11.5, 477)]
)
def test_four_bits_on_an_rk3562_stand_to_eight_as_in_the_only_table_with_them(
    quant: str, tokens_per_s: float, ttft_ms: float
) -> None:
    """README of rknn-llm at release 1.2.0: Qwen2-0.5B, 64 tokens of prompt."""

    def asked(dtype: str) -> Plan:
        return plan(known_architecture("Qwen2-0.5B"), platform="rk3562", dtype=dtype, prompt_tokens=64)

    assert asked(quant).tokens_per_s / asked("w8a8").tokens_per_s == pytest.approx(tokens_per_s / 11.5, rel=0.01)
    assert asked(quant).ttft_ms / asked("w8a8").ttft_ms == pytest.approx(ttft_ms / 477, rel=0.01)
    assert bool(asked(quant).notes) == (quant != "w8a8")


def test_errors_are_told_of_measured_pairs_only() -> None:
    assert planned(dtype="w8a8_g128").errors is None
    found = planned(dtype="w8a8").errors
    assert found is not None
    assert 0.01 < found.tokens_per_s.half < found.tokens_per_s.most < 0.2


def test_the_smallest_groups_cost_no_more_than_twice_those_of_128() -> None:
    plain, coarse, fine = (
        plan(QWEN, platform="rv1126b", dtype=one).ttft_ms for one in ("w4a16", "w4a16_g64", "w4a16_g32")
    )
    assert plain < coarse == fine


def test_no_first_token_comes_before_every_weight_was_read() -> None:
    for chip_name in ("rk3588", "rk3576", "rk3562", "rv1126b"):
        one = plan(SEVEN, platform=chip_name, dtype="w8a8", prompt_tokens=1)
        assert one.ttft_ms == pytest.approx(one.ms_per_token, rel=0.01)
        assert one.ttft_ms <= plan(SEVEN, platform=chip_name, dtype="w8a8", prompt_tokens=32).ttft_ms


def test_calls_cost_as_much_for_a_short_prompt_as_for_64_tokens() -> None:
    calls = [
        {part.name: part.value for part in planned(prompt_tokens=tokens).ttft_parts}["calls of the NPU"]
        for tokens in (40, 64, 128)
    ]
    assert calls == [calls[1], calls[1], 2 * calls[1]]


def test_a_large_cache_and_large_weights_are_noted() -> None:
    assert planned(context=4096).notes == ()
    (long,) = planned(context=16384).notes
    assert "KV cache is 2" in long
    assert "take a shorter context" in long
    (large,) = plan(SEVEN, platform="rk3588", dtype="w8a8").notes
    assert "4 GiB" in large
    assert "take a type with fewer bits" in large


def test_the_note_of_groups_is_told_apart() -> None:
    odd = planned(dtype="w8a8_g512")
    assert "k_proj" in odd.group_note
    assert odd.notes.count(odd.group_note) == 1
    assert len(odd.notes) > 1
    assert planned(dtype="w8a8_g128").group_note == ""
    assert "" not in planned(dtype="w8a8_g128").notes


def test_a_server_asks_for_a_margin() -> None:
    """What exo_rkllm.memory asks for, by tests/test_conversion_doc.py."""
    found = planned()
    assert asked_mb(found) == pytest.approx(found.memory_mb * (1 + calibration().memory_doubt) + 30)
    assert 1.05 < asked_mb(found) / found.memory_mb < 1.15


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


def test_several_changes_together_if_none_is_enough() -> None:
    """Qwen3-4B in eight bits with 8192 tokens of context, on an RK3576 with 4 GB."""
    asked = plan(
        known_architecture("Qwen3-4B"), platform="rk3576", dtype="w8a8", context=8192, ram_mb=2900, embed_flash=False
    )
    first = remedies(asked)[0]
    assert first.kind == "together"
    assert first.plan.fits
    assert first.plan.embed_flash
    assert (first.plan.quant, first.plan.platform, first.plan.ram_mb) == ("w4a16", "RK3576", 2900)
    assert 512 <= first.plan.context < 8192
    assert first.plan.memory_mb + 256 * 36 * 2 * 8 * 128 * 2 / 2**20 > 2900 - 290


def test_no_context_below_the_least_is_proposed() -> None:
    needed = plan(PHI, platform="rk3588", dtype="w8a8", context=300).memory_mb
    tight = plan(PHI, platform="rk3588", dtype="w8a8", ram_mb=needed / 0.9 + 1)
    assert {one.kind for one in remedies(tight)} == {"board"}


def test_a_board_with_the_same_chip_has_more_memory() -> None:
    found = remedies(plan(SEVEN, platform="rk3588", dtype="w8a8", ram_mb=8192, context=16384))
    assert {one.plan.ram_mb for one in found if one.kind == "board" and one.plan.platform == "RK3588"} == {16384}
    many = plan(known_architecture("Llama-3.1-8B"), platform="rk3588", dtype="w8a8", ram_mb=4096)
    (same,) = (one.plan for one in remedies(many) if one.kind == "board" and one.plan.platform == "RK3588")
    assert same.ram_mb == 16384


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
            changed
            <= {
                "board": {"platform", "quant", "ram_mb"},
                "context": {"context"},
                "quant": {"quant"},
                "together": {"quant", "context"},
            }[one.kind]
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
