"""Runs the stages of a plan against a server."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from exo.benchmark.client import Server
from exo.benchmark.plan import Question, Stage
from exo.benchmark.results import Identity, Sample, Settings
from exo.types import ConfigurationError

Record = Callable[[Sample], None]
"""Called with each request's outcome as soon as it is known: who interrupts the run has all before."""
Begin = Callable[[Stage, Question], None]
"""Called with each request before it is sent."""


async def measure(
    server: Server, plan: Iterable[Stage], settings: Settings, record: Record, begin: Begin | None = None
) -> None:
    """One stage after the other; of a stage as many requests at a time as its level says.

    A model whose warm-up fails is asked nothing more: it would fail as often as there are requests, and as slowly.
    """
    failed: set[str] = set()
    for stage in plan:
        if stage.model in failed:
            continue
        waiting = deque(stage.questions)
        workers = min(stage.level, len(waiting))
        tasks = [
            asyncio.create_task(_work(server, stage, settings, waiting, record=record, begin=begin))
            for _ in range(workers)
        ]
        try:
            outcomes = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if stage.part == "warm-up" and not all(outcomes):
            failed.add(stage.model)


async def _work(
    server: Server,
    stage: Stage,
    settings: Settings,
    waiting: deque[Question],
    *,
    record: Record,
    begin: Begin | None,
) -> bool:
    """Whether all went well."""
    well = True
    while waiting:
        question = waiting.popleft()
        if begin is not None:
            begin(stage, question)
        sample = await server.ask(question, stage.model, settings, part=stage.part, level=stage.level)
        record(sample)
        well = well and sample.error is None
    return well


def choose_models(asked: Sequence[str], server: Identity) -> tuple[str, ...]:
    """Those asked for, else the only one or the only loaded one. Raises ConfigurationError if that is not clear."""
    if asked:
        return tuple(dict.fromkeys(asked))
    for names in (server.models, server.loaded):
        if len(names) == 1:
            return names
    listed = ", ".join(server.models) or "none"
    raise ConfigurationError(f"Say with --model which model to measure. {server.url} lists: {listed}.")
