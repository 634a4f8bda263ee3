"""What a library may do that the simulator does not: callbacks without a result, aborts at awkward moments."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from runtime_fake import FakeRaw, fake_model, finish, wait_for
from runtime_sim import Tokens

from exo_rkllm.runtime import CallFailed, ModelBusy
from rkllm_facts.abi import SUPPORTED


@pytest.fixture(params=SUPPORTED)
def abi(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- callbacks ---


def test_results_that_are_null_are_survived_in_every_state(tmp_path: Path, abi: str) -> None:
    def play(raw: FakeRaw) -> int:
        for state in ("NORMAL", "WAITING", "NORMAL", "ERROR", "FINISH"):
            raw.emit(state, null=True)
        raw.emit("NORMAL", b"a", 97)
        raw.emit("NORMAL", null=True)
        return 0

    model, _ = fake_model(tmp_path, abi, play)
    outcome = model.run([1], tokens := Tokens())
    assert (tokens.pieces, tokens.ids) == ([b"", b"", b"", b"a", b""], [-1, -1, -1, 97, -1])
    assert (outcome.tokens, outcome.finished, outcome.error, outcome.perf) == (5, True, True, None)


def test_only_normal_callbacks_are_read(tmp_path: Path, abi: str) -> None:
    """In the other states the fields hold whatever the library left there: here an address that leads nowhere."""

    def play(raw: FakeRaw) -> int:
        for state in ("WAITING", "ERROR", "HIDDEN", "FINISH"):
            raw.emit(state, 1, 5)
        return 0

    model, _ = fake_model(tmp_path, abi, play)
    model.run([1], tokens := Tokens())
    assert (tokens.pieces, tokens.ids) == ([b""], [-1])


def test_the_callback_answers_go_on(tmp_path: Path, abi: str) -> None:
    answers: list[int | None] = []

    def play(raw: FakeRaw) -> int:
        answers.extend(raw.emit(state, b"x", 1) for state in ("NORMAL", "WAITING", "HIDDEN", "FINISH"))
        return 0

    model, _ = fake_model(tmp_path, abi, play)
    model.run([1], Tokens())
    assert set(answers) == ({0} if abi in {"1.2.3", "1.3.0"} else {None})


def test_results_at_changing_addresses_are_all_read(tmp_path: Path, abi: str) -> None:
    def play(raw: FakeRaw) -> int:
        for number in range(40):
            raw.emit("NORMAL", str(number).encode(), number)
        return finish(raw)

    model, _ = fake_model(tmp_path, abi, play)
    for _ in range(2):
        model.run([1], tokens := Tokens())
        assert tokens.ids == list(range(40))
        assert tokens.pieces == [str(number).encode() for number in range(40)]


def test_an_error_callback_of_a_run_that_returns_0_is_told(tmp_path: Path, abi: str) -> None:
    def play(raw: FakeRaw) -> int:
        raw.emit("ERROR")
        return 0

    model, _ = fake_model(tmp_path, abi, play)
    outcome = model.run([1], Tokens())
    assert (outcome.error, outcome.finished) == (True, False)


def test_callbacks_after_the_return_belong_to_nobody(tmp_path: Path, abi: str) -> None:
    model, raw = fake_model(tmp_path, abi, finish)
    model.run([1], tokens := Tokens())
    raw.emit("NORMAL", b"late", 1)
    assert tokens.ids == []


def test_callbacks_may_come_on_another_thread(tmp_path: Path, abi: str) -> None:
    """Then abort() from inside on_token is still left to a third one."""
    callers: list[str] = []

    def play(raw: FakeRaw) -> int:
        thread = threading.Thread(target=lambda: raw.emit("NORMAL", b"x", 1), name="library")
        raw.on_abort = lambda: callers.append(threading.current_thread().name)
        thread.start()
        thread.join()
        wait_for(raw.aborted)
        return finish(raw)

    model, _ = fake_model(tmp_path, abi, play)
    model.run([1], Tokens(lambda _count: model.abort()))
    assert callers == ["rkllm-abort"]


# --- abort ---


def test_an_abort_before_the_library_says_that_it_runs_comes_with_the_first_token(tmp_path: Path, abi: str) -> None:
    entered, asked = threading.Event(), threading.Event()

    def play(raw: FakeRaw) -> int:
        entered.set()
        wait_for(asked)
        assert raw.log == ["run"]
        raw.emit("NORMAL", b"a", 97)
        wait_for(raw.aborted)
        raw.emit("NORMAL", b"b", 98)
        return finish(raw)

    model, raw = fake_model(tmp_path, abi, play)

    def abort() -> None:
        wait_for(entered)
        model.abort()
        asked.set()

    thread = threading.Thread(target=abort)
    thread.start()
    model.run([1], tokens := Tokens())
    thread.join()
    assert tokens.text == "ab"
    assert raw.log == ["run", "abort", "returned"]


def test_an_abort_in_prefill_is_passed_on_at_once_if_the_library_says_that_it_runs(tmp_path: Path, abi: str) -> None:
    def play(raw: FakeRaw) -> int:
        raw.runs_now = 1
        threading.Thread(target=model.abort).start()
        wait_for(raw.aborted)
        return finish(raw)

    model, raw = fake_model(tmp_path, abi, play)
    model.run([1], Tokens())
    assert raw.log == ["run", "abort", "returned"]


def test_an_abort_that_is_lost_in_prefill_is_repeated_with_the_first_token(tmp_path: Path, abi: str) -> None:
    def play(raw: FakeRaw) -> int:
        raw.runs_now = 1
        for _ in range(2):
            thread = threading.Thread(target=model.abort)
            thread.start()
            thread.join()
        assert raw.log == ["run", "abort"]
        raw.aborted.clear()
        raw.emit("NORMAL", b"a", 97)
        wait_for(raw.aborted)
        raw.emit("NORMAL", b"b", 98)
        return finish(raw)

    model, raw = fake_model(tmp_path, abi, play)
    model.run([1], tokens := Tokens(lambda count: model.abort() if count == 2 else None))
    assert tokens.text == "ab"
    assert raw.log == ["run", "abort", "abort", "returned"]


@pytest.mark.parametrize("state", ["FINISH", "ERROR"])
def test_no_abort_after_the_last_callback(tmp_path: Path, abi: str, state: str) -> None:
    def play(raw: FakeRaw) -> int:
        raw.runs_now = 1
        raw.emit("NORMAL", b"a", 97)
        raw.emit(state)
        thread = threading.Thread(target=model.abort)
        thread.start()
        thread.join()
        return 0

    model, raw = fake_model(tmp_path, abi, play)
    model.run([1], Tokens())
    assert raw.log == ["run", "returned"]


def test_an_abort_that_is_late_does_not_meet_the_next_run(tmp_path: Path, abi: str) -> None:
    """As if the thread that was to abort the first run got its turn only in the second."""
    numbers: list[int] = []

    def play(raw: FakeRaw) -> int:
        raw.emit("NORMAL", b"a", 97)
        numbers.append(model._run_number)
        if len(numbers) == 2:
            model._abort(numbers[0])
        return finish(raw)

    model, raw = fake_model(tmp_path, abi, play)
    model.run([1], Tokens())
    model.run([1], Tokens())
    assert numbers[0] != numbers[1]
    assert "abort" not in raw.log


def test_a_run_returns_only_after_an_abort_that_is_under_way(tmp_path: Path, abi: str) -> None:
    """So the library never gets an abort of one run during the next."""
    in_abort, leave = threading.Event(), threading.Event()

    def play(raw: FakeRaw) -> int:
        raw.emit("NORMAL", b"a", 97)

        def slow() -> None:
            in_abort.set()
            wait_for(leave)

        raw.on_abort = slow
        threading.Thread(target=model.abort).start()
        wait_for(in_abort)
        return finish(raw)

    model, raw = fake_model(tmp_path, abi, play)
    returned = threading.Event()

    def run() -> None:
        model.run([1], Tokens())
        returned.set()

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(in_abort)
    while "returned" not in raw.log:
        thread.join(0.001)
    assert not returned.wait(0.05)
    leave.set()
    wait_for(returned)


def test_an_aborted_run_may_return_an_error(tmp_path: Path, abi: str) -> None:
    def play(raw: FakeRaw) -> int:
        raw.emit("NORMAL", b"a", 97)
        wait_for(raw.aborted)
        raw.emit("ERROR")
        return -1

    model, _ = fake_model(tmp_path, abi, play)
    assert model.run([1], Tokens(lambda _count: model.abort())).error


def test_a_run_is_prepared_before_an_abort_can_see_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an abort at that moment would look at the end of the run before, and be lost."""
    model, _ = fake_model(tmp_path, "1.3.0", finish)
    locked: list[bool] = []
    begin = model._receiver.begin

    def watched(*arguments: Any) -> None:
        locked.append(model._lock.locked())
        begin(*arguments)

    monkeypatch.setattr(model._receiver, "begin", watched)
    model.run([1], Tokens())
    assert locked == [True]


