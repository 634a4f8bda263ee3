"""The converter's rules and the stand-in's, which were written apart, over the whole space of options."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from converter_configs import ROOMY, config
from converter_toolkits import RELEASES, first_refused, small_dataset, small_gguf, small_lora, small_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rkllm_converter.errors import IllegalOptions
from rkllm_converter.options import PLATFORMS, Options, check
from rkllm_converter.preflight import preflight
from rkllm_converter.source import look
from rkllm_converter.toolkit.calls import Inputs, calls
from rkllm_converter.toolkit.versions import toolkit

LEGAL: dict[str, tuple[Any, ...]] = {
    "platform": ("rk3588", "rk3576", "rk3562", "rv1126b"),
    "quant": (
        *("w8a8", "w8a8_g128", "w8a8_g256", "w8a8_g512"),
        *("w4a16", "w4a16_g32", "w4a16_g64", "w4a16_g128", "w4a8_g32", "none"),
    ),
    "algorithm": ("normal", "normal", "normal", "normal_r16", "grq", "grq_r1", "grq_r64", "gdq", "gdq_r8"),
    "optimization_level": (0, 1),
    "npu_cores": (None, 1, 2, 3),
    "max_context": (32, 2048, 4096, 16384),
    "hybrid_rate": (0.0, 0.25, math.nextafter(1, 0)),
    "device": ("cpu", "cuda", "cuda"),
    "dtype": ("float32", "float16", "bfloat16"),
    "export_tokenizer": (None, None, True, False),
    "export_embedding": (None, None, True, False),
}
GGUF_TYPES = {"f16": 1, "q4_0": 2, "q4_k_m": 15, "unknown": None}
"""As the header has them."""
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": False}
TINY = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "num_hidden_layers": 22,
    "vocab_size": 32000,
}
"""As TinyLlama: k and v put out 256 each, q, k and v together 2560."""
MODELS: dict[str, dict[str, Any]] = {
    "TinyLlama": config("llama-3.2-1b-instruct", **TINY),
    "Phi-3": config("phi-3-mini-4k-instruct"),
    "ChatGLM3": config("chatglm3-6b"),
    "Qwen2-VL": config("qwen2-vl-2b-instruct"),
    "GPTQ": config("llama-3.2-1b-instruct", **TINY, quantization_config=GPTQ),
    "GPTQ in groups of 128": config("llama-3.2-1b-instruct", **TINY, quantization_config={**GPTQ, "group_size": 128}),
    "GPTQ with desc_act": config("llama-3.2-1b-instruct", **TINY, quantization_config={**GPTQ, "desc_act": True}),
    "AWQ": config("llama-3.2-1b-instruct", **TINY, quantization_config={**GPTQ, "quant_method": "awq"}),
}
ODD: dict[str, tuple[Any, ...]] = {
    "platform": ("RK3588", "RV1126B", "rk3566", "rk3588s", "rk-3588", ""),
    "quant": ("W8A8", "W4A16_G32", "w8a8_g64", "w8a8_g1024", "w4a16_g256", "w4a8", "w8a16", "fp16", "None", ""),
    "algorithm": (
        "GRQ",
        "Normal",
        "awq",
        "",
        "grq_",
        "grq_r",
        "grq_r0",
        "grq_r01",
        "grq_r65",
        "gdq_r100",
        "normal_r-1",
    ),
    "optimization_level": (2, -1),
    "npu_cores": (0, 4, -1),
    "max_context": (0, -32, 1, 31, 4095, 4100, 16383, 16385, 16416, 10**400),
    "hybrid_rate": (1.0, -0.1, 2.5, math.nan, math.inf, -math.inf, math.nextafter(0, -1)),
    "device": ("CUDA", "npu", "cuda:0", ""),
    "dtype": ("int8", "fp16", "FLOAT32", ""),
    "export_tokenizer": (),
    "export_embedding": (),
}


@dataclass(frozen=True)
class Case:
    release: str
    options: Options
    gguf: str | None = None
    has_lora: bool = False


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Mostly legal values one by one, with none to two that are not; together they may be illegal all the same."""
    chosen = {name: draw(st.sampled_from(values)) for name, values in LEGAL.items()}
    spoilable = sorted(name for name, values in ODD.items() if values)
    for name in draw(st.lists(st.sampled_from(spoilable), max_size=2)):
        chosen[name] = draw(st.sampled_from(ODD[name]))
    return Case(
        draw(st.sampled_from(RELEASES)),
        Options(**chosen),
        draw(st.sampled_from((None, None, None, None, *GGUF_TYPES))),
        draw(st.sampled_from((False, False, False, True))),
    )


@st.composite
def likely_legal(draw: st.DrawFn) -> Case:
    """What goes together, but for little."""
    case = draw(cases())
    platform = draw(st.sampled_from(LEGAL["platform"]))
    quants = [
        quant for quant in LEGAL["quant"] if is_legal(Case(case.release, Options(platform=platform, quant=quant)))
    ]
    if case.gguf == "q4_0":
        quants = ["w4a16_g32"]
    options = replace(case.options, platform=platform, quant=draw(st.sampled_from(quants)), npu_cores=1)
    return Case(case.release, options, case.gguf, case.has_lora)


def is_legal(case: Case) -> bool:
    """By the converter's rules."""
    try:
        check(case.options, toolkit(case.release), gguf=case.gguf, has_lora=case.has_lora)
    except IllegalOptions:
        return False
    return True


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    small_model(folder / "model")
    for name, kind in GGUF_TYPES.items():
        small_gguf(folder / f"{name}.gguf", kind)
    small_lora(folder / "lora")
    small_dataset(folder / "data.json")
    return folder


