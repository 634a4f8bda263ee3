"""How fast a simulated board is: two numbers, a row of Rockchip's measurements, or what the planner expects."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from rkllm_facts.architecture import known_architecture
from rkllm_facts.benchmark import BenchmarkRow, find, rows
from rkllm_facts.chips import chip
from rkllm_facts.errors import FactsError, IllegalType, UnknownChip
from rkllm_facts.planner import calibration, plan, usual_type
from rkllm_sim.errors import BadOptions, UnknownProfile

__all__ = ["Pace", "pace", "profile_name", "profiles"]

_NEAR = 6

_PLANNED = "planned"
"""In the place of the SDK's version, where nothing was measured."""

_OTHERS = {"rk3588:qwen2.5-1.5b": (2.95, 60.0)}
"""Not on Rockchip's pages: what the servers for these boards are compared with, see docs/BENCHMARKS.md."""


@dataclass(frozen=True)
class Pace:
    """Milliseconds for each token. `source` is the profile's full name, empty for two numbers; the rest is what was
    measured or planned with it, None if that is not known."""

    prefill_ms: float
    decode_ms: float
    source: str = ""
    platform: str | None = None
    dtype: str | None = None
    memory_mb: float | None = None

    def model_options(self) -> dict[str, Any]:
        """What is known, as fields of ModelOptions."""
        known = {name: value for name, value in vars(self).items() if name != "source" and value is not None}
        return {**known, "memory_mb": round(self.memory_mb)} if self.memory_mb is not None else known


def pace(text: str) -> Pace:
    """`2.95,60` (ms for each prompt token, ms for each new token) or a profile: `PLATFORM:MODEL-PARAMS[:DTYPE[:SDK]]`.

    Of several rows that fit, the newest measurement counts, and in it the first. A known model that was not measured
    is planned; so is any if `planned` stands for the SDK. Raises BadOptions or UnknownProfile.
    """
    if ":" not in text:
        return _numbers(text)
    parts = [_platform(text.partition(":")[0]), *text.split(":")[1:]]
    whole = ":".join(parts).lower()
    if whole in _OTHERS:
        return Pace(*_OTHERS[whole], source=whole)
    platform, model = parts[:2]
    dtype, sdk = (*parts[2:], None, None)[:2]
    fitting = [row for row in find(platform=platform, dtype=dtype, sdk_version=sdk) if _is_model(row, model)]
    try:
        planned = _planned(parts) if not fitting else None
    except IllegalType as error:
        raise UnknownProfile(f"{_unknown(text, parts)} {error.message}") from error
    if planned is not None:
        return planned
    if not fitting or len(parts) > 4:
        raise UnknownProfile(_unknown(text, parts))
    newest = max(row.sdk_version for row in fitting)
    row = next(row for row in fitting if row.sdk_version == newest)
    return _of_row(row)


def profiles() -> tuple[Pace, ...]:
    """Every pace that has a name (`source`)."""
    measured = {profile_name(row): _of_row(row) for row in reversed(rows())}
    return (*(Pace(*times, source=name) for name, times in _OTHERS.items()), *reversed(measured.values()))


def profile_name(row: BenchmarkRow) -> str:
    """All four parts, such as `rk3588:qwen2.5-1.5b:w8a8:1.3.0`."""
    return f"{row.platform}:{row.model}-{row.params}:{row.dtype}:{row.sdk_version}".lower()


def _of_row(row: BenchmarkRow) -> Pace:
    return Pace(
        row.ms_per_prompt_token,
        row.ms_per_token,
        source=profile_name(row),
        platform=row.platform.lower(),
        dtype=row.dtype.lower(),
        memory_mb=row.memory_mb,
    )


def _planned(parts: list[str]) -> Pace | None:
    """Of a known model, with the prompt and the context of the measured ones; None if it cannot be planned.

    Raises IllegalType for a known model as a type that the chip does not run.
    """
    if len(parts) > 4 or parts[3:] not in ([], [_PLANNED]):
        return None
    platform, model = parts[0].lower(), parts[1].lower()
    try:
        dtype = parts[2] if len(parts) > 2 else usual_type(platform)
        found = plan(known_architecture(model), platform=platform, dtype=dtype, context=calibration().memory.context)
    except IllegalType:
        raise
    except FactsError:
        return None
    return Pace(
        round(found.ttft_ms / found.prompt_tokens, 3),
        round(found.ms_per_token, 3),
        source=f"{platform}:{model}:{found.quant}:{_PLANNED}",
        platform=platform,
        dtype=found.quant,
        memory_mb=round(found.memory_mb, 2),
    )


def _platform(name: str) -> str:
    """As the tables and the toolkit call it: rows of RK3588 are those of RK3588S too."""
    try:
        return chip(name).target_platform
    except UnknownChip:
        return name


def _numbers(text: str) -> Pace:
    try:
        prefill, decode = (float(number) for number in text.split(","))
    except ValueError:
        raise BadOptions(
            f"{text!r} is no pace: give milliseconds for a prompt token and a new token, such as 2.95,60, "
            "or a profile such as rk3588:qwen2.5-1.5b."
        ) from None
    if not (0 <= prefill < float("inf") and 0 <= decode < float("inf")):
        raise BadOptions(f"{text!r} is no pace: the times have to be 0 or more.")
    return Pace(prefill, decode)


def _is_model(row: BenchmarkRow, wanted: str) -> bool:
    return _plain(f"{row.model}-{row.params}") == _plain(wanted)


def _plain(name: str) -> str:
    """As benchmark.find compares the names of models."""
    return "".join(character for character in name.lower() if character not in "-_.")


def _unknown(text: str, parts: list[str]) -> str:
    """With the profiles nearest to what was asked for, in as many parts as were given."""
    count = max(2, min(len(parts), 4))
    known = dict.fromkeys(":".join(one.source.split(":")[:count]) for one in profiles())
    near = difflib.get_close_matches(text.lower(), list(known), n=_NEAR, cutoff=0.5) or list(known)[:_NEAR]
    return f"No profile is called {text!r}. Near ones: {', '.join(near)}. `rkllm-sim profiles` lists all."
