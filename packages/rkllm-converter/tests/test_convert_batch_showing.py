"""Progress lines and the table at the end."""

from __future__ import annotations

import io

import pytest

from rkllm_converter.batch.outcome import Outcome
from rkllm_converter.batch.showing import Show, summary


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
        Outcome("first", "done", "/m/first", 754.0, 1952.4, 16.66, 1771, fits=True, margin_fits=True),
        Outcome("second-longer", "failed", "/m/s", 0.44, error=("Gated", "Ask for it.\nMore.\x07"), log="/l/s.log"),
        Outcome("third", "stopped", "/m/t", 12.2, log="/l/t.log"),
        Outcome("fourth", "not begun", "/m/f"),
    ]
    assert list(summary(outcomes)) == [
        "NAME           RESULT     TIME         SIZE      TOKENS/S  BOARD MEMORY",
        "first          done       12 min 34 s  1,952 MB  16.7      1,771 MB fits",
        "second-longer  failed     0.4 s        -         -         -",
        "third          stopped    12 s         -         -         -",
        "fourth         not begun  -            -         -         -",
        "",
        "second-longer: Ask for it.",
        "  More.\\x07",
        "  log: /l/s.log",
    ]


@pytest.mark.parametrize(
    ("memory", "fits", "margin_fits", "cell"),
    [
        (7154, True, False, "7,154 MB just"),
        (7154, True, None, "7,154 MB fits"),
        (7154, False, False, "7,154 MB no"),
        (7154, None, None, "7,154 MB"),
        (None, False, None, "no"),
        (None, None, None, "-"),
    ],
)
def test_whether_it_fits_the_board(
    memory: float | None,
    fits: bool | None,  # noqa: FBT001 - a parameter of the cases
    margin_fits: bool | None,  # noqa: FBT001 - as above
    cell: str,
) -> None:
    one = Outcome("a", "planned", "/m/a", 1.0, 3.2, 4.1, memory, fits, margin_fits)
    assert [*summary([one])][1].split("  ")[-1].strip() == cell


def test_what_many_have_in_common_is_said_once() -> None:
    outcomes = [
        Outcome(f"n{number}", "failed", f"/m/n{number}", error=("X", "No network."), log=f"/l/n{number}.log")
        for number in range(10)
    ]
    outcomes[3] = Outcome("n3", "failed", "/m/n3", error=("X", "Another."))
    outcomes += [
        Outcome(name, "planned", f"/m/{name}", notes=("By a hair.", note))
        for name, note in (("a", "One."), ("b", "Two."))
    ]
    assert [*summary(outcomes)][13:] == [
        "",
        "a, b: By a hair.",
        "a: One.",
        "b: Two.",
        "",
        "9 conversions: No network.",
        "  logs: /l",
        "n3: Another.",
    ]


def test_what_differs_in_names_only_is_said_once() -> None:
    def failed(name: str, model: str) -> Outcome:
        message = f"The hub cannot be reached for {model}.\nLog: /out/.{name}.work/log, of {name}"
        return Outcome(name, "failed", f"/out/{name}", error=("HubUnreachable", message), model=model)

    models = ("a/b", "a/b-Instruct", "a/bc", "a/d")
    outcomes = [failed(f"{name}-rk3588", name) for name in models]
    assert [*summary(outcomes)][6:] == [
        "4 conversions: The hub cannot be reached for ….",
        "  Log: /out/.….work/log, of …",
    ]
    assert [*summary(outcomes[:1])][3] == "a/b-rk3588: The hub cannot be reached for a/b."


def test_a_short_name_is_not_taken_for_a_part_of_a_word() -> None:
    outcomes = [Outcome(name, "failed", "/m", error=("X", f"Bad {name} data")) for name in ("a", "d")]
    assert [*summary(outcomes)][4:] == ["a, d: Bad … data"]


def test_of_a_long_error_the_last_lines_are_shown() -> None:
    message = "build failed. The last lines:\n" + "\n".join(f"line {number}" for number in range(12))
    assert [*summary([Outcome("a", "failed", "/m/a", error=("CallFailed", message))])][3:] == [
        "a: build failed. The last lines:",
        "  ...",
        *(f"  line {number}" for number in range(6, 12)),
    ]


@pytest.mark.parametrize("message", ["", " \n"])
def test_an_error_without_words_has_its_type(message: str) -> None:
    assert [*summary([Outcome("a", "failed", "/m/a", error=("Odd", message))])][-1] == "a: Odd"


def test_a_table_without_notes_ends_with_its_rows() -> None:
    assert len(list(summary([Outcome("a", "done", "/m/a")]))) == 2