def test_an_abort_that_the_library_refuses_is_told(tmp_path: Path, abi: str) -> None:
    caught: list[BaseException] = []

    def refused() -> None:
        try:
            model.abort()
        except CallFailed as error:
            caught.append(error)

    def play(raw: FakeRaw) -> int:
        raw.runs_now, raw.abort_code = 1, -1
        thread = threading.Thread(target=refused)
        thread.start()
        thread.join()
        return finish(raw)

    model, _ = fake_model(tmp_path, abi, play)
    model.run([1], Tokens())
    assert [str(error).partition(".")[0] for error in caught] == ["rkllm_abort returned -1"]


def test_an_abort_from_inside_that_the_library_refuses_is_logged(
    tmp_path: Path, abi: str, caplog: pytest.LogCaptureFixture
) -> None:
    def play(raw: FakeRaw) -> int:
        raw.runs_now, raw.abort_code = 1, -1
        raw.emit("NORMAL", b"a", 97)
        wait_for(raw.aborted)
        return finish(raw)

    model, _ = fake_model(tmp_path, abi, play)
    model.run([1], Tokens(lambda _count: model.abort()))
    for thread in threading.enumerate():
        if thread.name == "rkllm-abort":
            thread.join(10)
    assert "could not be ended" in caplog.text
    assert "rkllm_abort returned -1" in caplog.text


def test_the_first_of_several_failures_of_the_callback_is_raised(tmp_path: Path, abi: str) -> None:
    def play(raw: FakeRaw) -> int:
        for number in range(3):
            raw.emit("NORMAL", b"a", number)
        wait_for(raw.aborted)
        raw.emit("NORMAL", b"b", 4)
        return -1

    def then(count: int) -> None:
        raise LookupError(count)

    model, raw = fake_model(tmp_path, abi, play)
    with pytest.raises(LookupError, match="1"):
        model.run([1], tokens := Tokens(then))
    assert tokens.ids == [0]
    assert raw.log == ["run", "abort", "returned"]


def test_a_second_run_has_to_wait_for_the_first(tmp_path: Path) -> None:
    inside, leave = threading.Event(), threading.Event()

    def play(raw: FakeRaw) -> int:
        inside.set()
        wait_for(leave)
        return finish(raw)

    model, _ = fake_model(tmp_path, "1.3.0", play)
    thread = threading.Thread(target=lambda: model.run([1], Tokens()))
    thread.start()
    wait_for(inside)
    with pytest.raises(ModelBusy, match=r"destroy: the model .* is at work"):
        model.destroy()
    leave.set()
    thread.join()
    model.destroy()
