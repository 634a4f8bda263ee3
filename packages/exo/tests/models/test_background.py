from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from exo.models.background import in_background

LIMIT = 10.0


def never() -> threading.Event:
    return threading.Event()


def test_what_is_yielded_comes_in_order() -> None:
    def work() -> Generator[int, None, None]:
        yield from range(1000)

    assert list(in_background(work(), never())) == list(range(1000))


def test_an_error_comes_after_what_was_yielded() -> None:
    def work() -> Generator[int, None, None]:
        yield 1
        raise ZeroDivisionError

    found = in_background(work(), never())
    assert next(found) == 1
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_work_that_hangs_is_left_and_closed_once_it_goes_on() -> None:
    go_on, closed, left = threading.Event(), threading.Event(), threading.Event()

    def work() -> Generator[int, None, None]:
        try:
            yield 1
            go_on.wait(LIMIT)
            yield 2
        finally:
            closed.set()

    found = in_background(work(), left)
    assert next(found) == 1
    left.set()
    assert list(found) == []
    assert not closed.is_set()
    go_on.set()
    assert closed.wait(LIMIT)


def test_work_is_closed_when_nobody_reads_on() -> None:
    closed = threading.Event()

    def work() -> Generator[int, None, None]:
        try:
            yield from range(1000)  # more than are kept
        finally:
            closed.set()

    found = in_background(work(), never())
    assert next(found) == 0
    found.close()
    assert closed.wait(LIMIT)
