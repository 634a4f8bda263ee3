"""The calls of the toolkit: which they are for both releases, and that the stand-in takes and records them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from converter_toolkits import (
    RELEASES,
    first_refused,
    recorded,
    small_dataset,
    small_gguf,
    small_lora,
    small_model,
)

from rkllm_converter.options import Options, check
from rkllm_converter.toolkit.calls import Call, Inputs, calls
from rkllm_converter.toolkit.versions import toolkit

TYPES = {
    "rk3588": ("w8a8", "w8a8_g128", "w8a8_g256", "w8a8_g512"),
    "rk3576": ("w4a16", "w4a16_g32", "w4a16_g64", "w4a16_g128", "w8a8"),
    "rk3562": ("w8a8", "w4a16_g32", "w4a16_g64", "w4a16_g128", "w4a8_g32"),
    "rv1126b": ("w4a16", "w4a16_g32", "w4a16_g64", "w4a16_g128", "w8a8"),
}
CORES = {"rk3588": (1, 2, 3), "rk3576": (1, 2), "rk3562": (1,), "rv1126b": (1,)}
PAIRS = [(platform, quant) for platform, quants in TYPES.items() for quant in (*quants, "none")]

each_release = pytest.mark.parametrize("release", RELEASES)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return Inputs(model=small_model(tmp_path / "model"), export_path=tmp_path / "out.rkllm")


@pytest.fixture
def accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, dict[str, Any]]]]:
    """Checks the options, has the stand-in called, and returns what it has seen."""
    record = tmp_path / "record"
    monkeypatch.setenv("RKLLM_STANDIN_RECORD", str(record))

    def call(
        release: str, options: Options, inputs: Inputs, *, gguf: str | None = None
    ) -> list[tuple[str, dict[str, Any]]]:
        facts = toolkit(release)
        check(options, facts, gguf=gguf, has_lora=inputs.lora is not None)
        assert first_refused(release, calls(options, inputs, facts)) is None, recorded(record)
        seen = recorded(record)
        record.unlink()
        assert {one["result"] for one in seen} == {0}
        return [(one["method"], one["arguments"]) for one in seen]

    return call


@each_release
def test_the_sample_of_the_manual(release: str, inputs: Inputs, tmp_path: Path, accepted: Any) -> None:
    options = Options(platform="rk3588", quant="w8a8", device="cuda")
    inputs = replace(inputs, dataset=small_dataset(tmp_path / "data.json"))
    assert accepted(release, options, inputs) == [
        (
            "load_huggingface",
            {
                "model": str(tmp_path / "model"),
                "model_lora": None,
                "device": "cuda",
                "dtype": "float32",
                "custom_config": None,
                "load_weight": True,
            },
        ),
        (
            "build",
            {
                "do_quantization": True,
                "optimization_level": 1,
                "quantized_dtype": "w8a8",
                "quantized_algorithm": "normal",
                "target_platform": "rk3588",
                "num_npu_core": 3,
                "extra_qparams": None,
                "dataset": str(tmp_path / "data.json"),
                "hybrid_rate": 0,
                "max_context": 4096,
            },
        ),
        ("export_rkllm", {"export_path": str(tmp_path / "out.rkllm")}),
    ]


@each_release
@pytest.mark.parametrize(("platform", "quant"), PAIRS)
def test_every_type_of_every_chip(release: str, platform: str, quant: str, inputs: Inputs, accepted: Any) -> None:
    for cores in CORES[platform]:
        _, (_, build), _ = accepted(release, Options(platform=platform, quant=quant, npu_cores=cores), inputs)
        assert (build["target_platform"], build["num_npu_core"]) == (platform, cores)
        assert build["do_quantization"] is (quant != "none")
        assert build.get("quantized_dtype", "none") == quant
    _, (_, build), _ = accepted(release, Options(platform=platform, quant=quant), inputs)
    assert build["num_npu_core"] == max(CORES[platform])


@pytest.mark.parametrize(
    ("release", "algorithm"),
    [
        *((one, f"{name}{rank}") for one in RELEASES for name in ("normal", "grq") for rank in ("", "_r1", "_r64")),
        *(("1.2.3", f"gdq{rank}") for rank in ("", "_r1", "_r64")),
    ],
)
def test_every_algorithm(release: str, algorithm: str, inputs: Inputs, accepted: Any) -> None:
    for quant in TYPES["rk3576"][:4]:
        options = Options(platform="rk3576", quant=quant, algorithm=algorithm, device="cuda")
        _, (_, build), _ = accepted(release, options, inputs)
        assert (build["quantized_algorithm"], build["quantized_dtype"]) == (algorithm, quant)


@each_release
@pytest.mark.parametrize(
    ("name", "values", "argument"),
    [
        ("optimization_level", (0, 1), "optimization_level"),
        ("max_context", (32, 64, 4096, 16352, 16384), "max_context"),
        ("hybrid_rate", (0.0, 0.25, 0.999), "hybrid_rate"),
        ("device", ("cpu", "cuda"), "device"),
        ("dtype", ("float32", "float16", "bfloat16"), "dtype"),
    ],
)
def test_every_other_value(
    inputs: Inputs, accepted: Any, *, release: str, name: str, values: tuple[Any, ...], argument: str
) -> None:
    for value in values:
        options = Options(platform="rk3576", quant="w4a16_g32", **{name: value})
        seen = {key: one for _, arguments in accepted(release, options, inputs) for key, one in arguments.items()}
        assert seen[argument] == value


@each_release
def test_without_quantisation_nothing_about_it_is_said(
    release: str, inputs: Inputs, tmp_path: Path, accepted: Any
) -> None:
    options = Options(platform="rk3576", quant="none", optimization_level=0, npu_cores=1, max_context=2048)
    inputs = replace(inputs, dataset=small_dataset(tmp_path / "data.json"), qparams=tmp_path / "not-there.qparams")
    _, build, _ = accepted(release, options, inputs)
    assert build == (
        "build",
        {
            "do_quantization": False,
            "optimization_level": 0,
            "target_platform": "rk3576",
            "num_npu_core": 1,
            "max_context": 2048,
        },
    )


@each_release
def test_all_files(release: str, inputs: Inputs, tmp_path: Path, accepted: Any) -> None:
    custom, qparams = tmp_path / "custom.json", tmp_path / "model.qparams"
    custom.write_text("{}", encoding="utf-8")
    qparams.write_bytes(b"")
    inputs = replace(inputs, lora=small_lora(tmp_path / "lora"), custom_config=custom, qparams=qparams)
    (_, load), (_, build), _ = accepted(release, Options(platform="rk3588", quant="w8a8"), inputs)
    assert (load["model_lora"], load["custom_config"]) == (str(tmp_path / "lora"), str(custom))
    assert build["extra_qparams"] == str(qparams)
    assert (tmp_path / "out_lora.rkllm").is_file()


@each_release
@pytest.mark.parametrize(
    ("gguf", "platform", "quant"),
    [("q4_0", "rk3576", "w4a16_g32"), ("f16", "rk3588", "w8a8"), ("f16", "rk3562", "none")],
)
def test_gguf(tmp_path: Path, accepted: Any, *, release: str, gguf: str, platform: str, quant: str) -> None:
    inputs = Inputs(model=small_gguf(tmp_path / "model.gguf"), is_gguf=True, export_path=tmp_path / "out.rkllm")
    load, build, _ = accepted(release, Options(platform=platform, quant=quant), inputs, gguf=gguf)
    assert load == ("load_gguf", {"model": str(tmp_path / "model.gguf")})
    assert build[0] == "build"


@pytest.mark.parametrize("tokenizer", [None, True, False])
@pytest.mark.parametrize("embedding", [None, True, False])
def test_parts_of_the_export(inputs: Inputs, accepted: Any, *, tokenizer: bool | None, embedding: bool | None) -> None:
    options = Options(platform="rk3588", quant="w8a8", export_tokenizer=tokenizer, export_embedding=embedding)
    *_, (_, export) = accepted("1.3.0", options, inputs)
    asked = {"export_tokenizer": tokenizer, "export_embedding": embedding}
    assert export == {
        "export_path": str(inputs.export_path),
        **{name: value for name, value in asked.items() if value is not None},
    }


def test_calls_are_values(inputs: Inputs) -> None:
    options = Options(platform="rk3588", quant="w8a8")
    made = calls(options, inputs, toolkit("1.3.0"))
    assert made == calls(options, inputs, toolkit("1.3.0"))
    assert made[2] == Call("export_rkllm", {"export_path": str(inputs.export_path)})
