"""What is made of a conversion's exit code and of what it printed."""

from __future__ import annotations

import json

import pytest

from rkllm_converter.batch.outcome import Outcome, outcome_of

ANSWER = {
    "status": "done",
    "folder": "elsewhere",
    "seconds": 5.0,
    "file_mb": 1952.4,
    "tokens_per_s": 16.6,
    "fits": True,
    "error": None,
    "preflight": {
        "board": {"memory_mb": 7154, "fits": True, "margin_fits": False},
        "problems": {"memory": "Too little."},
        "notes": ["By a hair."],
    },
    "notes": ["The adapter is a file of its own."],
}
NOTES = ("By a hair.", "Ignored: Too little.", "The adapter is a file of its own.")


def outcome(code: int, answer: object, last_words: str = "") -> Outcome:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return outcome_of(
        "n", "/m/n", model="a/b", code=code, answer=text, last_words=last_words, seconds=7.5, log="/l/n.log"
    )


@pytest.mark.parametrize("status", ["done", "unchanged", "planned"])
def test_a_good_end(status: str) -> None:
    found = outcome(0, {**ANSWER, "status": status})
    assert found == Outcome("n", status, "/m/n", 7.5, 1952.4, 16.6, 7154, True, False, None, "/l/n.log", NOTES, "a/b")
    assert found.as_json() == {
        "name": "n",
        "model": "a/b",
        "status": status,
        "folder": "/m/n",
        "seconds": 7.5,
        "file_mb": 1952.4,
        "tokens_per_s": 16.6,
        "memory_mb": 7154,
        "fits": True,
        "margin_fits": False,
        "error": None,
        "log": "/l/n.log",
        "notes": list(NOTES),
    }


@pytest.mark.parametrize("code", [1, 2])
def test_a_failure_has_the_conversions_own_words(code: int) -> None:
    error = {"type": "GatedModel", "message": "Ask for it."}
    found = outcome(code, {**ANSWER, "status": "failed", "file_mb": None, "error": error})
    assert (found.status, found.error, found.file_mb) == ("failed", ("GatedModel", "Ask for it."), None)
    assert found.as_json()["error"] == error


@pytest.mark.parametrize("error", [None, "x", {}, {"message": 3}])
def test_a_failure_without_words(error: object) -> None:
    assert outcome(1, {"status": "failed", "error": error}).error == ("Error", "It failed without saying why.")


@pytest.mark.parametrize("answer", ["", "{", "[]", "3", '{"status": "great"}', '{"status": ["done"]}', "[" * 100_000])
@pytest.mark.parametrize("code", [0, 3])
def test_no_answer_is_a_failure(code: int, answer: str) -> None:
    found = outcome(code, answer, last_words="so far")
    assert found.status == "failed"
    assert found.error == (
        "NoAnswer",
        f"The conversion ended by itself (exit code {code}), without an answer. The last that it said: so far",
    )


def test_an_answer_that_the_exit_code_denies_is_a_failure() -> None:
    assert outcome(1, ANSWER).status == "failed"
    assert outcome(-11, ANSWER).error == ("Died", "The conversion was ended by SIGSEGV.")
    assert outcome(0, {**ANSWER, "status": "failed"}).error is not None


def test_sigkill_speaks_of_memory() -> None:
    error = outcome(-9, "").error
    assert error is not None
    assert error[1].startswith("The conversion was ended by SIGKILL. Most likely this machine ran out of memory")
    assert outcome(-99, "").error == ("Died", "The conversion was ended by signal 99.")


def test_odd_figures_count_as_unknown() -> None:
    text = '{"status": "done", "file_mb": NaN, "tokens_per_s": true, "fits": 1}'
    found = outcome(0, text)
    assert (found.file_mb, found.tokens_per_s, found.fits) == (None, None, None)


@pytest.mark.parametrize(
    "report",
    [
        None,
        [],
        {"board": [], "notes": "x", "problems": [1]},
        {"board": {"memory_mb": "x", "margin_fits": 0}, "notes": [3, None, " "], "problems": {"memory": 3}},
    ],
)
def test_an_odd_report_counts_as_none(report: object) -> None:
    found = outcome(0, {**ANSWER, "preflight": report, "notes": {}})
    assert (found.status, found.memory_mb, found.margin_fits, found.notes) == ("done", None, None, ())


@pytest.mark.parametrize(("status", "count"), [("done", 1), ("unchanged", 0), ("planned", 0)])
def test_what_a_stand_in_has_made_is_told(status: str, count: int) -> None:
    found = outcome(0, {**ANSWER, "status": status, "is_stand_in": True})
    assert sum("no NPU runs it" in note for note in found.notes) == count
