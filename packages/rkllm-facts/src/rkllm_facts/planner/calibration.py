"""The constants of the planner, fitted by bench/planner.py to Rockchip's measurements.

A time is `speed * (bulk + calls * per_call + mixing * per_mixing + state * per_state)`: one speed for each chip and
type that was measured, and the three other constants for all of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from rkllm_facts.chips import chip, group_size
from rkllm_facts.planner.work import Work, weight_bits

__all__ = ["Calibration", "Errors", "MemoryConstants", "Speed", "TimeConstants", "calibration", "pair"]


@dataclass(frozen=True, slots=True)
class Errors:
    """Median relative errors when the model that is predicted was left out of the fit: 0.05 for 5 %."""

    tokens_per_s: float
    ttft_ms: float
    memory_mb: float


@dataclass(frozen=True, slots=True)
class Speed:
    """`value` in ms for each unit of bulk. `measured` is the chip and type whose rows it is from, `exact` if these are
    the ones asked for."""

    value: float
    measured: str
    exact: bool


@dataclass(frozen=True, slots=True)
class TimeConstants:
    """`speeds` by `pair`, in ms for each unit of bulk work; `per_…` in units of bulk.

    `group_slowdowns` by chip: by how much a type with groups of 128 is slower than without, 0.5 for half as long again.
    """

    per_call: float
    per_mixing: float
    per_state: float
    speeds: Mapping[str, float]
    group_slowdowns: Mapping[str, float]

    @property
    def weights(self) -> tuple[float, float, float, float]:
        return 1.0, self.per_call, self.per_mixing, self.per_state

    def units(self, work: Work) -> float:
        return math.fsum(weight * amount for weight, amount in zip(self.weights, work.vector))

    def speed(self, platform: str, type_name: str) -> Speed:
        """That of the pair, or what the nearest measured ones let expect.

        A type of other groups is taken from one with groups, or without, in proportion to the number of groups; a type
        that no row of the chip has, from the chip that is nearest in speed with both types.
        """
        here = pair(platform, type_name)
        if here in self.speeds:
            return Speed(self.speeds[here], here, exact=True)
        plain = type_name.partition("_")[0]
        base, measured = self._plain(platform, plain)
        return Speed(base * self._slower_by_groups(platform, type_name), measured, exact=False)

    def _plain(self, platform: str, plain: str) -> tuple[float, str]:
        """Speed of a type without groups, and whose rows it is from."""
        here = pair(platform, plain)
        if here in self.speeds:
            return self.speeds[here], here
        known = pair(platform, "w8a8")
        like = _LIKE[chip(platform).target_platform]
        bits = f"w{weight_bits(plain)}a16"
        ratio = self.speeds[pair(like, bits)] / self.speeds[pair(like, "w8a8")]
        return self.speeds[known] * ratio, f"{known} and {pair(like, bits)}"

    def _slower_by_groups(self, platform: str, type_name: str) -> float:
        groups = group_size(type_name)
        if groups is None:
            return 1.0
        here = chip(platform).target_platform
        slowdown = self.group_slowdowns.get(here.upper(), self.group_slowdowns[_LIKE[here]])
        return 1 + slowdown * 128 / groups


_LIKE = {"rk3588": "RK3576", "rk3576": "RK3576", "rk3562": "RV1126B", "rv1126b": "RV1126B"}
"""The chip that is most like another one and was measured with four-bit types: big cores and small ones."""


@dataclass(frozen=True, slots=True)
class MemoryConstants:
    """- `base_mb`: program, library and their buffers
    - `per_token_bytes`: of the vocabulary, for the tokenizer
    - `scale_bytes`: of each group of weights
    - `context`: positions of KV cache that the rows are taken to have
    """

    base_mb: float
    per_token_bytes: float
    scale_bytes: float
    context: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """`fitted` is the day; `errors` by `pair`, `overall` those of all rows."""

    fitted: str
    generation: TimeConstants
    prefill: TimeConstants
    memory: MemoryConstants
    errors: Mapping[str, Errors]
    overall: Errors


@cache
def calibration() -> Calibration:
    """The file is read when it is first asked for."""
    text = (files("rkllm_facts") / "data" / "planner.json").read_text(encoding="utf-8")
    return _calibration(json.loads(text))


def _calibration(read: Mapping[str, Any]) -> Calibration:
    return Calibration(
        fitted=read["fitted"],
        generation=TimeConstants(**read["generation"]),
        prefill=TimeConstants(**read["prefill"]),
        memory=MemoryConstants(**read["memory"]),
        errors={name: Errors(**values) for name, values in read["errors"].items()},
        overall=Errors(**read["overall"]),
    )


def pair(platform: str, type_name: str) -> str:
    """As the tables have it: `RK3588 w8a8`, for RK3588S too."""
    return f"{chip(platform).target_platform.upper()} {type_name.lower()}"
