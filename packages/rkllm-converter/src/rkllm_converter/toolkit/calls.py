"""The calls of the toolkit that a conversion takes, as values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkllm_converter.options import Options
from rkllm_converter.toolkit.versions import Toolkit

__all__ = ["Call", "Inputs", "calls"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """The files.

    - `model`: a folder as Hugging Face has it, or a .gguf file
    - `lora`: the folder of an adapter
    - `custom_config`: JSON that names the modules of an architecture that the toolkit does not know
    - `qparams`: the *.qparams of an earlier conversion
    - `dataset`: JSON, the texts to calibrate with
    """

    model: Path
    is_gguf: bool = False
    lora: Path | None = None
    custom_config: Path | None = None
    qparams: Path | None = None
    dataset: Path | None = None
    export_path: Path


@dataclass(frozen=True, slots=True)
class Call:
    """One method of RKLLM, and what it gets, all by name and fit for JSON."""

    method: str
    arguments: dict[str, Any]


def calls(options: Options, inputs: Inputs, toolkit: Toolkit) -> tuple[Call, ...]:
    """Load, build, export. `options` are to have passed the check.

    Every argument that matters is given: which defaults a release has is not documented.
    """
    return _load(options, inputs), _build(options, inputs), _export(options, inputs, toolkit)


def _load(options: Options, inputs: Inputs) -> Call:
    if inputs.is_gguf:
        return Call("load_gguf", {"model": str(inputs.model)})
    return Call(
        "load_huggingface",
        {
            "model": str(inputs.model),
            "model_lora": _text(inputs.lora),
            "device": options.device,
            "dtype": options.dtype,
            "custom_config": _text(inputs.custom_config),
            "load_weight": True,
        },
    )


def _build(options: Options, inputs: Inputs) -> Call:
    arguments: dict[str, Any] = {
        "do_quantization": options.is_quantised,
        "optimization_level": options.optimization_level,
        "target_platform": options.platform,
        "num_npu_core": options.cores,
        "max_context": options.max_context,
    }
    if options.is_quantised:
        arguments |= {
            "quantized_dtype": options.quant,
            "quantized_algorithm": options.algorithm,
            "extra_qparams": _text(inputs.qparams),
            "dataset": _text(inputs.dataset),
            "hybrid_rate": options.hybrid_rate,
        }
    return Call("build", arguments)


def _export(options: Options, inputs: Inputs, toolkit: Toolkit) -> Call:
    arguments: dict[str, Any] = {"export_path": str(inputs.export_path)}
    if toolkit.exports_parts:
        parts = {"export_tokenizer": options.export_tokenizer, "export_embedding": options.export_embedding}
        arguments |= {name: value for name, value in parts.items() if value is not None}
    return Call("export_rkllm", arguments)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
