"""A run against an earlier one."""

from __future__ import annotations

from measured_server import measured, sample

from exo.benchmark.compare import compare
from exo.benchmark.results import Run, Settings
from exo.benchmark.statistics import summarise


def test_ratios_are_now_by_before() -> None:
    before = measured([sample(first_token=1.0, total=3.0)], started="earlier")
    found = compare(measured([sample(first_token=0.5, total=1.5)]), before)
    math, mean = found.ratios
    assert (found.before, math.name, mean.name) == ("earlier", "Math", "mean")
    assert (math.first_token, math.total, math.tokens_per_s, math.prefill_tokens_per_s) == (0.5, 0.5, 2.0, 2.0)
    assert math.total_tokens_per_s is None


def test_the_mean_is_the_ratio_of_the_means() -> None:
    def run(*waits: float) -> Run:
        return measured([sample(first_token=wait, total=wait + 4 / wait, prompt_tokens=12) for wait in waits])

    now, before = run(1.0, 1.0, 4.0), run(1.0, 2.0, 9.0)
    math, mean = compare(now, before).ratios
    assert (math.first_token, mean.first_token) == (0.5, 0.5), "the medians are 1 and 2, the means 2 and 4"
    (_, new), (_, old) = summarise(now), summarise(before)
    for name in ("first_token", "tokens_per_s", "total", "prefill_tokens_per_s"):
        assert getattr(mean, name) == getattr(new, name).mean / getattr(old, name).mean
        assert getattr(math, name) == getattr(new, name).median / getattr(old, name).median
    assert mean.tokens_per_s != math.tokens_per_s


def test_the_sweeps_are_compared_too() -> None:
    settings = Settings(models=("one",), concurrency=(2,), prompt_lengths=(128,))

    def run(total: float) -> Run:
        return measured(
            [
                sample(part="concurrency", level=2, total=total),
                sample("128", part="lengths", first_token=total / 10, total=total),
            ],
            settings=settings,
        )

    found = compare(run(2.0), run(4.0))
    level, length = found.ratios
    assert (level.part, level.name, level.total_tokens_per_s) == ("concurrency", "2", 2.0)
    assert (length.part, length.name, length.first_token, length.prefill_tokens_per_s) == ("lengths", "128", 0.5, 2.0)


def test_the_same_settings_have_no_differences() -> None:
    assert compare(measured([sample()]), measured([sample()])).differences == ()


def test_every_difference_is_said() -> None:
    now = measured(
        [sample(counted_by="chunks")],
        settings=Settings(models=("one",), max_tokens=64, concurrency=(1, 2)),
        engine="rkllm",
        complete=False,
    )
    assert compare(now, measured([sample()])).differences == (
        "max tokens: 64 now, 128 before",
        "concurrency: 1, 2 now, none before",
        "engine of the server: rkllm now, unknown before",
        "the run now was interrupted",
        "tokens were counted in another way",
    )


def test_other_models_that_answered_are_a_difference() -> None:
    def run(*names: str | None) -> Run:
        return measured([sample(model="auto", answered_by=name) for name in names])

    found = compare(run("quick", "deep", "quick"), run("quick"))
    assert found.differences == ("auto was answered by: deep, quick now, quick before",)
    assert compare(run("quick", "deep"), run(None)).differences == ()


def test_one_model_on_each_side_is_a_pair_whatever_its_name() -> None:
    found = compare(measured([sample(model="new")]), measured([sample(model="old")]))
    assert [one.model for one in found.ratios] == ["new", "new"]
    assert found.differences == ("models: new now, old before",)


def test_what_only_one_run_has_is_left_out() -> None:
    both = compare(measured([sample(model="a"), sample(model="b")]), measured([sample(model="b"), sample(model="c")]))
    assert {one.model for one in both.ratios} == {"b"}
    assert compare(measured([sample("Math")]), measured([sample("Code")])).ratios[0].name == "mean"


def test_what_failed_before_has_no_ratio() -> None:
    found = compare(measured([sample()]), measured([sample(error="no")]))
    assert {one.first_token for one in found.ratios} == {None}
