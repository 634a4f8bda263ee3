"""Sums over requests."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measured_server import measured, sample

from exo.benchmark.results import Settings
from exo.benchmark.statistics import MEAN, Spread, percentile, spread, summarise


def test_a_spread() -> None:
    found = spread([4.0, 1.0, None, 3.0, 2.0])
    assert found is not None
    assert (found.count, found.mean, found.median, found.minimum, found.maximum) == (4, 2.5, 2.5, 1.0, 4.0)
    assert found.p95 == pytest.approx(3.85)
    assert found.deviation == pytest.approx(1.2909944)


def test_a_single_value_does_not_deviate() -> None:
    assert spread([2.0]) == Spread(count=1, mean=2.0, median=2.0, minimum=2.0, maximum=2.0, p95=2.0, deviation=0.0)


def test_nothing_known_is_no_spread() -> None:
    assert spread([None, None]) is None
    assert spread([]) is None


@given(st.lists(st.floats(0, 1e6), min_size=1).map(sorted), st.floats(0, 100))
def test_a_percentile_lies_between_its_neighbours(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    below = values[int((len(values) - 1) * percent / 100)]
    assert below <= found or found == pytest.approx(below)
    assert found <= values[-1] or found == pytest.approx(values[-1])
    assert (percentile(values, 0), percentile(values, 100)) == (values[0], values[-1])


def test_the_prompts_and_their_mean() -> None:
    run = measured(
        [
            sample("warm-up", part="warm-up", first_token=99.0),
            sample("Math", first_token=1.0),
            sample("Code", first_token=4.0),
            sample("Math", first_token=3.0),
        ]
    )
    found = {one.name: one for one in summarise(run)}
    assert list(found) == ["Math", "Code", MEAN]
    assert [one.requests for one in found.values()] == [2, 1, 3]
    math, mean = found["Math"].first_token, found[MEAN].first_token
    assert math is not None
    assert mean is not None
    assert math.median == 2.0
    assert mean.mean == pytest.approx(8 / 3)


def test_a_failed_request_is_counted_and_nothing_else() -> None:
    found, _ = summarise(measured([sample(), sample(error="no", first_token=77.0, completion_tokens=0)]))
    assert (found.requests, found.errors) == (2, 1)
    assert found.first_token is not None
    assert found.first_token.maximum == 0.5
    assert found.completion_tokens is not None
    assert found.completion_tokens.count == 1


def test_only_failures_leave_no_numbers() -> None:
    found, _ = summarise(measured([sample(error="no")]))
    assert (found.errors, found.first_token, found.tokens_per_s) == (1, None, None)


def test_a_level_counts_the_tokens_of_all_from_the_first_start_to_the_last_end() -> None:
    settings = Settings(models=("one",), concurrency=(1, 2, 4))
    level = {"part": "concurrency", "level": 2}
    run = measured(
        [
            sample("Math", **level, started=10.0, total=2.0, completion_tokens=30),
            sample("Code", **level, started=11.0, total=4.0, completion_tokens=20),
            sample("Code", **level, started=11.0, total=90.0, completion_tokens=900, error="no"),
        ],
        settings=settings,
    )
    (found,) = summarise(run)
    assert (found.part, found.name, found.requests, found.errors) == ("concurrency", "2", 3, 1)
    assert found.total_tokens_per_s == 10.0


def test_models_stay_apart() -> None:
    run = measured([sample(model="a", first_token=1.0), sample(model="b", first_token=2.0)])
    assert [(one.model, one.name) for one in summarise(run)] == [("a", "Math"), ("a", MEAN), ("b", "Math"), ("b", MEAN)]


@pytest.mark.parametrize(
    "fields", [{"first_token": None}, {"completion_tokens": 1}, {"first_token": 2.5}, {"completion_tokens": 0}]
)
def test_no_speed_where_there_is_nothing_to_divide(fields: dict[str, Any]) -> None:
    assert sample(**fields).tokens_per_s is None
