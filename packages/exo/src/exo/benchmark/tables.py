"""The tables of a report, before anybody draws them: the terminal, Markdown and HTML show the same ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from exo.benchmark.compare import Comparison, Ratio
from exo.benchmark.figures import count, known, middle, moment, rate, seconds
from exo.benchmark.plan import PROMPTS
from exo.benchmark.results import Part, Run, Sample
from exo.benchmark.statistics import MEAN, Summary, median_of, p95_of

_Named = TypeVar("_Named", Summary, Ratio)


@dataclass(frozen=True)
class Table:
    """`key` names it in files and links; the first `words` columns are words, the others numbers."""

    key: str
    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 2


def tables(run: Run, summaries: Sequence[Summary], comparison: Comparison | None) -> list[Table]:
    """Those that have rows."""
    found = [_prompts(summaries), _concurrency(summaries), _lengths(summaries)]
    if comparison is not None:
        found += _comparisons(comparison)
    found += [_loading(run), _errors(run)]
    return [table for table in found if table.rows]


def _of(part: Part, all_of_them: Iterable[_Named]) -> list[_Named]:
    """Of one part, the models of each prompt, level or length side by side."""
    some = [one for one in all_of_them if one.part == part]
    order = {name: place for place, name in enumerate([*PROMPTS, MEAN])}
    return sorted(some, key=lambda one: order[one.name] if one.name in order else int(one.name))


def _prompts(summaries: Sequence[Summary]) -> Table:
    some = _of("prompts", summaries)
    reasons = any(one.first_token != one.first_answer for one in some)
    head = ["Prompt", "Model", "First token", "Tokens/s", "Tokens", "Total time", "Failed"]
    if reasons:
        head.insert(3, "First answer token")
    rows = []
    for one in some:
        mean = one.name == MEAN
        row = [
            one.name,
            one.model,
            middle(one.first_token, seconds, mean=mean),
            middle(one.tokens_per_s, rate, mean=mean),
            middle(one.completion_tokens, count, mean=mean),
            middle(one.total, seconds, mean=mean),
            f"{one.errors} of {one.requests}",
        ]
        if reasons:
            row.insert(3, middle(one.first_answer, seconds, mean=mean))
        rows.append(tuple(row))
    note = (
        "Median of the repeats, and the smallest to the largest in brackets; mean is that of all requests. "
        "The first token is the first of any kind, reasoning included; tokens/s counts from there on."
    )
    return Table("prompts", "Prompts", note, tuple(head), tuple(rows))


def _concurrency(summaries: Sequence[Summary]) -> Table:
    rows = tuple(
        (
            one.name,
            one.model,
            known(one.total_tokens_per_s, rate),
            middle(one.tokens_per_s, rate),
            known(median_of(one.first_token), seconds),
            known(p95_of(one.first_token), seconds),
            f"{one.errors} of {one.requests}",
        )
        for one in _of("concurrency", summaries)
    )
    head = (
        "At a time", "Model", "Tokens/s, all", "Tokens/s, each", "First token, p50", "First token, p95", "Failed",
    )  # fmt: skip
    note = "Requests at the same time: what all of them get together, and what each of them gets."
    return Table("concurrency", "Concurrency", note, head, rows)


def _lengths(summaries: Sequence[Summary]) -> Table:
    rows = tuple(
        (
            one.name,
            one.model,
            middle(one.prompt_tokens, count),
            middle(one.first_token, seconds),
            middle(one.prefill_tokens_per_s, rate),
            f"{one.errors} of {one.requests}",
        )
        for one in _of("lengths", summaries)
    )
    head = ("Length", "Model", "Prompt tokens", "First token", "Prefill tokens/s", "Failed")
    note = (
        "The length that was asked for, and the tokens that the server counted. Every prompt begins in its own way, so "
        "that no cache knows it. Prefill is what the server had to read by the time to the first token."
    )
    return Table("lengths", "Prompt lengths", note, head, rows)


_SHORTEST_LOAD = 0.05
"""In seconds; a server that says less has found the model loaded."""
_COMPARED: dict[Part, tuple[str, str, dict[str, Callable[[Ratio], float | None]]]] = {
    "prompts": (
        "prompts",
        "Prompt",
        {
            "First token": lambda one: one.first_token,
            "Tokens/s": lambda one: one.tokens_per_s,
            "Total time": lambda one: one.total,
        },
    ),
    "concurrency": (
        "concurrency",
        "At a time",
        {
            "Tokens/s, all": lambda one: one.total_tokens_per_s,
            "Tokens/s, each": lambda one: one.tokens_per_s,
            "First token, p50": lambda one: one.first_token,
        },
    ),
    "lengths": (
        "prompt lengths",
        "Length",
        {"First token": lambda one: one.first_token, "Prefill tokens/s": lambda one: one.prefill_tokens_per_s},
    ),
}
"""Of each part its title, its first column, and the ratios that it shows."""


def _comparisons(comparison: Comparison) -> list[Table]:
    note = (
        f"Now / before ({moment(comparison.before)}), of the medians, in the row mean of the means. For times, below 1 "
        "is faster now; for tokens/s, above 1. "
    )
    if comparison.differences:
        note += f"The runs differ: {'; '.join(comparison.differences)}."
    else:
        note += "The settings of both runs are the same."
    if not comparison.ratios:
        note += " The two have no model and prompt in common."
        return [Table("compared", "Compared with before", note, ("", ""), (("nothing to compare", ""),))]
    found: list[Table] = []
    for part, (title, first, numbers) in _COMPARED.items():
        rows = tuple(
            (one.name, one.model, *(known(take(one), _ratio) for take in numbers.values()))
            for one in _of(part, comparison.ratios)
        )
        if rows:
            told = "Now / before, as above." if found else note
            head = (first, "Model", *numbers)
            found.append(Table(f"compared-{part}", f"Compared with before: {title}", told, head, rows))
    return found


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _loading(run: Run) -> Table:
    rows = tuple(
        (one.model, known(one.first_token, seconds), known(_loaded_in(one), seconds), known(one.total, seconds))
        for one in run.samples
        if one.part == "warm-up" and one.error is None
    )
    note = (
        "One request before the others, which does not count. If the model was not loaded, the time to its first token "
        "has the loading in it; how much of it, only some servers tell (a dash: below 50 ms, or not told)."
    )
    head = ("Model", "First token", "Of it loading", "Total time")
    return Table("warm-up", "Warm-up", note, head, rows, words=1)


def _loaded_in(warm_up: Sample) -> float | None:
    return None if warm_up.load is None or warm_up.load < _SHORTEST_LOAD else warm_up.load


def _errors(run: Run) -> Table:
    failed = Counter((one.model, one.part, one.name, one.error or "") for one in run.samples if one.error is not None)
    rows = tuple((*what, str(times)) for what, times in failed.items())
    note = "Requests that failed, with what the server said. They count in no other number."
    return Table("errors", "Errors", note, ("Model", "Part", "Request", "Message", "Times"), rows, words=4)
