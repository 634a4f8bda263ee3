"""One reading that fails or hangs does not lose the others."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread

import pytest

from exo.topology import NoAnswer, Reader
from exo.topology.readings import UnusableValue, count, describe, fraction, number, power, size, temperature, text


class VendorError(Exception):
    """Stands for a library's own exception, which speaks for itself."""


class Mute(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise OSError("the library that knows the text is gone")


def failing(error: BaseException) -> Callable[[], int]:
    def call() -> int:
        raise error

    return call


def test_an_answer_is_returned_and_nothing_noted(reader: Reader) -> None:
    assert reader.read("Power", lambda: 7) == 7
    assert reader.unknown == []


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (VendorError("Not Supported"), "Power: Not Supported"),
        (RuntimeError("no sensor"), "Power: RuntimeError: no sensor"),
        (KeyError("vram_size"), "Power: KeyError: 'vram_size'"),
        (VendorError(), "Power: VendorError"),
        (VendorError("two\nlines\0"), "Power: two lines"),
        (VendorError("x" * 1000), "Power: " + "x" * 300 + "…"),
        (Mute(), "Power: Mute"),
        (SystemExit(3), "Power: SystemExit: 3"),
        (KeyboardInterrupt(), "Power: KeyboardInterrupt"),
    ],
)
def test_any_exception_becomes_a_sentence(reader: Reader, error: BaseException, sentence: str) -> None:
    assert reader.read("Power", failing(error)) is None
    assert reader.read("Next", lambda: 7) == 7
    assert reader.unknown == [sentence]


def test_the_first_call_that_answers_counts(reader: Reader) -> None:
    assert reader.read("Memory", failing(VendorError("a")), lambda: 7, failing(VendorError("b"))) == 7
    assert reader.unknown == []


def test_all_failures_are_told_if_no_call_answers(reader: Reader) -> None:
    assert reader.read("Memory", failing(VendorError("a")), failing(VendorError("b"))) is None
    assert reader.unknown == ["Memory: a; b"]


def test_a_reading_that_hangs_is_left_behind(never: Event) -> None:
    reader = Reader(budget=60, limit=0.05)
    assert reader.read("Slow", never.wait) is None
    assert reader.hung
    assert reader.read("Next", lambda: 7, limit=30) == 7
    assert reader.unknown == ["Slow: no answer within 0.1 seconds"]


def test_a_time_out_of_the_library_is_its_own_error_and_no_hang(reader: Reader) -> None:
    assert reader.read("Power", failing(TimeoutError("the bus is busy"))) is None
    assert not reader.hung
    assert reader.unknown == ["Power: TimeoutError: the bus is busy"]


def test_nothing_is_asked_after_the_budget() -> None:
    asked: list[int] = []
    reader = Reader(budget=0)
    assert reader.read("Power", lambda: asked.append(1)) is None
    assert asked == []
    assert reader.unknown == ["Power: not asked, the time for this probe was used up"]


def test_a_machine_without_a_free_thread_is_a_sentence(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Thread, "start", start)
    assert reader.read("Power", lambda: 7) is None
    assert reader.unknown == ["Power: RuntimeError: can't start new thread"]


def test_attempt_gives_the_cause(reader: Reader) -> None:
    error = VendorError("gone")
    with pytest.raises(NoAnswer) as caught:
        reader.attempt(failing(error))
    assert caught.value.cause is error
    assert reader.unknown == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [("Tesla", "Tesla"), (b"Tesla \xff", "Tesla �"), (" a\tb\0", "a b"), ("lone \ud800", "lone ?")],
)
def test_texts(value: object, expected: str) -> None:
    assert text(value) == expected


@pytest.mark.parametrize("value", [None, "", b"", "\0 ", 7, object()])
def test_what_is_no_text(value: object) -> None:
    with pytest.raises(UnusableValue):
        text(value)


@pytest.mark.parametrize("value", [None, "7", True, float("nan"), float("inf"), -1, 11, object()])
def test_what_is_no_number_from_0_to_10(value: object) -> None:
    with pytest.raises(UnusableValue):
        number(value, 0, 10)


def test_the_ranges() -> None:
    assert size(2**63 - 1) == 2**63 - 1  # no detour by float, which cannot hold it
    assert size(0, low=0) == 0
    assert count(0) == 0
    assert fraction(1) == 1.0
    assert temperature(-5) == -5.0
    assert power(0) == 0.0


@pytest.mark.parametrize(
    ("convert", "value"),
    [(size, 0), (size, 2**64 - 1), (count, 2**32 - 1), (fraction, 1.01), (temperature, 65535), (power, -1)],
)
def test_values_that_cannot_be(convert: Callable[[object], float], value: int) -> None:
    with pytest.raises(UnusableValue, match=r"not within"):
        convert(value)


def test_describe_names_the_type_of_builtin_exceptions_only() -> None:
    assert describe(VendorError("gone")) == "gone"
    assert describe(OSError(13, "Permission denied")) == "PermissionError: [Errno 13] Permission denied"
