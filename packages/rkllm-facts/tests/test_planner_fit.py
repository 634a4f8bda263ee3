"""The planner's constants are what a fit to Rockchip's measurements gives, and predict models left out of it."""

from __future__ import annotations

import json
import statistics
from importlib.resources import files
from pathlib import Path

import pytest

from planner import GOALS, constants_of, error_table, median_error
from planner_fit import (
    FIGURES,
    Measured,
    Prediction,
    family,
    fit,
    fit_memory,
    left_out,
    measured_rows,
    memory,
    unsourced,
)
from rkllm_facts.benchmark import rows
from rkllm_facts.planner import calibration


@pytest.fixture(scope="module")
def measured() -> tuple[Measured, ...]:
    return measured_rows()


@pytest.fixture(scope="module")
def predictions(measured: tuple[Measured, ...]) -> list[Prediction]:
    return left_out(measured)


def test_every_row_is_taken_or_named(measured: tuple[Measured, ...]) -> None:
    assert len(measured) + len(unsourced()) == len(rows())
    assert unsourced() == ()
    assert len({one.model for one in measured}) == 16


def test_the_constants_are_those_of_the_fit(measured: tuple[Measured, ...], predictions: list[Prediction]) -> None:
    written = json.loads((files("rkllm_facts") / "data" / "planner.json").read_text(encoding="utf-8"))
    found = constants_of(fit(measured), predictions)
    for part in ("generation", "prefill", "memory"):
        for name, value in found[part].items():
            assert written[part][name] == pytest.approx(value, rel=1e-4), (
                f"{part} {name}: python bench/planner.py --write"
            )
    for name, errors in [*found["errors"].items(), ("overall", found["overall"])]:
        of_it = written["errors"].get(name, written["overall"])
        assert of_it == {figure: pytest.approx(spread, abs=2e-4) for figure, spread in errors.items()}
    assert written["errors"].keys() == found["errors"].keys()
    assert written["memory_doubt"] == pytest.approx(found["memory_doubt"], abs=2e-4)


@pytest.mark.parametrize("figure", FIGURES)
def test_models_that_were_left_out_are_predicted_well_enough(predictions: list[Prediction], figure: str) -> None:
    assert median_error(one for one in predictions if one.figure == figure) <= GOALS[figure]
    assert getattr(calibration().overall, figure).half <= GOALS[figure]


def test_nineteen_of_twenty_rows_need_no_more_than_predicted_and_the_doubt(predictions: list[Prediction]) -> None:
    memory = [one for one in predictions if one.figure == "memory_mb"]
    doubt = 1 + calibration().memory_doubt
    above = [one for one in memory if one.actual > one.predicted * doubt * 1.0001]
    assert 0 < len(above) <= len(memory) / 20


def test_a_constant_that_no_row_tells_is_none(measured: tuple[Measured, ...]) -> None:
    plain = fit([one for one in measured if not one.architecture.recurrent_layers])
    assert (plain.generation.per_state, plain.prefill.per_state) == (0, 0)
    assert plain.generation.per_call > 0


def test_the_page_has_the_errors_as_they_are(measured: tuple[Measured, ...], predictions: list[Prediction]) -> None:
    page = (Path(__file__).parents[3] / "docs/PLANNER.md").read_text(encoding="utf-8")
    rows = [line.replace("%", " %") for line in error_table(predictions).splitlines() if line.startswith("| R")]
    assert len(rows) == 8
    families = error_table(left_out(measured, family)).splitlines()[-2].replace("%", " %")
    everything = error_table(predictions).splitlines()[-2].replace("%", " %")
    also = [everything, families.replace("**all**", "families left out together")]
    assert [row for row in [*rows, *also] if row not in page] == []


def test_a_model_is_out_with_all_of_its_rows(measured: tuple[Measured, ...], predictions: list[Prediction]) -> None:
    assert len([one for one in predictions if one.figure == "ttft_ms"]) == len(measured)
    without = fit([one for one in measured if one.model != "phi3 3.8B"])
    (phi,) = (
        one
        for one in predictions
        if (one.measured.model, one.measured.row.sdk_version, one.measured.pair, one.figure)
        == ("phi3 3.8B", "1.3.0", "RK3588 w8a8", "tokens_per_s")
    )
    assert phi.predicted == without.predict(phi.measured, "tokens_per_s")
    assert phi.error == phi.predicted / 7.45 - 1


def test_the_context_that_rows_are_taken_to_have_fits_better_than_a_long_one(measured: tuple[Measured, ...]) -> None:
    def error(context: int) -> float:
        constants = fit_memory(measured, context)
        return statistics.mean(
            abs(memory(one, constants) / needed - 1) for one in measured if (needed := one.row.memory_mb)
        )

    assert error(calibration().memory.context) < error(1024) < error(4096)
