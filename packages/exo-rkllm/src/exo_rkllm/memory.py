"""Whether a model fits into memory. Decisions only: whoever asks loads and unloads."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exo.types import InsufficientMemory

if TYPE_CHECKING:  # the planner is imported with the first model, not when a node starts
    from rkllm_facts.architecture import Architecture

MIB = 1 << 20
MARGIN_SHARE = 0.05
MARGIN_FIXED = 128 * MIB
"""What an unknown model takes beyond weights and KV cache. The fixed part is for the worker, the runtime's own
buffers and what else runs on the board meanwhile; the share is for buffers that grow with the model. It errs on the
safe side: the runtime leaves the embeddings on disk, and the whole file is counted."""

WORKER = 30 * MIB
"""The most that the worker takes by itself, in addition to what Rockchip's own programs take."""

_FLOAT16 = 2
_LARGEST = 1 << 20
Candidate = tuple[str, int, float]
"""A model that could go: its id, the bytes that it would free, and the time of its last use."""


@dataclass(frozen=True, slots=True)
class KvGeometry:
    """What the size of the KV cache depends on."""

    layers: int
    kv_heads: int
    head_dim: int

    @property
    def bytes_per_position(self) -> int:
        """Keys and values of all layers for one token, in float16."""
        return 2 * self.layers * self.kv_heads * self.head_dim * _FLOAT16


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """What a load takes, in bytes. `kv` is 0 where the geometry is not known."""

    weights: int
    kv: int
    margin: int

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.margin


def needed(weights_bytes: int, kv: KvGeometry | None, context: int) -> MemoryNeed:
    """What a model file of `weights_bytes` takes once loaded with `context` tokens.

    The runtime makes room for the whole context when it loads.
    """
    return MemoryNeed(
        weights=weights_bytes,
        kv=kv.bytes_per_position * context if kv else 0,
        margin=math.ceil(weights_bytes * MARGIN_SHARE) + MARGIN_FIXED,
    )


def planned(
    file_bytes: int, architecture: Architecture, context: int, platform: str | None = None
) -> MemoryNeed | None:
    """As `needed`, by the planner: what `exo plan` says of this model, and by how much more nineteen of twenty models
    were found to need at most. None if the file cannot be of this model."""
    from rkllm_facts.planner import calibration, memory_of_file  # noqa: PLC0415 - see above

    parts = memory_of_file(architecture, file_bytes / MIB, context=context, platform=platform)
    if parts is None:
        return None
    sizes = {part.name: math.ceil(part.value * MIB) for part in parts}
    weights, kv = sizes.pop("weights"), sizes.pop("KV cache", 0)
    doubt = math.ceil(sum(part.value for part in parts) * MIB * calibration().memory_doubt)
    return MemoryNeed(weights=weights, kv=kv, margin=sum(sizes.values()) + WORKER + doubt)


def available(root: Path) -> int | None:
    """Bytes that can be had without swapping, by MemAvailable of `root`/proc/meminfo; None if that is not known.

    The NPU has no memory of its own.
    """
    return _meminfo(root, "MemAvailable")


def installed(root: Path) -> int | None:
    """Bytes of memory that the kernel has to give, by MemTotal; None if that is not known."""
    return _meminfo(root, "MemTotal")


def _meminfo(root: Path, name: str) -> int | None:
    try:
        text = (root / "proc/meminfo").read_text(encoding="ascii", errors="replace")
    except (OSError, ValueError):
        return None
    found = re.search(rf"^{name}:\s+([0-9]{{1,15}}) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def choose_evictions(
    need: int, free: int, idle: Sequence[Candidate], busy: Sequence[Candidate] = (), *, least: int = 0
) -> list[str] | None:
    """Which models have to go, so that `need` bytes are free: idle ones before busy ones, of each the least recently
    used ones first. `least` is how many have to go in any case.

    Empty if there is room already, None if even all of them are not enough.
    """
    chosen: list[str] = []
    for model, size, _ in [*_oldest_first(idle), *_oldest_first(busy)]:
        if free >= need and len(chosen) >= least:
            break
        chosen.append(model)
        free += size
    return chosen if free >= need else None


def _oldest_first(models: Sequence[Candidate]) -> list[Candidate]:
    return sorted(models, key=lambda one: one[2])


def refusal(model: str, need: MemoryNeed, free: int, others: Sequence[Candidate] = ()) -> InsufficientMemory:
    """What to raise in place of loading the model. The numbers in the message are in MiB."""
    freed = sum(size for _, size, _ in others)
    more = f", and unloading the other models would free {_mib(freed)} more" if others else ""
    message = (
        f"The model {model} needs about {_mib(need.total)} of memory (weights {_mib(need.weights)}, KV cache "
        f"{_mib(need.kv)}, margin {_mib(need.margin)}), but only {_mib(free)} are available{more}. "
        "Serve it with a smaller context (NUM_CTX in its Modelfile), take a smaller model, or end other programs; "
        "RKLLM_MEMORY_CHECK=no loads it all the same."
    )
    return InsufficientMemory(message, needed=need.total, available=free)


def read_architecture(folder: Path) -> Architecture | None:
    """From the config.json that Hugging Face models come with.

    None if the folder has none, or if it says too little, or is of a family that is not understood.
    """
    from rkllm_facts.architecture import architecture_of  # noqa: PLC0415 - see above
    from rkllm_facts.errors import FactsError  # noqa: PLC0415 - as above

    config = _read_config(folder)
    try:
        found = None if config is None else architecture_of(config)
    except FactsError:
        return None
    return found if found and found.is_understood else None


def read_geometry(folder: Path) -> KvGeometry | None:
    """As read_architecture, for which a configuration may say too little."""
    config = _read_config(folder)
    if config is None:
        return None
    text = config.get("text_config")  # of models that see
    return geometry_of(text if isinstance(text, dict) else config)


def _read_config(folder: Path) -> dict[str, Any] | None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return config if isinstance(config, dict) else None


def geometry_of(config: Mapping[str, Any]) -> KvGeometry | None:
    """From the keys of Hugging Face's configurations; None if they do not tell."""
    layers, heads = _count(config, "num_hidden_layers"), _count(config, "num_attention_heads")
    kv_heads, head_dim = _count(config, "num_key_value_heads") or heads, _count(config, "head_dim")
    width = _count(config, "hidden_size")
    if head_dim is None and width and heads:
        head_dim = width // heads
    return KvGeometry(layers, kv_heads, head_dim) if layers and kv_heads and head_dim else None


def _count(config: Mapping[str, Any], key: str) -> int | None:
    found = config.get(key)
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 < found <= _LARGEST else None


def _mib(size: int) -> str:
    return f"{math.ceil(size / MIB)} MiB"
