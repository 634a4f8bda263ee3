"""Taking readings one by one, so that one that fails or hangs does not lose the others; and what a reading may be."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from threading import Thread
from typing import TypeVar

T = TypeVar("T")
logger = logging.getLogger(__name__)

_LARGEST_SIZE = 2**63 - 1  # NVML says "not available" as 2**64 - 1
_LONGEST_REASON = 300


class NoAnswer(Exception):
    """A reading could not be taken. `cause` is what it raised, None if it ran out of time."""

    def __init__(self, reason: str, cause: BaseException | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.cause = cause


class UnusableValue(Exception):
    """A reading gave something that it cannot mean."""


class Reader:
    """Takes the readings of one probe and notes in `unknown` which of them failed and why.

    A reading may take `limit` seconds, all together may take `budget` seconds from now. One that takes longer is left
    behind on its thread and sets `hung`.
    """

    def __init__(self, *, budget: float = 4.0, limit: float = 1.0) -> None:
        self.unknown: list[str] = []
        self.hung = False
        self._limit = limit
        self._deadline = time.monotonic() + budget

    def note(self, sentence: str) -> None:
        """Say what is not known and why."""
        self.unknown.append(sentence)

    def read(self, what: str, *calls: Callable[[], T], limit: float | None = None) -> T | None:
        """The answer of the first of `calls` that has one; else None, and a note that begins with `what`."""
        reasons: list[str] = []
        for call in calls:
            try:
                return self.attempt(call, limit=limit)
            except NoAnswer as failed:
                reasons.append(failed.reason)
        self.note(f"{what}: {'; '.join(reasons)}")
        return None

    def attempt(self, call: Callable[[], T], *, limit: float | None = None) -> T:
        """The answer of `call`. Raises NoAnswer, notes nothing."""
        seconds = min(limit or self._limit, self._deadline - time.monotonic())
        if seconds <= 0:
            raise NoAnswer("not asked, the time for this probe was used up")
        try:
            future = in_background(call)
        except RuntimeError as error:  # no thread can be started
            raise NoAnswer(describe(error), error) from error
        try:
            raised = future.exception(seconds)
        except FutureTimeoutError:
            self.hung = True
            raise NoAnswer(f"no answer within {seconds:.1f} seconds") from None
        if raised is not None:
            logger.debug("a reading failed", exc_info=raised)
            raise NoAnswer(describe(raised), raised) from raised
        return future.result()


def in_background(call: Callable[[], T]) -> Future[T]:
    """Start `call` on a daemon thread of its own: nobody has to wait for one that never returns."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - native libraries raise anything; whoever waits gets it
            future.set_exception(error)

    Thread(target=run, name="topology-reading", daemon=True).start()
    return future


def describe(error: BaseException) -> str:
    """One line that says what went wrong. A library's own exceptions speak for themselves; others need their type."""
    name = type(error).__name__
    try:
        message = printable(str(error))
    except Exception:  # noqa: BLE001 - pynvml asks the broken library for the text; the type is all there is then
        return name
    if len(message) > _LONGEST_REASON:
        message = message[:_LONGEST_REASON] + "…"
    if not message:
        return name
    return f"{name}: {message}" if type(error).__module__ == "builtins" else message


def printable(value: str) -> str:
    """`value` on one line, without NULs, and without lone surrogates, which no JSON encoder takes."""
    return " ".join(value.replace("\0", " ").encode("utf-8", "replace").decode("utf-8").split())


def text(value: object) -> str:
    """A text that is not empty; older libraries give bytes. Raises UnusableValue."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str) or not printable(value):
        raise UnusableValue(f"the answer was {value!r}, not a text")
    return printable(value)


def number(value: object, low: float, high: float) -> float:
    """A number from `low` to `high`, which NaN is not. Raises UnusableValue."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise UnusableValue(f"the answer was {value!r}, not a number")
    if not low <= value <= high:
        raise UnusableValue(f"the answer was {value!r}, not within {low:g} and {high:g}")
    return value


def size(value: object, *, low: int = 1) -> int:
    """A number of bytes. Raises UnusableValue."""
    return int(number(value, low, _LARGEST_SIZE))


def count(value: object, *, low: int = 0, high: int = 65_536) -> int:
    """A number of things. Raises UnusableValue."""
    return int(number(value, low, high))


def fraction(value: object) -> float:
    """From 0 to 1. Raises UnusableValue."""
    return float(number(value, 0, 1))


def temperature(value: object) -> float:
    """Degrees Celsius. Raises UnusableValue."""
    return float(number(value, -100, 300))


def power(value: object) -> float:
    """Watts. Raises UnusableValue."""
    return float(number(value, 0, 100_000))
