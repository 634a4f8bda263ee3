"""How well the planner predicts models that it has not seen: each one of Rockchip's tables is left out of the fit once.

Not part of `make bench`: it measures no machine. With --write the fitted constants become the planner's own.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from planner_fit import (
    FIGURES,
    Fit,
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

CONSTANTS = Path(__file__).parents[1] / "packages/rkllm-facts/src/rkllm_facts/data/planner.json"
CONTEXTS = (192, 256, 320, 448, 512, 1024, 2048, 4096)
GOALS = {"tokens_per_s": 0.10, "ttft_ms": 0.20, "memory_mb": 0.10}
NAMES = {"tokens_per_s": "tokens/s", "ttft_ms": "first token", "memory_mb": "memory"}
_WORST = 10
_DIGITS = 8


def main() -> None:
    options = _options()
    measured = tuple(one for one in measured_rows() if one.model not in options.without)
    if options.contexts:
        print(context_table(measured))
        return
    predictions = left_out(measured)
    print(f"{len(measured)} rows of {len({one.model for one in measured})} models\n")
    print(error_table(predictions))
    print(f"\nFamilies left out together:\n\n{error_table(left_out(measured, family))}")
    for figure in FIGURES:
        print(f"\nWorst of {NAMES[figure]}:\n\n{worst_table(predictions, figure)}")
    print(f"\nEach model:\n\n{model_table(predictions)}")
    for row in unsourced():
        print(f"left out: {row.sdk_version} {row.platform} {row.model} {row.params} {row.dtype}")
    if options.write and not options.without:
        text = json.dumps(constants_of(fit(measured), predictions), indent=2) + "\n"
        CONSTANTS.write_text(text, encoding="utf-8")
        print(f"\nwritten: {CONSTANTS}")


def median_error(predictions: Iterable[Prediction]) -> float:
    """Of absolute relative errors."""
    return statistics.median(abs(one.error) for one in predictions)


def constants_of(fitted: Fit, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """The content of planner.json."""
    pairs = dict.fromkeys(one.measured.pair for one in predictions)
    return {
        "fitted": time.strftime("%Y-%m-%d"),
        **_rounded(asdict(fitted)),
        "errors": {name: _errors([one for one in predictions if one.measured.pair == name]) for name in pairs},
        "overall": _errors(predictions),
        "memory_doubt": round(memory_doubt(predictions), 4),
    }


def memory_doubt(predictions: Iterable[Prediction]) -> float:
    """By how much more memory than predicted nineteen of twenty rows need at most."""
    return at_most(0.95, [one.actual / one.predicted - 1 for one in predictions if one.figure == "memory_mb"])


def at_most(share: float, values: Iterable[float]) -> float:
    """The smallest of the values that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1]


def error_table(predictions: Sequence[Prediction]) -> str:
    pairs = dict.fromkeys(one.measured.pair for one in predictions)
    lines = [
        [name, *(_cell([one for one in predictions if one.measured.pair == name], figure) for figure in FIGURES)]
        for name in pairs
    ]
    goals = ["goal", *(f"≤ {GOALS[figure]:.0%}" for figure in FIGURES)]
    everything = ["**all**", *(_cell(predictions, figure) for figure in FIGURES)]
    return _table(["chip and type", *(NAMES[figure] for figure in FIGURES)], [*lines, everything, goals])


def worst_table(predictions: Sequence[Prediction], figure: str) -> str:
    worst = sorted((one for one in predictions if one.figure == figure), key=lambda one: -abs(one.error))[:_WORST]
    return _table(
        ["model", "chip and type", "SDK", "measured", "predicted", "error"],
        [
            [
                f"{one.measured.row.model} {one.measured.row.params}",
                one.measured.pair,
                one.measured.row.sdk_version,
                f"{one.actual:.1f}",
                f"{one.predicted:.1f}",
                f"{one.error:+.0%}",
            ]
            for one in worst
        ],
    )


def model_table(predictions: Sequence[Prediction]) -> str:
    models = dict.fromkeys(one.measured.model for one in predictions)
    return _table(
        ["model", *(NAMES[figure] for figure in FIGURES)],
        [
            [name, *(_cell([one for one in predictions if one.measured.model == name], figure) for figure in FIGURES)]
            for name in models
        ],
    )


def context_table(measured: Sequence[Measured]) -> str:
    """How well the memory fits, by the context that the rows are taken to have."""
    lines = []
    for context in CONTEXTS:
        constants = fit_memory(measured, context)
        errors = [abs(memory(one, constants) / value - 1) for one in measured if (value := one.row.memory_mb)]
        lines.append([str(context), f"{statistics.median(errors):.1%}", f"{statistics.mean(errors):.1%}"])
    return _table(["context", "median error", "mean error"], lines)


def _cell(predictions: Sequence[Prediction], figure: str) -> str:
    found = [one for one in predictions if one.figure == figure]
    if not found:
        return "-"
    most = at_most(0.9, [abs(one.error) for one in found])
    return f"{median_error(found):.1%}, {most:.0%} ({len(found)})"


def _errors(predictions: Sequence[Prediction]) -> dict[str, dict[str, float]]:
    found = {figure: [abs(one.error) for one in predictions if one.figure == figure] for figure in FIGURES}
    return {
        figure: {"half": round(statistics.median(errors), 4), "most": round(at_most(0.9, errors), 4)}
        for figure, errors in found.items()
    }


def _rounded(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: _rounded(value) for name, value in found.items()}
    return float(f"{found:.{_DIGITS}g}") if isinstance(found, float) else found


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="make the fitted constants the planner's own")
    parser.add_argument("--without", action="append", default=[], metavar="MODEL", help='such as "minicpm4 0.5B"')
    parser.add_argument("--contexts", action="store_true", help="how the memory fits with other contexts")
    return parser.parse_args()


if __name__ == "__main__":
    main()
