"""What a report says, whatever it is written in."""

from __future__ import annotations

from dataclasses import dataclass

from exo.benchmark.compare import Comparison, compare
from exo.benchmark.figures import moment
from exo.benchmark.results import Run
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


def silent_models(run: Run) -> dict[str, str]:
    """The models that answered nothing, with the first message of the server."""
    found = {}
    for model in run.settings.models:
        own = [sample for sample in run.samples if sample.model == model]
        if own and all(sample.error is not None for sample in own):
            found[model] = own[0].error or ""
    return found


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
    failed = len(run.samples) - len(good)
    notes = []
    if not run.complete:
        notes.append("The run was interrupted: this is what was measured until then.")
    if failed:
        notes.append(f"{failed} of {len(run.samples)} requests failed; the table of errors says why.")
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
