"""A run against an earlier one: ratios now / before."""

from __future__ import annotations

import msgspec

from exo.benchmark.results import Part, Run
from exo.benchmark.statistics import MEAN, Spread, Summary, summarise


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """Now / before of one prompt, level or length: of the medians, for the prompts' mean of the means.

    None is what one of the two does not know.
    """

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
    for model in now.settings.models:
        new, old = _answering(now, model), _answering(before, model)
        if new and old and new != old:
            found.append(f"{model} was answered by: {_shown(new)} now, {_shown(old)} before")
    found += [f"the run {when} was interrupted" for when, run in (("now", now), ("before", before)) if not run.complete]
    if _counting(now) != _counting(before):
        found.append("tokens were counted in another way")
    return found


def _counting(run: Run) -> set[str]:
    return {sample.counted_by for sample in run.samples if sample.error is None}


def _answering(run: Run, model: str) -> tuple[str, ...]:
    """The models that answered where `model` was asked, as far as the server told."""
    counted = (one for one in run.samples if one.model == model and one.part != "warm-up" and one.error is None)
    return tuple(sorted({one.answered_by for one in counted if one.answered_by is not None}))


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value) or "unknown"


def _ratio(now: Summary, before: Summary) -> Ratio:
    """Of the numbers that the tables of the two runs show."""
    mean = now.name == MEAN
    return Ratio(
        part=now.part,
        model=now.model,
        name=now.name,
        first_token=_of_middles(now.first_token, before.first_token, mean=mean),
        tokens_per_s=_of_middles(now.tokens_per_s, before.tokens_per_s, mean=mean),
        total=_of_middles(now.total, before.total, mean=mean),
        prefill_tokens_per_s=_of_middles(now.prefill_tokens_per_s, before.prefill_tokens_per_s, mean=mean),
        total_tokens_per_s=_divided(now.total_tokens_per_s, before.total_tokens_per_s),
    )


def _of_middles(now: Spread | None, before: Spread | None, *, mean: bool) -> float | None:
    if now is None or before is None:
        return None
    return _divided(now.mean, before.mean) if mean else _divided(now.median, before.median)


def _divided(now: float | None, before: float | None) -> float | None:
    return None if now is None or not before else now / before
