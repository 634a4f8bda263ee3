"""Fits the planner's constants to Rockchip's measurements, and tells how well it predicts models that it has not seen.

Errors are relative: everything is fitted to logarithms. The loss is the absolute error, rounded off near zero, so that
a single odd row counts little. Nothing but the standard library is needed: the systems are tiny.
"""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rkllm_facts.architecture import Architecture, known_architecture, known_models
from rkllm_facts.benchmark import BenchmarkRow, rows
from rkllm_facts.planner.calibration import MemoryConstants, TimeConstants, pair
from rkllm_facts.planner.work import MB, generation_work, prefill_work, scale_groups, weight_bits

__all__ = [
    "CONTEXT",
    "FIGURES",
    "Fit",
    "Measured",
    "Prediction",
    "family",
    "fit",
    "fit_memory",
    "left_out",
    "measured_rows",
    "memory",
    "unsourced",
]

FIGURES = ("tokens_per_s", "ttft_ms", "memory_mb")
CONTEXT = 320
"""Positions of KV cache that the rows are taken to have. They do not say it, but Rockchip's table of release 1.1.0 did.
A run needs 192; from there to 448 the memory fits about equally well, from 1024 on clearly worse: see
`python bench/planner.py --contexts`."""

GROUPS_OF_RK3588 = (
    (512, 140.46, 195.00, 24.21, 20.08),  # TinyLlama 1.1B
    (128, 206.00, 725.00, 16.46, 7.00),  # Qwen2 1.5B
    (512, 516.00, 610.00, 7.44, 6.13),  # Phi-3 3.8B
    (128, 800.00, 2190.00, 4.95, 2.70),  # ChatGLM3 6B
    (128, 342.29, 1055.00, 9.67, 5.49),  # Gemma2 2B
    (512, 205.97, 298.00, 15.66, 12.66),  # InternLM2 1.8B
    (128, 702.18, 1691.00, 6.15, 3.42),  # MiniCPM3 4B
    (512, 1128.00, 1281.35, 3.79, 3.05),  # Llama3 8B
)
"""Group size, first token in ms of w8a8 and of w8a8 with groups, tokens/s of both. Source: README of rknn-llm at
release 1.1.3, measured with 1.1.0; the newer tables have no type with groups for this chip."""

SINGLE_ROWS = (
    ("RK3562 w4a16_g128", 524.0, 5.67),
    ("RK3562 w4a8_g32", 873.0, 12.0),
)
SINGLE_BASE = ("RK3562 w8a8", 477.0, 11.5)
SINGLE_MODEL = "Qwen2-0.5B"
SINGLE_PROMPT = 64
"""First token in ms and tokens/s of pairs that the newer tables do not have, and of one that they do have: the ratio
counts, as the SDK was another. Source: README of rknn-llm at release 1.2.0."""

_FLOAT16 = 2
_ROUNDED = 0.02
_ROUNDS = 40


@dataclass(frozen=True)
class Measured:
    """A row whose model is known. `model` is name and size, without what is written in two ways."""

    row: BenchmarkRow
    model: str
    architecture: Architecture

    @property
    def pair(self) -> str:
        return pair(self.row.platform, self.row.dtype)

    def value(self, figure: str) -> float | None:
        found: float | None = getattr(self.row, figure)
        return found


@dataclass(frozen=True)
class Fit:
    generation: TimeConstants
    prefill: TimeConstants
    memory: MemoryConstants

    def predict(self, measured: Measured, figure: str) -> float | None:
        """None if nothing is known of the pair."""
        row, architecture = measured.row, measured.architecture
        if figure == "memory_mb":
            return memory(measured, self.memory)
        constants = self.generation if figure == "tokens_per_s" else self.prefill
        if measured.pair not in constants.speeds:
            return None
        if figure == "ttft_ms":
            return constants.speeds[measured.pair] * constants.units(prefill_work(architecture, row.seqlen))
        work = generation_work(architecture, row.dtype, self.memory.scale_bytes, row.seqlen)
        return 1000 / (constants.speeds[measured.pair] * constants.units(work))


