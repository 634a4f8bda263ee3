"""Progress lines and the table at the end."""

from __future__ import annotations

import io

import pytest

from rkllm_converter.batch.outcome import Outcome
from rkllm_converter.batch.showing import Show, duration, summary


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def screen(self) -> list[str]:
        """What is seen in the end, line by line."""
        return [line.rpartition("\r\x1b[K")[2] for line in self.getvalue().split("\n")]


def play(stream: io.StringIO) -> None:
    show = Show(stream)
    show.began(2, 10, "a-rk3588-w8a8")
    show.heard("phase: build \x1b[2J")
    show.told("the log cannot be written")
    show.heard("phase: export")
    show.ended(Outcome("a-rk3588-w8a8", "done", "/m/a", seconds=65))


def test_in_a_pipe_each_step_is_a_line() -> None:
    stream = io.StringIO()
    play(stream)
    assert stream.getvalue().splitlines() == [
        "[2/10] a-rk3588-w8a8",
        "  phase: build \\x1b[2J",
        "  the log cannot be written",
        "  phase: export",
        "  done after 1 min 5 s",
    ]


def test_on_a_terminal_a_conversion_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    play(stream)
    assert stream.screen == ["the log cannot be written", "[2/10] a-rk3588-w8a8  done after 1 min 5 s", ""]
    assert "[2/10] a-rk3588-w8a8  phase: build \\x1b[2J" in stream.getvalue()


def test_a_line_does_not_leave_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    show = Show(stream)
    show.began(1, 1, "a-name-that-is-longer")
    show.heard("words")
    assert stream.screen == ["[1/1] a-name-that-…"]


def test_the_table() -> None:
    outcomes = [
        Outcome("first", "done", "/m/first", 754.0, 1952.4, 16.66, fits=False),
        Outcome("second-longer", "failed", "/m/s", 0.44, error=("Gated", "Ask for it.\nMore.\x07"), log="/l/s.log"),
        Outcome("third", "stopped", "/m/t", 12.2, log="/l/t.log"),
        Outcome("fourth", "not begun", "/m/f"),
    ]
    assert list(summary(outcomes)) == [
        "NAME           RESULT     TIME         SIZE     TOKENS/S",
        "first          done       12 min 34 s  1952 MB  16.7",
        "second-longer  failed     0.4 s        -        -",
        "third          stopped    12 s         -        -",
        "fourth         not begun  -            -        -",
        "",
        "first: it is not expected to fit into the board's memory.",
        "second-longer: Ask for it. ...",
        "  log: /l/s.log",
    ]


def test_a_table_without_notes_ends_with_its_rows() -> None:
    assert len(list(summary([Outcome("a", "done", "/m/a")]))) == 2


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 0 min"),
        (12_000, "3 h 20 min"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
