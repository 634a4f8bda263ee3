"""The stand-in toolkit in this process and on disk, toolkits that do one bad thing, and small models for them."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from converter_gguf import write_gguf

from rkllm_converter.standin import write_stand_in
from rkllm_converter.toolkit.calls import Call

RELEASES = ("1.2.3", "1.3.0")

SMALL_CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "eos_token_id": 3,
}
"""k_proj and v_proj put out 512, all others more: every legal group size divides them."""

BUILD: dict[str, Any] = {
    "do_quantization": True,
    "optimization_level": 1,
    "quantized_dtype": "w4a16_g32",
    "quantized_algorithm": "normal",
    "target_platform": "rk3576",
    "num_npu_core": 2,
    "hybrid_rate": 0.0,
    "max_context": 4096,
}
"""What a legal build is given, after a load of small_model on a GPU or not."""


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="converter-stand-in-")


@functools.cache
def stand_in(version: str) -> Any:
    """Its module rkllm.api, as it is when it has been written out, under a name of its own."""
    name = f"converter_stand_in_{version.replace('.', '_')}"
    package = write_stand_in(Path(_folder().name) / version, version) / "rkllm"
    spec = importlib.util.spec_from_file_location(
        name, package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return importlib.import_module(f"{name}.api")


def first_refused(version: str, calls: Iterable[Call]) -> str | None:
    """The method of the first call that the stand-in says no to."""
    toolkit = stand_in(version).RKLLM()
    for call in calls:
        try:
            result = getattr(toolkit, call.method)(**call.arguments)
        except TypeError:
            return call.method
        if result != 0:
            return call.method
    return None


def recorded(file: Path) -> list[dict[str, Any]]:
    """The lines of RKLLM_STANDIN_RECORD so far."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []


def small_model(folder: Path, **changes: Any) -> Path:
    """A model folder with a configuration and a few bytes of weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**SMALL_CONFIG, **changes}), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"\0" * 64)
    return folder


def small_gguf(path: Path, kind: int | None = 1, **changes: Any) -> Path:
    """The header of one with layers as in SMALL_CONFIG; `kind` is its general.file_type."""
    heads = {"llama__attention__head_count": 8, "llama__attention__head_count_kv": 4}
    widths = {"llama__embedding_length": 1024, "llama__feed_forward_length": 2048}
    return write_gguf(path, **{"general__file_type": kind, **heads, **widths, **changes})


def small_dataset(path: Path) -> Path:
    path.write_text(json.dumps([{"input": "Hello.", "target": "Good morning."}]), encoding="utf-8")
    return path


def small_lora(folder: Path) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    (folder / "adapter_model.safetensors").write_bytes(b"\0")
    return folder


def bad_toolkit(folder: Path, api: str, version: str = "1.3.0") -> Path:
    """One whose rkllm/api.py is that text."""
    write_stand_in(folder, version)
    (folder / "rkllm" / "api.py").write_text(api, encoding="utf-8")
    return folder


def package(folder: Path, name: str, version: str, **modules: str) -> Path:
    """An installed distribution with modules."""
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text, encoding="utf-8")
    return folder