@dataclass(frozen=True)
class Prediction:
    """Of a model that was left out of the fit. `error` is relative to what was measured: 0.1 is 10 % too much."""

    measured: Measured
    figure: str
    predicted: float

    @property
    def actual(self) -> float:
        return self.measured.value(self.figure) or 0.0

    @property
    def error(self) -> float:
        return self.predicted / self.actual - 1


def measured_rows() -> tuple[Measured, ...]:
    """Every row with 128 prompt tokens whose model's architecture is known."""
    return tuple(
        Measured(row, model, known[model])
        for known in [_architectures()]
        for row in rows()
        for model in [_plain(row.model, row.params)]
        if row.seqlen == 128 and model in known
    )


def unsourced() -> tuple[BenchmarkRow, ...]:
    """The rows that are left out, as nothing reliable is known of their model."""
    known = _architectures()
    return tuple(row for row in rows() if _plain(row.model, row.params) not in known)


def fit(measured: Sequence[Measured]) -> Fit:
    """Memory comes first, as it tells the size of the scales that are read for each token."""
    needed = fit_memory(measured)
    generation = _fit_times(
        [
            (
                one.pair,
                generation_work(one.architecture, one.row.dtype, needed.scale_bytes, one.row.seqlen).vector,
                1000 / one.row.tokens_per_s,
            )
            for one in measured
        ],
        rk3588_groups=_slowdown(
            [(group, grouped, plain) for group, _, _, plain, grouped in GROUPS_OF_RK3588], needed.scale_bytes
        ),
    )
    prefill = _fit_times(
        [(one.pair, prefill_work(one.architecture, one.row.seqlen).vector, one.row.ttft_ms) for one in measured],
        rk3588_groups=_slowdown([(group, plain, grouped) for group, plain, grouped, _, _ in GROUPS_OF_RK3588]),
    )
    return Fit(
        dataclasses.replace(generation, single_speeds=_single_generation(generation, needed.scale_bytes)),
        dataclasses.replace(prefill, single_speeds=_single_prefill(prefill)),
        needed,
    )


def family(measured: Measured) -> str:
    """Models that are alike: of one maker, or with a state."""
    if measured.architecture.recurrent_layers:
        return "recurrent"
    return next((name for name in ("qwen", "gemma", "minicpm") if measured.model.startswith(name)), measured.model)


def left_out(
    measured: Sequence[Measured], group: Callable[[Measured], str] = lambda one: one.model
) -> list[Prediction]:
    """Each model, or each group of them, predicted by a fit to all the others.

    Its rows of both versions, every chip and every type are out.
    """
    found = []
    for name in dict.fromkeys(map(group, measured)):
        others = fit([one for one in measured if group(one) != name])
        for one in measured:
            for figure in FIGURES if group(one) == name else ():
                predicted = others.predict(one, figure)
                if predicted is not None and one.value(figure) is not None:
                    found.append(Prediction(one, figure, predicted))
    return found


def fit_memory(measured: Sequence[Measured], context: int = CONTEXT) -> MemoryConstants:
    known = [one for one in measured if one.row.memory_mb is not None]

    def constants_of(found: tuple[float, ...]) -> MemoryConstants:
        base, token, scale = found
        return MemoryConstants(base, token, scale, context)

    def loss(found: tuple[float, ...]) -> float:
        constants = constants_of(found)
        return sum(_rounded(math.log(memory(one, constants) / (one.row.memory_mb or 1))) for one in known)

    return constants_of(_search(loss, start=(40.0, 900.0, 5.0)))


def memory(measured: Measured, constants: MemoryConstants) -> float:
    """MB, as the row would have it."""
    architecture, type_name = measured.architecture, measured.row.dtype
    weights = architecture.weight_values * weight_bits(type_name) / 8
    scales = scale_groups(architecture.weight_values, type_name) * constants.scale_bytes
    cache = architecture.kv_values * _FLOAT16 * constants.context
    return constants.base_mb + (weights + scales + cache + architecture.vocabulary * constants.per_token_bytes) / MB


