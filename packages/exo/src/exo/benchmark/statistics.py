"""Sums over the requests of a run. Pure: samples in, numbers out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

import msgspec

from exo.benchmark.results import Part, Run, Sample

MEAN = "mean"
"""The name of the sum over all prompts of a model."""


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """How values lie. `deviation` is the standard deviation of the sample, 0 for a single value."""

    count: int
    mean: float
    median: float
    minimum: float
    maximum: float
    p95: float
    deviation: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of one prompt, one level or one length, to one model; times in seconds.

    `tokens_per_s` is that of single requests; `total_tokens_per_s` that of all requests of a level together. None is
    what no request could tell.
    """

    part: Part
    model: str
    name: str
    requests: int
    errors: int
    first_token: Spread | None
    first_answer: Spread | None
    tokens_per_s: Spread | None
    completion_tokens: Spread | None
    total: Spread | None
    prompt_tokens: Spread | None
    prefill_tokens_per_s: Spread | None
    total_tokens_per_s: float | None = None


def summarise(run: Run) -> list[Summary]:
    """For each model: its prompts and their mean, its levels, its lengths, as far as they were measured."""
    found = []
    for model in run.settings.models:
        prompts = [sample for sample in run.samples if sample.model == model and sample.part == "prompts"]
        found += [_summary("prompts", model, name, some) for name, some in _by_name(prompts)]
        if prompts:
            found.append(_summary("prompts", model, MEAN, prompts))
        for level in run.settings.concurrency:
            some = [one for one in run.samples if (one.model, one.part, one.level) == (model, "concurrency", level)]
            if some:
                found.append(_summary("concurrency", model, str(level), some))
        lengths = [sample for sample in run.samples if sample.model == model and sample.part == "lengths"]
        found += [_summary("lengths", model, name, some) for name, some in _by_name(lengths)]
    return found


def spread(values: Iterable[float | None]) -> Spread | None:
    """Of the values that are known; None if none is."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    return Spread(
        count=len(known),
        mean=statistics.fmean(known),
        median=statistics.median(known),
        minimum=known[0],
        maximum=known[-1],
        p95=percentile(known, 95),
        deviation=statistics.stdev(known) if len(known) > 1 else 0.0,
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Between the two nearest ranks, by a straight line. `ordered` rises and is not empty."""
    place = (len(ordered) - 1) * percent / 100
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def median_of(values: Spread | None) -> float | None:
    return None if values is None else values.median


def p95_of(values: Spread | None) -> float | None:
    return None if values is None else values.p95


def _by_name(samples: Iterable[Sample]) -> list[tuple[str, list[Sample]]]:
    names: dict[str, list[Sample]] = {}
    for sample in samples:
        names.setdefault(sample.name, []).append(sample)
    return list(names.items())


def _summary(part: Part, model: str, name: str, samples: Sequence[Sample]) -> Summary:
    good = [sample for sample in samples if sample.error is None]
    return Summary(
        part=part,
        model=model,
        name=name,
        requests=len(samples),
        errors=len(samples) - len(good),
        first_token=spread(sample.first_token for sample in good),
        first_answer=spread(sample.first_answer for sample in good),
        tokens_per_s=spread(sample.tokens_per_s for sample in good),
        completion_tokens=spread(sample.completion_tokens for sample in good),
        total=spread(sample.total for sample in good),
        prompt_tokens=spread(sample.prompt_tokens for sample in good),
        prefill_tokens_per_s=spread(sample.prefill_tokens_per_s for sample in good),
        total_tokens_per_s=_together(good) if part == "concurrency" else None,
    )


def _together(samples: Sequence[Sample]) -> float | None:
    """Tokens of all by the time from the first start to the last end."""
    if not samples:
        return None
    begin, end = min(one.started for one in samples), max(one.started + one.total for one in samples)
    return sum(one.completion_tokens for one in samples) / (end - begin) if end > begin else None
