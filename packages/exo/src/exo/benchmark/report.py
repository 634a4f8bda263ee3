"""What a report says, whatever it is written in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from exo.benchmark.compare import Comparison, compare
from exo.benchmark.figures import moment
from exo.benchmark.results import Run, Sample
from exo.benchmark.statistics import Summary, summarise
from exo.benchmark.tables import Table, tables


@dataclass(frozen=True)
class Report:
    """`facts` are names and values about the run, `notes` sentences that a reader of the numbers has to know."""

    run: Run
    summaries: tuple[Summary, ...]
    comparison: Comparison | None
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    tables: tuple[Table, ...]


def make_report(run: Run, before: Run | None = None) -> Report:
    summaries = tuple(summarise(run))
    comparison = None if before is None else compare(run, before)
    return Report(
        run=run,
        summaries=summaries,
        comparison=comparison,
        facts=tuple(_facts(run)),
        notes=tuple(_notes(run)),
        tables=tuple(tables(run, summaries, comparison)),
    )


def failures(run: Run) -> list[str]:
    """A sentence for each model of whose requests more than half failed, with the first message of the server."""
    found = []
    for model in run.settings.models:
        own = [sample for sample in _that_count(run) if sample.model == model]
        messages = [sample.error for sample in own if sample.error is not None]
        if own and own[0].part == "warm-up":
            found.append(f"{model} answered no request: {messages[0]}")
        elif 2 * len(messages) > len(own):
            found.append(f"{len(messages)} of {len(own)} requests to {model} failed, the first with: {messages[0]}")
    return found


def _that_count(run: Run) -> list[Sample]:
    """A warm-up is one of them only if it failed: then its model has no other request."""
    return [sample for sample in run.samples if sample.part != "warm-up" or sample.error is not None]


def _facts(run: Run) -> list[tuple[str, str]]:
    server, settings = run.server, run.settings
    program = " ".join(part for part in (server.program, server.version) if part)
    facts = [
        ("Server", server.url),
        ("Program", program),
        ("Engine", server.engine),
        ("Machine", server.machine),
        ("Models", ", ".join(settings.models)),
        ("Started", moment(run.started)),
        ("Repeats", str(settings.repeat)),
        ("Most tokens", str(settings.max_tokens)),
        ("Temperature", f"{settings.temperature:g}"),
        ("Measured by", f"exo {run.exo_version}"),
    ]
    return [(name, value) for name, value in facts if value]


def _notes(run: Run) -> list[str]:
    good = [sample for sample in run.samples if sample.error is None]
    counted = [sample for sample in good if sample.part != "warm-up"]
    requests = len(_that_count(run))
    failed = requests - len(counted)
    notes = []
    if not run.complete:
        notes.append("The run was interrupted: this is what was measured until then.")
    if failed:
        notes.append(f"{failed} of {requests} requests failed; the table of errors says why.")
    notes += _answering(run.settings.models, counted)
    if any(sample.counted_by == "chunks" for sample in good):
        notes.append(
            "The server does not tell how many tokens it made: the pieces of the answers were counted instead, which "
            "may have more than one token each. Prompt tokens are not known."
        )
    cached = sum(sample.cached_tokens or 0 for sample in counted)
    if cached:
        read = sum(sample.prompt_tokens or 0 for sample in counted)
        notes.append(
            f"{cached} of {read} prompt tokens came from the server's cache of prompts, mostly those that all prompts "
            "begin with: a prompt that it has never seen has its first token later."
        )
    return notes


def _answering(models: Sequence[str], samples: Sequence[Sample]) -> Iterator[str]:
    """Which models answered, where not only the one that was asked."""
    for model in models:
        names = Counter(one.answered_by for one in samples if one.model == model and one.answered_by is not None)
        if names.keys() - {model}:
            yield f"{model} was answered by: {', '.join(f'{name} ({times})' for name, times in names.most_common())}."
