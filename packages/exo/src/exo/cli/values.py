"""Text from flags and variables to values. Every parser raises ValueError with what it expected."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

from exo.cluster.membership.announcement import is_node_name


def text(value: str) -> str:
    return value


def whole(low: int, high: int) -> Callable[[str], int]:
    """A parser for whole numbers from `low` to `high`."""

    def parse(value: str) -> int:
        expected = f"expected a whole number from {low} to {high}"
        try:
            number = int(value)
        except ValueError:
            raise ValueError(expected) from None
        if not low <= number <= high:
            raise ValueError(expected)
        return number

    return parse


def seconds(value: str) -> float:
    expected = "expected a number of seconds, 0 or more"
    try:
        number = float(value)
    except ValueError:
        raise ValueError(expected) from None
    if not 0 <= number < math.inf:
        raise ValueError(expected)
    return number


def some_seconds(value: str) -> float:
    """As `seconds`, but more than 0."""
    number = seconds(value)
    if number == 0:
        raise ValueError("expected more than 0 seconds")
    return number


def yes_or_no(value: str) -> bool:
    if value.lower() in ("1", "true", "yes", "on"):
        return True
    if value.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("expected yes or no")


def one_of(*choices: str) -> Callable[[str], str]:
    """A parser for one of some words."""

    def parse(value: str) -> str:
        if value.lower() not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}")
        return value.lower()

    return parse


def node_name(value: str) -> str:
    if not is_node_name(value):
        raise ValueError(
            "expected 1 to 63 letters, digits, dots, hyphens and underscores, with a letter or digit first"
        )
    return value


def words(value: str) -> tuple[str, ...]:
    """Words between commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip())


def path(value: str) -> Path:
    try:
        return Path(value).expanduser()
    except RuntimeError as error:  # no such user, or a user without a home
        raise ValueError(str(error)) from None


def folder(value: str) -> Path:
    """A folder, which need not be there yet."""
    named = path(value)
    if os.path.isfile(named):  # noqa: PTH113 - False for what may not be looked at
        raise ValueError("expected a folder, this is a file")
    return named
