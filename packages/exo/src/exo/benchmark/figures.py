"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Callable

from exo.benchmark.statistics import Spread

NOTHING = "-"
"""In place of a number that nobody knows."""


def seconds(value: float) -> str:
    """In milliseconds below one second."""
    if 0 < value < 0.01:
        return f"{value * 1000:.2f} ms"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.2f} s" if value < 100 else f"{value:.0f} s"


def rate(value: float) -> str:
    """Three digits or more."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def count(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:.1f}"


def moment(iso: str) -> str:
    """A time of day in UTC, from ISO 8601."""
    return iso.replace("T", " ").replace("+00:00", " UTC")


def known(value: float | None, write: Callable[[float], str]) -> str:
    return NOTHING if value is None else write(value)


def middle(values: Spread | None, write: Callable[[float], str], *, mean: bool = False) -> str:
    """The median (or the mean), and from where to where the values go if they are not all the same."""
    if values is None:
        return NOTHING
    shown = write(values.mean if mean else values.median)
    low, high = write(values.minimum), write(values.maximum)
    if low == high:
        return shown
    if len({_unit(text) for text in (shown, low, high)}) == 1:  # which is then said once
        low, high = low.split()[0], high.split()[0]
    return f"{shown} ({low} to {high})"


def _unit(text: str) -> str:
    return text.partition(" ")[2]
