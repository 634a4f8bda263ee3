"""A run against an earlier one: ratios now / before."""

from __future__ import annotations

import msgspec

from exo.benchmark.results import Part, Run
from exo.benchmark.statistics import Spread, Summary, summarise


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """Now / before of one prompt, level or length: of the medians. None is what one of the two does not know."""

    part: Part
    model: str
    name: str
    first_token: float | None
    tokens_per_s: float | None
    total: float | None
    prefill_tokens_per_s: float | None
    total_tokens_per_s: float | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """`before` is when the earlier run started; `differences` are sentences about what was not the same."""

    before: str
    differences: tuple[str, ...]
    ratios: tuple[Ratio, ...]


def compare(now: Run, before: Run) -> Comparison:
    """Models are paired by name; where both runs have one model each, of whatever name, the two are paired."""
    names = {model: model for model in now.settings.models}
    if len(now.settings.models) == len(before.settings.models) == 1:
        names = {now.settings.models[0]: before.settings.models[0]}
    earlier = {(one.part, one.model, one.name): one for one in summarise(before)}
    pairs = ((one, earlier.get((one.part, names[one.model], one.name))) for one in summarise(now))
    return Comparison(
        before=before.started,
        differences=tuple(_differences(now, before)),
        ratios=tuple(_ratio(one, other) for one, other in pairs if other is not None),
    )


def _differences(now: Run, before: Run) -> list[str]:
    found = []
    for field in now.settings.__struct_fields__:
        new, old = getattr(now.settings, field), getattr(before.settings, field)
        if new != old:
            found.append(f"{field.replace('_', ' ')}: {_shown(new)} now, {_shown(old)} before")
    for field in ("url", "program", "version", "engine", "machine"):
        new, old = getattr(now.server, field), getattr(before.server, field)
        if new != old:
            found.append(f"{field} of the server: {_shown(new)} now, {_shown(old)} before")
    found += [f"the run {when} was interrupted" for when, run in (("now", now), ("before", before)) if not run.complete]
    if _counting(now) != _counting(before):
        found.append("tokens were counted in another way")
    return found


def _counting(run: Run) -> set[str]:
    return {sample.counted_by for sample in run.samples if sample.error is None}


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value) or "unknown"


def _ratio(now: Summary, before: Summary) -> Ratio:
    return Ratio(
        part=now.part,
        model=now.model,
        name=now.name,
        first_token=_of_medians(now.first_token, before.first_token),
        tokens_per_s=_of_medians(now.tokens_per_s, before.tokens_per_s),
        total=_of_medians(now.total, before.total),
        prefill_tokens_per_s=_of_medians(now.prefill_tokens_per_s, before.prefill_tokens_per_s),
        total_tokens_per_s=_divided(now.total_tokens_per_s, before.total_tokens_per_s),
    )


def _of_medians(now: Spread | None, before: Spread | None) -> float | None:
    return None if now is None or before is None else _divided(now.median, before.median)


def _divided(now: float | None, before: float | None) -> float | None:
    return None if now is None or not before else now / before
