"""The protocol of a llama model's child process, with a stand-in for the model."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, final

import pytest

from rkllm_sim.llama import Lines, Refused, Run, Session

PIECES = (b"a", b" b", b"\xf0\x9f", None)
GREEDY = "0 40 0.9 1.0 0"
TIMEOUT = 20.0


class Scripted:
    """A model that says the ids 0 to 3 in turn, `end` of them; `before` is called with the number of the token."""

    context = 12
    pieces = PIECES

    def __init__(self, end: int = 99, before: Callable[[int], None] = lambda number: None) -> None:
        self.end = end
        self.before = before
        self.asked: list[list[int]] = []
        self.runs: list[Run] = []

    def next_token(self, ids: Sequence[int], run: Run) -> int | None:
        number = len(self.asked)
        self.before(number)
        self.asked.append(list(ids))
        self.runs.append(run)
        return number % len(PIECES) if number < self.end else None


@final
class Served:
    """A session on its own thread; `load` makes its model. Leaving the context ends its input and waits for it."""

    def __init__(self, load: Callable[[Path, int], Any]) -> None:
        self._reading, self._writing = os.pipe()
        self._answers: queue.Queue[str] = queue.Queue()
        session = Session(Lines(self._reading), self._answered, load)
        self._thread = threading.Thread(target=session.serve)

    def __enter__(self) -> Served:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        assert not self._thread.is_alive()
        os.close(self._reading)

    def _answered(self, data: bytes) -> None:
        assert data.endswith(b"\n")
        assert data.count(b"\n") == 1
        self._answers.put(data[:-1].decode())

    def say(self, *lines: str) -> None:
        os.write(self._writing, "".join(f"{line}\n" for line in lines).encode())

    def answers(self) -> list[str]:
        """The lines up to the first one that is no token."""
        lines = [self._answers.get(timeout=TIMEOUT)]
        while lines[-1].startswith("token "):
            lines.append(self._answers.get(timeout=TIMEOUT))
        return lines

    def close_input(self) -> None:
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1

    def end(self) -> list[str]:
        """End the input; what was answered and not yet taken."""
        self.close_input()
        self._thread.join(TIMEOUT)
        return [self._answers.get_nowait() for _ in range(self._answers.qsize())]


def served(model: Scripted) -> Served:
    return Served(lambda path, context: model)


def test_a_run_gives_ids_and_bytes_until_the_cap() -> None:
    model = Scripted()
    loaded: list[tuple[Path, int]] = []

    def load(path: Path, context: int) -> Scripted:
        loaded.append((path, context))
        return model

    with Served(load) as session:
        session.say("load /a b/m.gguf 12")
        assert session.answers() == ["ok"]
        session.say("run 3 5 0.5 4 0.9 1.1 -7 10 11 12")
        assert session.answers() == [
            *("token 0 61", "token 1 2062", "token 2 f09f", "token 3 -", "token 0 61", "end cap"),
        ]
    assert loaded == [(Path("/a b/m.gguf"), 12)]
    assert model.asked == [[10, 11, 12, *([0, 1, 2, 3][:count])] for count in range(5)]
    assert model.runs[0] == Run((10, 11, 12), 5, 0.5, 4, 0.9, 1.1, -7)


def test_the_end_of_sequence_ends_a_run_and_is_no_token() -> None:
    with served(Scripted(end=2)) as session:
        session.say("load m 12", f"run 1 5 {GREEDY} 9")
        assert session.answers() == ["ok"]
        assert session.answers() == ["token 0 61", "token 1 2062", "end eos"]


@pytest.mark.parametrize(("most", "tokens"), [("-1", 9), ("100", 9), ("0", 0), ("1", 1)])
def test_how_many_tokens_a_run_may_give(most: str, tokens: int) -> None:
    with served(Scripted()) as session:
        session.say("load m 12", f"run 3 {most} {GREEDY} 7 8 9")
        assert session.answers() == ["ok"]
        assert len(session.answers()) == tokens + 1  # 12 positions, of which the prompt takes 3


def test_abort_ends_a_run_before_its_next_token() -> None:
    session: Served
    model = Scripted(before=lambda number: session.say("abort") if number == 2 else None)
    with served(model) as session:
        session.say("load m 12", f"run 1 -1 {GREEDY} 9")
        assert session.answers() == ["ok"]
        assert session.answers() == ["token 0 61", "token 1 2062", "token 2 f09f", "end aborted"]
        session.say(f"run 1 1 {GREEDY} 9")
        assert session.answers() == ["token 3 -", "end cap"]


def test_an_abort_without_a_run_has_no_effect() -> None:
    with served(Scripted()) as session:
        session.say("abort", "load m 12", "abort")
        assert session.answers() == ["ok"]
        session.say(f"run 1 1 {GREEDY} 9")
        # The abort before it may still lie in the pipe when the run line comes; it is read first either way.
        assert session.answers() == ["token 0 61", "end cap"]


def test_lines_that_come_during_a_run_wait_for_it() -> None:
    session: Served
    model = Scripted(before=lambda number: session.say(f"run 1 1 {GREEDY} 9") if number == 0 else None)
    with served(model) as session:
        session.say("load m 12", f"run 1 2 {GREEDY} 9")
        assert session.answers() == ["ok"]
        assert session.answers() == ["token 0 61", "token 1 2062", "end cap"]
        assert session.answers() == ["token 2 f09f", "end cap"]


def test_the_end_of_the_input_ends_a_run_too() -> None:
    started, released = threading.Event(), threading.Event()

    def before(number: int) -> None:
        started.set()
        assert released.wait(TIMEOUT)

    with served(Scripted(before=before)) as session:
        session.say("load m 12", f"run 1 -1 {GREEDY} 9")
        assert session.answers() == ["ok"]
        assert started.wait(TIMEOUT)
        session.close_input()
        released.set()
        assert session.end() == ["token 0 61"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("fly", "unknown line 'fly'"),
        ("load m", "load needs GGUF_PATH N_CTX"),
        ("load m x", "load needs GGUF_PATH N_CTX"),
        ("load m 12", "a model is loaded already"),
        ("run", "a run needs COUNT"),
        ("run x 1 0 1 1 1 0 9", "a run needs COUNT"),
        (f"run 0 1 {GREEDY}", "0 ids were announced and 0 came"),
        (f"run 2 1 {GREEDY} 9", "2 ids were announced and 1 came"),
        (f"run 12 1 {GREEDY} {'9 ' * 12}", "the prompt has 12 tokens and the context 12"),
    ],
)
def test_a_line_that_cannot_be_done_is_answered_and_the_next_one_is_served(line: str, why: str) -> None:
    with served(Scripted()) as session:
        session.say("load m 12", line)
        assert session.answers() == ["ok"]
        (answer,) = session.answers()
        assert answer.startswith(f"error {why}")
        session.say(f"run 1 1 {GREEDY} 9")
        assert session.answers()[-1] == "end cap"


def test_a_run_before_a_load_and_a_load_that_fails_are_errors() -> None:
    def load(path: Path, context: int) -> Scripted:
        raise Refused(f"cannot load {path}:\nwhy\r\n not")

    with Served(load) as session:
        session.say(f"run 1 1 {GREEDY} 9", "load m 12")
        assert session.answers() == ["error no model is loaded"]
        assert session.answers() == ["error cannot load m: why not"]  # one line
