"""Stages against a server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx2
import pytest
from measured_server import ANSWER, MeasuredServer, said

from exo.benchmark.client import Server
from exo.benchmark.plan import stages
from exo.benchmark.results import Identity, Sample, Settings
from exo.benchmark.runner import choose_models, measure
from exo.types import ConfigurationError


async def run(server: MeasuredServer, settings: Settings, samples: list[Sample]) -> None:
    async with httpx2.AsyncClient(transport=server.transport()) as http:
        asked = Server("http://server", http, server.clock)
        await measure(asked, stages(settings, "seed"), settings, samples.append)


async def test_a_level_has_so_many_requests_at_a_time_and_so_many_in_all() -> None:
    for level in (1, 3):
        server, samples = MeasuredServer(), list[Sample]()
        await run(server, Settings(models=("one",), repeat=1, concurrency=(level,), requests=7), samples)
        found = [sample for sample in samples if sample.part == "concurrency"]
        assert (server.most_at_a_time, len(found), {one.level for one in found}) == (level, 7, {level})


async def test_more_at_a_time_than_requests() -> None:
    server, samples = MeasuredServer(), list[Sample]()
    await run(server, Settings(models=("one",), repeat=1, concurrency=(50,), requests=2), samples)
    assert (server.most_at_a_time, len(samples)) == (2, 1 + 5 + 2)


async def test_a_request_is_announced_before_it_is_sent() -> None:
    server, told = MeasuredServer(), list[str]()
    settings = Settings(models=("one",), repeat=1)
    async with httpx2.AsyncClient(transport=server.transport()) as http:
        await measure(
            Server("http://server", http, server.clock),
            stages(settings, "seed"),
            settings,
            lambda sample: told.append(f"{sample.name} ended"),
            lambda stage, question: told.append(f"{stage.part} {question.name} {len(server.bodies)}"),
        )
    assert told[:4] == ["warm-up warm-up 0", "warm-up ended", "prompts Math 1", "Math ended"]


async def test_a_failed_request_stops_nothing() -> None:
    refused = httpx2.Response(429, json={"error": {"message": "full"}})
    server, samples = MeasuredServer(answers=[ANSWER, refused, ANSWER]), list[Sample]()
    await run(server, Settings(models=("one",), repeat=1), samples)
    assert [sample.error for sample in samples] == [None, "status 429: full", None, None, None, None]


async def test_a_model_whose_warm_up_fails_is_left_alone_and_the_next_one_is_not() -> None:
    refused = httpx2.Response(404, json={"error": {"message": "no such model"}})
    server, samples = MeasuredServer(answers=[refused, ANSWER]), list[Sample]()
    await run(server, Settings(models=("absent", "one"), repeat=1), samples)
    assert [sample.model for sample in samples] == ["absent"] + ["one"] * 6


async def test_who_interrupts_has_what_was_measured_until_then(
    until: Callable[[Callable[[], bool]], Awaitable[None]],
) -> None:
    forever = asyncio.Event()
    server, samples = MeasuredServer(answers=[ANSWER, ANSWER, (said("a"), forever)]), list[Sample]()
    running = asyncio.create_task(run(server, Settings(models=("one",)), samples))
    await until(lambda: server.at_a_time == 1 and len(samples) == 2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [sample.name for sample in samples] == ["warm-up", "Math"]
    assert server.at_a_time == 0, "the request goes on"


async def test_when_an_outcome_cannot_be_shown_no_request_goes_on() -> None:
    forever = asyncio.Event()
    server = MeasuredServer(answers=[*[ANSWER] * 6, (said("a"), forever), ANSWER])

    def show(sample: Sample) -> None:
        if sample.part == "concurrency":
            raise BrokenPipeError

    settings = Settings(models=("one",), repeat=1, concurrency=(2,))
    async with httpx2.AsyncClient(transport=server.transport()) as http:
        asked = Server("http://server", http, server.clock)
        with pytest.raises(BrokenPipeError):
            await measure(asked, stages(settings, "seed"), settings, show)
        assert server.at_a_time == 0


@pytest.mark.parametrize(
    ("asked", "models", "loaded", "chosen"),
    [
        (("b", "a", "b"), ("a",), (), ("b", "a")),
        ((), ("a",), (), ("a",)),
        ((), ("a", "b"), ("b",), ("b",)),
    ],
)
def test_the_model(
    asked: tuple[str, ...], models: tuple[str, ...], loaded: tuple[str, ...], chosen: tuple[str, ...]
) -> None:
    assert choose_models(asked, Identity(url="http://s", models=models, loaded=loaded)) == chosen


def test_a_model_that_nobody_can_guess() -> None:
    with pytest.raises(ConfigurationError, match=r"--model which .* http://s lists: a, b\."):
        choose_models((), Identity(url="http://s", models=("a", "b"), loaded=("a", "b")))
