"""What the charts of the page show, as data. The tables beside them have the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from exo.benchmark.plan import PROMPTS
from exo.benchmark.results import Part
from exo.benchmark.statistics import MEAN, Spread, Summary, median_of, p95_of

Take = Callable[[Summary], Spread | None]


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """`low` and `high` are the ends of the spread; `x` is the place on an axis of numbers."""

    x: float | None = None
    y: float
    low: float
    high: float


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """`color` counts the models; a dashed line is a second number of the same model."""

    label: str
    color: int
    dashed: bool = False
    points: tuple[Point | None, ...]


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """`part` is the key of the table beside it; without `labels` the x axis has numbers."""

    id: str
    part: Part
    title: str
    kind: Literal["bar", "line"]
    x: str
    y: str
    labels: tuple[str, ...] | None
    series: tuple[Series, ...]


def charts(models: Sequence[str], summaries: Sequence[Summary]) -> list[Chart]:
    """Those that have a point."""
    found = [*_prompts(models, summaries), *_concurrency(models, summaries), *_lengths(models, summaries)]
    return [chart for chart in found if any(point for series in chart.series for point in series.points)]


def _prompts(models: Sequence[str], summaries: Sequence[Summary]) -> list[Chart]:
    some = [one for one in summaries if one.part == "prompts"]
    names = tuple(name for name in [*PROMPTS, MEAN] if any(one.name == name for one in some))

    def series(take: Take, factor: float) -> tuple[Series, ...]:
        return tuple(
            Series(
                label=model,
                color=color,
                points=tuple(
                    _point(next((take(one) for one in some if (one.model, one.name) == (model, name)), None),
                           factor, mean=name == MEAN)
                    for name in names
                ),
            )
            for color, model in enumerate(models)
        )  # fmt: skip

    unit, factor = _unit([one.first_token for one in some])
    first = series(lambda one: one.first_token, factor)
    rates = series(lambda one: one.tokens_per_s, 1)
    return [
        Chart(id="first-token", part="prompts", title="Time to first token", kind="bar", x="", y=unit,
              labels=names, series=first),
        Chart(id="speed", part="prompts", title="Tokens per second", kind="bar", x="", y="tokens/s",
              labels=names, series=rates),
    ]  # fmt: skip


def _concurrency(models: Sequence[str], summaries: Sequence[Summary]) -> list[Chart]:
    some = [one for one in summaries if one.part == "concurrency"]
    unit, factor = _unit([one.first_token for one in some])
    rates, waits = [], []
    for color, model in enumerate(models):
        own = [one for one in some if one.model == model]
        together = tuple(_at(one.name, one.total_tokens_per_s, 1) for one in own)
        each = tuple(_at(one.name, median_of(one.tokens_per_s), 1) for one in own)
        rates.append(Series(label=f"{model}, all", color=color, points=together))
        rates.append(Series(label=f"{model}, each", color=color, dashed=True, points=each))
        half = tuple(_at(one.name, median_of(one.first_token), factor) for one in own)
        most = tuple(_at(one.name, p95_of(one.first_token), factor) for one in own)
        waits.append(Series(label=f"{model}, p50", color=color, points=half))
        waits.append(Series(label=f"{model}, p95", color=color, dashed=True, points=most))
    across = "requests at a time"
    return [
        Chart(id="concurrency-speed", part="concurrency", title="Tokens per second, all and each", kind="line",
              x=across, y="tokens/s", labels=None, series=tuple(rates)),
        Chart(id="concurrency-first-token", part="concurrency", title="Time to first token, p50 and p95", kind="line",
              x=across, y=unit, labels=None, series=tuple(waits)),
    ]  # fmt: skip


def _lengths(models: Sequence[str], summaries: Sequence[Summary]) -> list[Chart]:
    some = [one for one in summaries if one.part == "lengths"]
    unit, factor = _unit([one.first_token for one in some])

    def series(take: Take, factor: float) -> tuple[Series, ...]:
        return tuple(
            Series(
                label=model,
                color=color,
                points=tuple(_point(take(one), factor, x=_length(one)) for one in some if one.model == model),
            )
            for color, model in enumerate(models)
        )

    first = series(lambda one: one.first_token, factor)
    prefill = series(lambda one: one.prefill_tokens_per_s, 1)
    across = "prompt tokens"
    return [
        Chart(id="lengths-first-token", part="lengths", title="Time to first token by prompt length", kind="line",
              x=across, y=unit, labels=None, series=first),
        Chart(id="lengths-prefill", part="lengths", title="Prefill tokens per second", kind="line",
              x=across, y="tokens/s", labels=None, series=prefill),
    ]  # fmt: skip


def _unit(values: Sequence[Spread | None]) -> tuple[str, float]:
    """The unit of a time axis, and what seconds are multiplied with."""
    largest = max((one.maximum for one in values if one is not None), default=0.0)
    return ("ms", 1000) if largest < 1 else ("s", 1)


def _length(one: Summary) -> float:
    """As the server counted it, else as it was asked for."""
    return float(one.name) if one.prompt_tokens is None else one.prompt_tokens.median


def _point(values: Spread | None, factor: float, *, x: float | None = None, mean: bool = False) -> Point | None:
    if values is None:
        return None
    y = values.mean if mean else values.median
    return Point(x=x, y=y * factor, low=values.minimum * factor, high=values.maximum * factor)


def _at(x: str, value: float | None, factor: float) -> Point | None:
    """Without a spread."""
    if value is None:
        return None
    return Point(x=float(x), y=value * factor, low=value * factor, high=value * factor)