def is_taken(case: Case, files: Path) -> bool:
    """By the stand-in."""
    options = case.options
    if options.platform not in PLATFORMS and options.npu_cores is None:
        options = replace(options, npu_cores=1)  # how many such a chip has is not known
    inputs = Inputs(
        model=files / ("model" if case.gguf is None else f"{case.gguf}.gguf"),
        is_gguf=case.gguf is not None,
        lora=files / "lora" if case.has_lora else None,
        dataset=files / "data.json",
        export_path=files / "out.rkllm",
    )
    return first_refused(case.release, calls(options, inputs, toolkit(case.release))) is None


def own_choices(case: Case) -> Iterator[tuple[str, Case]]:
    """Where the converter refuses what the toolkit would take, and the same case without it. There are no others."""
    options = case.options
    lower = replace(options, platform=options.platform.lower(), quant=options.quant.lower())
    if options.platform.isupper() or options.quant.isupper():
        yield "names are told in lower case here", replace(case, options=lower)
    if options.quant == "none" and (options.algorithm != "normal" or options.hybrid_rate != 0):
        plain = replace(options, algorithm="normal", hybrid_rate=0.0)
        yield "without quantisation its settings are not passed on", replace(case, options=plain)
    if case.gguf is not None and (options.device, options.dtype) != ("cpu", "float32"):
        plain = replace(options, device="cpu", dtype="float32")
        yield "a GGUF file is loaded without device and dtype", replace(case, options=plain)
    if case.gguf is not None and case.has_lora:
        yield "a GGUF file is loaded without an adapter", replace(case, has_lora=False)
    if case.release == "1.2.3" and (options.export_tokenizer, options.export_embedding) != (None, None):
        plain = replace(options, export_tokenizer=None, export_embedding=None)
        yield "what the release does not know is not passed on", replace(case, options=plain)


def compare(case: Case, files: Path, seen: Counter[str]) -> None:
    legal, taken = is_legal(case), is_taken(case, files)
    if legal:
        assert taken, f"the stand-in refuses what the converter allows: {case}"
        seen["both allow"] += 1
    elif not taken:
        seen["both refuse"] += 1
    else:
        plain = case
        while (choice := next(own_choices(plain), None)) is not None:
            seen[choice[0]] += 1
            plain = choice[1]
        assert plain != case, f"the converter refuses what the stand-in takes, by no choice of its own: {case}"
        assert is_legal(plain), f"the converter refuses what the stand-in takes: {plain}"


@pytest.mark.slow
def test_no_illegal_call_and_no_legal_one_refused(files: Path) -> None:
    seen: Counter[str] = Counter()

    @settings(
        max_examples=3000, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(cases() | likely_legal())
    def property_(case: Case) -> None:
        compare(case, files, seen)

    property_()
    assert seen["both allow"] > 200, seen
    assert seen["both refuse"] > 1000, seen
    every = {
        "names are told in lower case here",
        "without quantisation its settings are not passed on",
        "a GGUF file is loaded without device and dtype",
        "a GGUF file is loaded without an adapter",
        "what the release does not know is not passed on",
    }
    assert seen.keys() == {"both allow", "both refuse", *every}, seen


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES)
def test_every_type_algorithm_and_core_count(release: str, files: Path) -> None:
    algorithms = (*dict.fromkeys(LEGAL["algorithm"]), "grq_r0", "grq_r65", "GRQ")
    space = itertools.product(LEGAL["platform"], LEGAL["quant"], algorithms, (None, 0, 1, 2, 3, 4), ("cpu", "cuda"))
    seen: Counter[str] = Counter()
    for platform, quant, algorithm, cores, device in space:
        options = Options(platform=platform, quant=quant, algorithm=algorithm, npu_cores=cores, device=device)
        compare(Case(release, options), files, seen)
    assert seen["both allow"] > 200, seen
    assert seen["both refuse"] > 2000, seen


@pytest.mark.parametrize("rate", ODD["hybrid_rate"])
def test_rates_that_are_none(rate: float, files: Path) -> None:
    case = Case("1.3.0", Options(platform="rk3588", quant="w8a8", hybrid_rate=rate))
    assert not is_legal(case)
    assert not is_taken(case, files)


@pytest.mark.parametrize("context", ODD["max_context"])
def test_contexts_that_are_none(context: int) -> None:
    with pytest.raises(IllegalOptions, match=r"nearest is [0-9]+") as caught:
        check(Options(platform="rk3588", quant="w8a8", max_context=context), toolkit("1.3.0"))
    nearest = int(caught.value.problems[0].rpartition("is ")[2].rstrip("."))
    assert is_legal(Case("1.3.0", Options(platform="rk3588", quant="w8a8", max_context=nearest)))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_weights_are_judged_as_the_pre_flight_does(name: str, tmp_path: Path) -> None:
    """Whether groups divide the layers, and what becomes of weights that are quantised already."""
    (tmp_path / "config.json").write_text(json.dumps(MODELS[name]), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 64)
    release, differ = toolkit("1.3.0"), []
    for platform, quant in itertools.product(LEGAL["platform"], LEGAL["quant"]):
        options = Options(platform=platform, quant=quant, npu_cores=1)
        if not is_legal(Case("1.3.0", options)):
            continue
        found = preflight(look(str(tmp_path)), options, release, output=tmp_path, ram_mb=1e6, machine=ROOMY)
        inputs = Inputs(model=tmp_path, export_path=tmp_path / "out.rkllm")
        refused = first_refused("1.3.0", calls(options, inputs, release))
        if (refused is not None) != bool(found.problems.keys() & {"architecture", "groups"}):
            differ.append((platform, quant, refused, dict(found.problems)))
    assert not differ
