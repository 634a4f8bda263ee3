"""Numbers as people read them."""

from __future__ import annotations

import pytest

from exo.benchmark.figures import count, known, middle, rate, seconds
from exo.benchmark.statistics import spread


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 ms"), (0.00123, "1.23 ms"), (0.0123, "12 ms"), (0.5, "500 ms"), (1.234, "1.23 s"), (123.4, "123 s")],
)
def test_seconds(value: float, shown: str) -> None:
    assert seconds(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (12345, "12345")])
def test_rates(value: float, shown: str) -> None:
    assert rate(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(12, "12"), (12.0, "12"), (12.34, "12.3")])
def test_counts(value: float, shown: str) -> None:
    assert count(value) == shown


def test_what_nobody_knows() -> None:
    assert (known(None, rate), middle(None, rate)) == ("-", "-")


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.1, 0.2, 0.9], "200 ms (100 to 900)"),
        ([0.1, 0.2, 1.5], "200 ms (100 ms to 1.50 s)"),
        ([0.2], "200 ms"),
        ([0.2001, 0.2002], "200 ms"),
    ],
)
def test_a_middle_and_its_ends_say_the_unit_once(values: list[float], shown: str) -> None:
    assert middle(spread(values), seconds) == shown


def test_a_mean() -> None:
    assert middle(spread([1.0, 1.0, 4.0]), rate, mean=True) == "2.00 (1.00 to 4.00)"
