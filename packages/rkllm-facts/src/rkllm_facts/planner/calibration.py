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
from rkllm_facts.planner.work import Work

__all__ = ["Calibration", "Errors", "MemoryConstants", "Speed", "Spread", "TimeConstants", "calibration", "pair"]


@dataclass(frozen=True, slots=True)
class Spread:
    """Of absolute relative errors, 0.05 for 5 %: `half` of them are at most this, and nine of ten at most `most`."""

    half: float
    most: float


@dataclass(frozen=True, slots=True)
class Errors:
    """Those of the planner when the model that is predicted was left out of the fit."""

    tokens_per_s: Spread
    ttft_ms: Spread
    memory_mb: Spread


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

    - `single_speeds`: of pairs of which one row of an older table is known, and nothing else
    - `group_slowdowns` by chip: by how much a type with groups of 128 is slower than without, beyond the reading of its
      scales; 0.5 for half as long again
    """

    per_call: float
    per_mixing: float
    per_state: float
    speeds: Mapping[str, float]
    single_speeds: Mapping[str, float]
    group_slowdowns: Mapping[str, float]

    @property
    def weights(self) -> tuple[float, float, float, float]:
        return 1.0, self.per_call, self.per_mixing, self.per_state

    def units(self, work: Work) -> float:
        return math.fsum(weight * amount for weight, amount in zip(self.weights, work.vector))

    def speed(self, platform: str, type_name: str) -> Speed:
        """That of the pair, or what its nearest measured one lets expect.

        That is the type without groups, or with those of 128; others cost in proportion to their number.
        """
        here = pair(platform, type_name)
        if here in self.speeds:
            return Speed(self.speeds[here], here, exact=True)
        if here in self.single_speeds:
            return Speed(self.single_speeds[here], here, exact=False)
        plain = type_name.partition("_")[0]
        known = {**self.speeds, **self.single_speeds}
        base = next(one for one in (plain, f"{plain}_g128") if pair(platform, one) in known)
        slower = self._slower_by_groups(platform, type_name) / self._slower_by_groups(platform, base)
        measured = pair(platform, base)
        return Speed(known[measured] * slower, measured, exact=False)

    def _slower_by_groups(self, platform: str, type_name: str) -> float:
        groups = group_size(type_name)
        if groups is None:
            return 1.0
        here = chip(platform).target_platform.upper()
        slowdown = self.group_slowdowns.get(here, self.group_slowdowns[_SMALL_CORES])
        return 1 + slowdown * min(128 / groups, _MOST_GROUPS)


_SMALL_CORES = "RV1126B"
"""Stands for RK3562, of which no type was measured with two sizes of groups: both have four small cores."""
_MOST_GROUPS = 2.0
"""Groups of 32 count as those of 64 do: no row has either, but in the one with groups of 32 on an RK3562 they cost next
to nothing."""


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
    """`fitted` is the day; `errors` by `pair`, `overall` those of all rows.

    `memory_doubt`: nineteen of twenty rows need at most this share more memory than was predicted.
    """

    fitted: str
    generation: TimeConstants
    prefill: TimeConstants
    memory: MemoryConstants
    errors: Mapping[str, Errors]
    overall: Errors
    memory_doubt: float


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
        errors={name: _errors(values) for name, values in read["errors"].items()},
        overall=_errors(read["overall"]),
        memory_doubt=read["memory_doubt"],
    )


def _errors(read: Mapping[str, Mapping[str, float]]) -> Errors:
    return Errors(**{figure: Spread(**spread) for figure, spread in read.items()})


def pair(platform: str, type_name: str) -> str:
    """As the tables have it: `RK3588 w8a8`, for RK3588S too."""
    return f"{chip(platform).target_platform.upper()} {type_name.lower()}"
