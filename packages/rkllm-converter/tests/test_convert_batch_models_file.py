"""The models.yaml that is shipped: every conversion is legal, and fits the board that the file says."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

import rkllm_converter
from rkllm_converter.batch.models import Conversion
from rkllm_converter.batch.reading import read
from rkllm_converter.cli.values import memory_mb
from rkllm_converter.options import Options, check
from rkllm_converter.preflight.weights import judge_groups
from rkllm_converter.toolkit.versions import TOOLKITS, Toolkit
from rkllm_facts.architecture import known_architecture
from rkllm_facts.chips import check_type, chip
from rkllm_facts.planner import asked_mb, plan, reserved_mb

PACKAGE = Path(rkllm_converter.__file__).parent
SHIPPED = read(PACKAGE / "models.yaml")
MODELS = {
    "Qwen/Qwen2.5-1.5B-Instruct",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
    "Qwen/Qwen2.5-3B-Instruct",
    "Qwen/Qwen2.5-7B-Instruct",
    "microsoft/Phi-3-mini-4k-instruct",
}
CONVERSIONS = pytest.mark.parametrize("conversion", SHIPPED.conversions, ids=lambda one: one.name)


def option(conversion: Conversion, name: str) -> str:
    return str(conversion.options[name])


def test_every_model_is_there_for_both_chips() -> None:
    found = {(one.model, option(one, "platform")) for one in SHIPPED.conversions}
    assert found == {(model, chip) for model in MODELS for chip in ("rk3588", "rk3576")}
    assert len(SHIPPED.conversions) == 10


@CONVERSIONS
@pytest.mark.parametrize("toolkit", TOOLKITS, ids=lambda one: one.version)
def test_its_options_are_legal(conversion: Conversion, toolkit: Toolkit) -> None:
    context = int(option(conversion, "max_context"))
    options = Options(platform=option(conversion, "platform"), quant=option(conversion, "quant"), max_context=context)
    check(options, toolkit)
    assert check_type(options.platform, options.quant) == options.quant


@CONVERSIONS
def test_its_groups_divide_what_the_pre_flight_looks_at(conversion: Conversion) -> None:
    architecture = known_architecture(conversion.model)
    assert judge_groups(architecture, option(conversion, "quant"), chip(option(conversion, "platform"))) == ""


def test_phi_has_the_groups_of_rockchips_own_table() -> None:
    """Its vocabulary is no multiple of 128, but the output is not divided."""
    types = [option(one, "quant") for one in SHIPPED.conversions if "Phi-3" in one.model]
    assert types == ["w8a8", "w4a16_g128"]


@CONVERSIONS
def test_rkllama_loads_it_on_the_board(conversion: Conversion) -> None:
    """By the planner's figure, and the margin that rkllama adds."""
    ram_mb = memory_mb(option(conversion, "ram"))
    found = plan(
        known_architecture(conversion.model),
        platform=option(conversion, "platform"),
        dtype=option(conversion, "quant"),
        context=int(option(conversion, "max_context")),
        ram_mb=ram_mb,
    )
    assert asked_mb(found) <= ram_mb - reserved_mb(ram_mb)


def test_phi_gets_no_more_than_it_was_trained_for() -> None:
    contexts = {one.options["max_context"] for one in SHIPPED.conversions if "Phi-3-mini-4k" in one.model}
    assert contexts == {4096}


def test_one_file_is_both_in_the_package_and_beside_it() -> None:
    beside = PACKAGE.parents[1] / "models.yaml"
    assert (files("rkllm_converter") / "models.yaml").read_bytes() == beside.read_bytes()
    assert beside.samefile(PACKAGE / "models.yaml")
