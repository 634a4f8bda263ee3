"""Which options are legal, and what is said of those that are not: as flags, and without them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rkllm_converter.errors import IllegalOptions, Problem
from rkllm_converter.options import Options, check
from rkllm_converter.toolkit.versions import toolkit

GOOD = Options(platform="rk3588", quant="w8a8")
GPU = Options(platform="rk3576", quant="w4a16", algorithm="grq", device="cuda")


def found(options: Options, *, gguf: str | None = None, has_lora: bool = False, release: str = "1.3.0") -> list[str]:
    try:
        check(options, toolkit(release), gguf=gguf, has_lora=has_lora)
    except IllegalOptions as error:
        return list(error.problems)
    return []


def test_an_option_is_a_flag_or_a_key() -> None:
    with pytest.raises(IllegalOptions) as caught:
        check(replace(GOOD, optimization_level=3, export_tokenizer=False), toolkit("1.2.3"))
    level, tokenizer = caught.value.of_options
    assert (level.option, level.said) == ("opt_level", "3: there are 0 (quicker) and 1 (more accurate).")
    assert (tokenizer.option, tokenizer.said) == (
        "export_tokenizer",
        "the toolkit 1.2.3 has no such choice. Leave it out.",
    )
    assert caught.value.message == "\n".join(caught.value.problems)
    assert caught.value.problems == (f"--opt-level {level.said}", f"--no-export-tokenizer: {tokenizer.said}")


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("npu_cores", "4", "no."), "--npu-cores 4: no."),
        (Problem("platform", "", "no."), "--platform : no."),
        (Problem("export_embedding", value=True, sentence="no."), "--export-embedding: no."),
        (Problem("lora", None, "no."), "--lora: no."),
    ],
)
def test_a_problem_as_a_text(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_what_names_no_option_may_be_a_text() -> None:
    error = IllegalOptions(["--lora x: no.", Problem("quant", "w", "no.")])
    assert error.problems == ("--lora x: no.", "--quant w: no.")
    assert error.of_options == (Problem("quant", "w", "no."),)


@pytest.mark.parametrize("name", ["rk3566", "RK3568", "rk-3566"])
def test_chips_that_the_runtime_does_not_use_are_told_so(name: str) -> None:
    (only,) = found(replace(GOOD, platform=name))
    plain = name.upper().replace("-", "")
    assert only.startswith(f"--platform {name}: the {plain} has an NPU that the RKLLM runtime does not use. ")
    assert "Did you mean" not in only


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("rk3588s", "rk3588"),
        ("RK3588S2", "rk3588"),
        ("rk-3576", "rk3576"),
        ("3562", "rk3562"),
        ("rv1126b-p", "rv1126b"),
    ],
)
def test_nearly_the_name_of_a_chip(name: str, meant: str) -> None:
    (only,) = found(replace(GOOD, platform=name))
    assert only.endswith(f"Take one of: rk3588, rk3576, rk3562, rv1126b. Did you mean {meant}?")


@pytest.mark.parametrize("name", ["rk3558", "rk3578", "rk3399", "rv1126", "rk", ""])
def test_the_name_of_another_chip_is_taken_for_none(name: str) -> None:
    (only,) = found(replace(GOOD, platform=name))
    assert only == f"--platform {name}: there is no such chip. Take one of: rk3588, rk3576, rk3562, rv1126b."


def test_an_algorithm_that_the_chip_has_no_type_for_is_one_problem() -> None:
    assert found(replace(GOOD, algorithm="grq")) == [
        "--algorithm grq: it is for the types w4a16 only, and the RK3588 has none. Take normal."
    ]
    assert found(replace(GPU, quant="w8a8")) == [
        "--algorithm grq: it is for the types w4a16 only, not for w8a8. Take normal, or a type w4a16."
    ]
    assert found(replace(GPU, device="cpu")) == [
        "--algorithm grq: it needs a GPU. Take the device cuda, or the algorithm normal."
    ]
    assert found(GPU) == []


def test_of_a_gguf_file_an_algorithm_is_one_problem() -> None:
    options = replace(GPU, quant="w4a16_g32", device="cpu")
    words = "--algorithm grq: it needs a GPU, and a GGUF file is loaded by the CPU. Take normal."
    assert found(options, gguf="q4_0") == [words]
    assert found(replace(GOOD, algorithm="grq"), gguf="f16") == [words]


@pytest.mark.parametrize("quant", ["w8a8", "w4a16_g32", "none", "w4a16"])
def test_a_gguf_file_that_the_chip_cannot_run_is_what_is_wrong_whatever_the_type(quant: str) -> None:
    assert found(replace(GOOD, quant=quant), gguf="q4_0") == [
        (
            "--model: a GGUF file of type q4_0 becomes w4a16_g32, which the RK3588 does not run. Take the model as "
            "Hugging Face has it. w4a16_g32 is for RK3576, RK3562, RV1126B."
        )
    ]


def test_a_gguf_file_decides_of_the_type() -> None:
    good = Options(platform="rk3576", quant="w4a16_g32")
    assert found(good, gguf="q4_0") == []
    for quant in ("w8a8", "w8a8_g512", "none"):
        assert found(replace(good, quant=quant), gguf="q4_0") == [
            f"--quant {quant}: a GGUF file of type q4_0 becomes w4a16_g32. Take that."
        ]
    (only,) = found(good, gguf="q4_k_m")
    assert only.startswith("--model: a GGUF file of type q4_k_m is not taken by the toolkit, only f16 and q4_0. ")


def test_no_share_of_layers() -> None:
    assert found(replace(GOOD, hybrid_rate=1)) == [
        "--hybrid-rate 1: it has to be at least 0 and below 1, such as 0.25."
    ]


def test_all_problems_are_said_at_once() -> None:
    options = Options(platform="rk3588", quant="w4a16", npu_cores=4, max_context=100, device="tpu", dtype="bf16")
    flags = [problem.split()[0] for problem in found(options, has_lora=True)]
    assert flags == ["--quant", "--npu-cores", "--max-context", "--device", "--dtype"]
