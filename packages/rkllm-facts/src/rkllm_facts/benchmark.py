"""Rockchip's own measurements of speed and memory, from the benchmark pages of the releases 1.2.3 and 1.3.0.

The files are read when they are first asked for. The same model may be written in two ways (Gemma3n, Gemma-3n), so
look-ups disregard case, hyphens, underscores and dots in its name.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = [
    "BenchmarkRow",
    "MultimodalRow",
    "find",
    "find_multimodal",
    "multimodal_rows",
    "rows",
]

_MISPRINTED_UNITS = {("1.2.3", "RK3576", "DeepSeekOCR-3B(A570M)", "img-encoder", "2.27", "ms"): "s"}
"""The page of 1.3.0 has the same figure in seconds, and no other encoder is a hundred times as fast."""

_MS = {"ms": 1.0, "s": 1000.0}


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """One run: `seqlen` tokens of prompt, `new_tokens` generated.

    `params` is the size as printed (`1.8B`, `E2B`, `3B(A570M)`). `ttft_ms` is the time to the first token,
    `tokens_per_s` the speed after it, `memory_mb` the peak; None where it was not printed.
    """

    sdk_version: str
    platform: str
    model: str
    params: str
    dtype: str
    seqlen: int
    new_tokens: int
    ttft_ms: float
    tokens_per_s: float
    memory_mb: float | None

    @property
    def ms_per_prompt_token(self) -> float:
        """Of the prefill, taken as proportional to the prompt."""
        return self.ttft_ms / self.seqlen

    @property
    def ms_per_token(self) -> float:
        """Of the generation."""
        return 1000 / self.tokens_per_s


@dataclass(frozen=True, slots=True)
class MultimodalRow:
    """One vision model: an image of `image_size` (width, height) encoded, then a prompt of `prompt_tokens`."""

    sdk_version: str
    platform: str
    model: str
    dtype: str
    image_size: tuple[int, int]
    image_encode_ms: float
    prompt_tokens: int
    prefill_ms: float
    tokens_per_s: float


@cache
def rows() -> tuple[BenchmarkRow, ...]:
    """Every run of a language model, in the order of the pages."""
    return tuple(
        BenchmarkRow(
            sdk_version=row["sdk_version"],
            platform=row["platform"],
            model=row["model"],
            params=row["params"],
            dtype=row["dtype"],
            seqlen=int(row["seqlen"]),
            new_tokens=int(row["new_tokens"]),
            ttft_ms=float(row["ttft_ms"]),
            tokens_per_s=float(row["tokens_per_s"]),
            memory_mb=float(row["memory_mb"]) if row["memory_mb"] else None,
        )
        for row in _read("text.csv")
    )


@cache
def multimodal_rows() -> tuple[MultimodalRow, ...]:
    """Every vision model, in the order of the pages."""
    stages: dict[tuple[str, str, str, str], dict[str, tuple[str, float]]] = {}
    for row in _read("multimodal.csv"):
        key = (row["sdk_version"], row["platform"], row["model"], row["dtype"])
        stages.setdefault(key, {})[row["stage"]] = (row["stage_param"], _ms_or_speed(row))
    return tuple(_multimodal(key, measured) for key, measured in stages.items())


def find(
    *,
    sdk_version: str | None = None,
    platform: str | None = None,
    model: str | None = None,
    params: str | None = None,
    dtype: str | None = None,
    seqlen: int | None = None,
) -> tuple[BenchmarkRow, ...]:
    """The runs that have all of the given values; empty if there is none."""
    wanted = {"sdk_version": sdk_version, "platform": platform, "model": model, "params": params, "dtype": dtype}
    keys = {name: _key(name, value) for name, value in wanted.items() if value is not None}
    return tuple(
        row
        for row in rows()
        if (seqlen is None or row.seqlen == seqlen)
        and all(_key(name, getattr(row, name)) == key for name, key in keys.items())
    )


def find_multimodal(
    *, sdk_version: str | None = None, platform: str | None = None, model: str | None = None, dtype: str | None = None
) -> tuple[MultimodalRow, ...]:
    """The vision models that have all of the given values; empty if there is none."""
    wanted = {"sdk_version": sdk_version, "platform": platform, "model": model, "dtype": dtype}
    keys = {name: _key(name, value) for name, value in wanted.items() if value is not None}
    return tuple(
        row for row in multimodal_rows() if all(_key(name, getattr(row, name)) == key for name, key in keys.items())
    )


def _key(column: str, value: str) -> str:
    return re.sub(r"[-_.]", "", value).lower() if column == "model" else value.lower()


def _read(name: str) -> Iterator[dict[str, str]]:
    text = (files(__package__) / "data" / name).read_text(encoding="utf-8")
    return iter(csv.DictReader(text.splitlines()))


def _ms_or_speed(row: dict[str, str]) -> float:
    """Milliseconds, or tokens per second."""
    printed = (row["sdk_version"], row["platform"], row["model"], row["stage"], row["value"], row["unit"])
    unit = _MISPRINTED_UNITS.get(printed, row["unit"])
    return float(row["value"]) * _MS.get(unit, 1.0)


def _multimodal(key: tuple[str, str, str, str], measured: dict[str, tuple[str, float]]) -> MultimodalRow:
    sdk_version, platform, model, dtype = key
    size, image_encode_ms = measured["img-encoder"]
    length, prefill_ms = measured["prefill"]
    width, height = size.split("*")
    return MultimodalRow(
        sdk_version=sdk_version,
        platform=platform,
        model=model,
        dtype=dtype,
        image_size=(int(width), int(height)),
        image_encode_ms=image_encode_ms,
        prompt_tokens=int(length.removeprefix("len=")),
        prefill_ms=prefill_ms,
        tokens_per_s=measured["decode"][1],
    )
