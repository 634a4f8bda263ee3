"""What a report says, whatever it is written in."""

from __future__ import annotations

from typing import Any

import pytest
from measured_server import measured, sample

from exo.benchmark.report import Report, failures, make_report
from exo.benchmark.results import Settings
from exo.benchmark.tables import Table


def table(report: Report, key: str) -> Table:
    (found,) = [one for one in report.tables if one.key == key]
    return found


def test_the_prompts_of_several_models_stand_side_by_side() -> None:
    run = measured([sample(name, model=model) for model in "ba" for name in ("Code", "Math")])
    found = table(make_report(run), "prompts")
    assert found.head == ("Prompt", "Model", "First token", "Tokens/s", "Tokens", "Total time", "Failed")
    assert [row[:2] for row in found.rows] == [(name, model) for name in ("Math", "Code", "mean") for model in "ba"]
    assert found.rows[0][2:] == ("500 ms", "2.00", "5", "2.50 s", "0 of 1")


def test_the_first_answer_token_is_told_where_it_is_another_one() -> None:
    found = table(make_report(measured([sample(first_answer=1.5)])), "prompts")
    assert found.head[2:4] == ("First token", "First answer token")
    assert found.rows[0][2:4] == ("500 ms", "1.50 s")


def test_the_sweeps() -> None:
    level: dict[str, Any] = {"part": "concurrency", "level": 2, "started": 1.0}
    run = measured(
        [sample(**level), sample(**level, error="no"), sample("128", part="lengths", prompt_tokens=100)],
        settings=Settings(models=("one",), concurrency=(2,), prompt_lengths=(128,)),
    )
    report = make_report(run)
    assert table(report, "concurrency").rows == (("2", "one", "2.00", "2.00", "500 ms", "500 ms", "1 of 2"),)
    assert table(report, "lengths").rows == (("128", "one", "100", "500 ms", "200", "0 of 1"),)


def test_the_warm_up_tells_of_the_loading() -> None:
    run = measured([sample("warm-up", part="warm-up", load=0.25), sample()])
    assert table(make_report(run), "warm-up").rows == (("one", "500 ms", "250 ms", "2.50 s"),)


def test_what_was_loaded_already_took_no_time_to_load() -> None:
    run = measured([sample("warm-up", part="warm-up", load=load) for load in (0.00001, 0.0499, 0.05, None)])
    assert [row[2] for row in table(make_report(run), "warm-up").rows] == ["-", "-", "50 ms", "-"]


def test_errors_are_counted_with_their_words() -> None:
    report = make_report(measured([sample(), sample(error="full"), sample(error="full")]))
    assert table(report, "errors").rows == (("one", "prompts", "Math", "full", "2"),)
    assert report.notes == ("2 of 3 requests failed; the table of errors says why.",)


@pytest.mark.parametrize(
    ("good", "sentences"),
    [
        (2, []),
        (1, ["2 of 3 requests to one failed, the first with: gone"]),
        (0, ["2 of 2 requests to one failed, the first with: gone"]),
    ],
)
def test_a_model_of_whose_requests_more_than_half_failed(good: int, sentences: list[str]) -> None:
    warm_up = sample("warm-up", part="warm-up")
    run = measured([warm_up, *[sample()] * good, sample(error="gone"), sample(error="refused")])
    assert failures(run) == sentences


def test_each_model_is_looked_at_by_itself() -> None:
    silent = sample("warm-up", part="warm-up", model="a", error="no such model")
    run = measured([silent, *[sample(model="b")] * 9, sample(model="b", error="once")])
    assert failures(run) == ["a answered no request: no such model"]


def test_who_answered_in_place_of_the_model_that_was_asked() -> None:
    warm_up = sample("warm-up", part="warm-up", model="auto", answered_by="quick")
    chosen = [sample(model="auto", answered_by=name) for name in ("quick", "deep", "deep", None)]
    itself = [sample(model="one", answered_by="one"), sample(model="two")]
    report = make_report(measured([warm_up, *chosen, *itself, sample(model="alias", answered_by="one")]))
    assert report.notes == ("auto was answered by: deep (2), quick (1).", "alias was answered by: one (1).")


def test_what_a_reader_has_to_know() -> None:
    run = measured([sample(counted_by="chunks"), sample(cached_tokens=4)], complete=False)
    interrupted, chunks, cached = make_report(run).notes
    assert "interrupted" in interrupted
    assert "pieces of the answers were counted" in chunks
    assert cached.startswith("4 of 20 prompt tokens came from the server's cache")


def test_the_warm_up_may_use_the_cache() -> None:
    assert make_report(measured([sample("warm-up", part="warm-up", cached_tokens=4), sample()])).notes == ()


def test_a_comparison_is_in_the_tables() -> None:
    report = make_report(measured([sample()]), measured([sample(first_token=1.0)], engine="other"))
    found = table(report, "compared-prompts")
    assert found.rows[0] == ("Math", "one", "0.50", "0.75", "1.00")
    assert "engine of the server: unknown now, other before" in found.note


def test_runs_with_nothing_in_common() -> None:
    one, other = measured([sample(model="a"), sample(model="b")]), measured([sample(model="c"), sample(model="d")])
    report = make_report(one, other)
    assert "no model and prompt in common" in table(report, "compared").note


def test_facts_that_nobody_told_are_left_out() -> None:
    facts = dict(make_report(measured([sample()])).facts)
    assert "Engine" not in facts
    assert facts["Started"] == "2026-01-02 03:04:05 UTC"
    assert dict(make_report(measured([sample()], program="exo", version="1.0")).facts)["Program"] == "exo 1.0"