Timed = tuple[str, tuple[float, ...], float]
"""A pair, its work and its milliseconds."""


def _fit_times(timed: Sequence[Timed], rk3588_groups: float) -> TimeConstants:
    """A constant of which no row tells anything, as that of recurrent layers without such a model, is 0."""
    told = [float(any(work[place] for _, work, _ in timed)) for place in range(1, 4)]

    def speeds_and_loss(found: tuple[float, ...]) -> tuple[dict[str, float], float]:
        by_pair: dict[str, list[float]] = {}
        for name, work, took in timed:
            units = work[0] + sum(weight * amount for weight, amount in zip(found, work[1:]))
            by_pair.setdefault(name, []).append(math.log(took / units))
        speeds = {name: statistics.median(ratios) for name, ratios in by_pair.items()}
        loss = sum(_rounded(ratio - speeds[name]) for name, ratios in by_pair.items() for ratio in ratios)
        return {name: math.exp(speed) for name, speed in speeds.items()}, loss

    found = _search(lambda values: speeds_and_loss(values)[1], tuple(told))
    speeds = speeds_and_loss(found)[0]
    call, mixing, state = found
    return TimeConstants(call, mixing, state, speeds, {}, _group_slowdowns(speeds, rk3588_groups))


def _single_generation(constants: TimeConstants, scale_bytes: float) -> dict[str, float]:
    base, _, base_speed = SINGLE_BASE
    model = known_architecture(SINGLE_MODEL)
    if base not in constants.speeds:
        return {}

    def units(name: str) -> float:
        return constants.units(generation_work(model, name.split()[1], scale_bytes, SINGLE_PROMPT))

    return {
        name: constants.speeds[base] * units(base) / units(name) * base_speed / speed for name, _, speed in SINGLE_ROWS
    }


def _single_prefill(constants: TimeConstants) -> dict[str, float]:
    """The work is the same with each type."""
    base, base_took, _ = SINGLE_BASE
    if base not in constants.speeds:
        return {}
    return {name: constants.speeds[base] * took / base_took for name, took, _ in SINGLE_ROWS}


def _group_slowdowns(speeds: dict[str, float], rk3588: float) -> dict[str, float]:
    """By chip, for groups of 128."""
    found = {"RK3588": rk3588}
    for name in ("RK3576", "RV1126B"):
        if f"{name} w4a16_g128" in speeds:
            found[name] = speeds[f"{name} w4a16_g128"] / speeds[f"{name} w4a16"] - 1
    return found


def _slowdown(measured: Sequence[tuple[int, float, float]], scale_bytes: float = 0.0) -> float:
    """The median of what groups of 128 would add, from groups of any size: their size, without and with.

    What it takes to read the scales of eight-bit weights is not in it.
    """
    return statistics.median(
        (grouped / plain / (1 + scale_bytes / group) - 1) * group / 128 for group, plain, grouped in measured
    )


def _search(loss: Callable[[tuple[float, ...]], float], start: tuple[float, ...]) -> tuple[float, ...]:
    """The positive numbers with the smallest loss near `start`: one after the other, in ever smaller steps."""
    best, least = start, loss(start)
    steps = [1.0] * len(start)
    for _ in range(_ROUNDS):
        for place in range(len(start)):
            for step in (steps[place], -steps[place]):
                tried = (*best[:place], best[place] * math.exp(step), *best[place + 1 :])
                value = loss(tried)
                if value < least:
                    best, least = tried, value
                    steps[place] *= 1.5
                    break
            else:
                steps[place] /= 2
    return best


def _rounded(error: float) -> float:
    return math.hypot(error, _ROUNDED)


def _architectures() -> dict[str, Architecture]:
    return {_plain(*known.benchmark): known.architecture for known in known_models() if known.benchmark}


def _plain(model: str, params: str) -> str:
    return re.sub(r"[-_.]", "", model).lower() + f" {params}"
