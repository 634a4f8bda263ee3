"""Whatever a server sends, a request ends, the others are asked, and what is shown can be true."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest
from measured_server import ANSWER, DONE, MeasuredServer, Step, event, said, usage

from exo.benchmark.client import Server
from exo.benchmark.plan import Question
from exo.benchmark.results import Sample, Settings
from exo.types import NodeFailed

MEBIBYTE = 2**20
DEEP = b"[" * 100_000


async def ask(server: MeasuredServer, *, model: str = "one", longest: float | None = None) -> Sample:
    async with httpx2.AsyncClient(transport=server.transport()) as http:
        asked = Server("http://server", http, server.clock, longest)
        settings = Settings(models=(model,))
        return await asked.ask(Question("Math", "What?", 0, 8), model, settings, part="prompts", level=1)


async def answered(*steps: Step) -> Sample:
    return await ask(MeasuredServer(answers=[steps]))


async def refused(content: bytes) -> str:
    return (await ask(MeasuredServer(answers=[httpx2.Response(500, content=content)]))).error or ""


@pytest.mark.parametrize(
    "data",
    [
        b'{"choices":[{"delta":{"content":"\xe2\x82"}}]}',
        b'{"error":{"message":"\xff"}}',
        b'{"choices":[{"delta":{"content":' + DEEP,
        b'{"choices":[{"delta":{"content":"\\ud800"}}]}',
        b'{"usage":{"prompt_tokens":' + b"9" * 10_000 + b"}}",
    ],
)
async def test_an_event_that_cannot_be_read_fails_its_request(data: bytes) -> None:
    found = await answered(said("a"), b"data: " + data + b"\n\n", said(finish="stop"), DONE)
    assert found.error is not None
    assert found.error.startswith("the answer has an event that nobody understands: '{")
    assert len(found.error) < 500


async def test_an_error_of_many_brackets_is_told_as_it_came() -> None:
    assert (await refused(DEEP)).startswith("status 500: [[[[[")
    deep = (await answered(b'data: {"error":' + b"[" * 900 + b"]" * 900 + b"}\n\n")).error or ""
    assert "[[[[[" in deep


async def test_an_error_with_raw_control_characters_is_understood() -> None:
    content = b'{"error":{"message":"slow \x1b]0;evil\x07 down"}}'
    assert await refused(content) == "status 500: slow ]0;evil down"


@pytest.mark.parametrize("number", [-1, -(2**40), 2**31 + 1, int("9" * 401), 1.5, True, "7", [7], None])
async def test_a_count_that_cannot_be_true_is_not_told(number: Any) -> None:
    counted = {"prompt_tokens": number, "completion_tokens": number, "prompt_tokens_details": {"cached_tokens": number}}
    found = await answered(said("a"), said("b"), said(finish="stop"), event({"usage": counted}), DONE)
    assert (found.error, found.prompt_tokens, found.cached_tokens) == (None, None, None)
    assert (found.completion_tokens, found.counted_by) == (2, "chunks")


async def test_the_largest_count_is_taken() -> None:
    found = await answered(said("a"), said(finish="stop"), usage(prompt=2**31, completion=2**31, cached=0), DONE)
    assert (found.prompt_tokens, found.completion_tokens, found.cached_tokens) == (2**31, 2**31, 0)


async def test_no_more_than_the_prompt_came_from_the_cache() -> None:
    found = await answered(0.5, said("a"), said(finish="stop"), usage(prompt=10, cached=11), DONE)
    assert (found.cached_tokens, found.prefill_tokens_per_s) == (None, 20.0)


@pytest.mark.parametrize("number", [-1e308, 1e308, 10**400, "7", True])
async def test_a_time_of_loading_that_cannot_be_true_is_not_told(number: Any) -> None:
    found = await answered(said("a", finish="stop"), event({"timings": {"load_ms": number}}), DONE)
    assert (found.error, found.load) == (None, None)


async def test_an_answer_of_nothing_is_none() -> None:
    assert (await answered(DONE)).error == "the answer is empty"
    assert (await answered(said(""), usage(), DONE)).error == "the answer is empty"


async def test_a_model_may_have_nothing_to_say() -> None:
    found = await answered(said(finish="stop"), usage(completion=1), DONE)
    assert (found.error, found.first_token, found.completion_tokens) == (None, None, 1)


async def test_a_reason_for_the_end_has_no_control_characters() -> None:
    assert (await answered(said("a", finish="\x1b[2Jstop"), DONE)).finish_reason == "[2Jstop"


async def test_an_answer_without_an_end_is_left() -> None:
    most = 4 * 8 + 1000
    enough, too_much = [said("a")] * (most - 2), [said("a")] * most
    assert (await answered(*enough, said(finish="stop"), DONE)).error is None
    found = await answered(*too_much, said(finish="stop"), DONE)
    assert found.error == f"the answer does not end: it has more than {most} events"


async def test_a_line_without_an_end_is_left() -> None:
    line = b"x" * 2**16
    assert (await answered(b": ", *[line] * 15, b"\n", *ANSWER)).error is None
    assert (await answered(b"data: ", *[line] * 17)).error == (f"the answer has a line of more than {MEBIBYTE} bytes")


async def test_of_an_endless_error_the_beginning_is_read() -> None:
    read = 0

    class Endless(httpx2.AsyncByteStream):
        async def __aiter__(self) -> Any:
            nonlocal read
            while True:
                read += 2**16
                yield b"x" * 2**16

    transport = httpx2.MockTransport(lambda _: httpx2.Response(500, stream=Endless()))
    async with httpx2.AsyncClient(transport=transport) as http:
        asked = Server("http://server", http, MeasuredServer().clock)
        question, settings = Question("Math", "What?", 0, 8), Settings(models=("one",))
        found = await asked.ask(question, "one", settings, part="prompts", level=1)
        with pytest.raises(NodeFailed, match="does not list models"):
            await asked.identity()
    assert str(found.error).startswith("status 500: xxx")
    assert read <= 2 * (MEBIBYTE + 2**16)


async def test_a_request_takes_so_long_in_all_and_the_next_one_is_asked() -> None:
    server = MeasuredServer(answers=[(said("a"), asyncio.Event()), ANSWER])
    assert (await ask(server, longest=0.01)).error == "the answer took more than 0.01 s in all"
    assert server.at_a_time == 0
    assert (await ask(server, longest=60.0)).error is None


async def test_what_nobody_has_thought_of_fails_one_request() -> None:
    found = await answered(said("a"), LookupError("odd\x1b"), DONE)
    assert found.error == "the answer could not be read: LookupError odd"


async def test_the_question_is_made_when_it_is_asked_and_not_counted() -> None:
    server = MeasuredServer()

    def made() -> str:
        server.clock.now += 50
        return "a long text"

    async with httpx2.AsyncClient(transport=server.transport()) as http:
        asked = Server("http://server", http, server.clock)
        question, settings = Question("1", made, 0, 8), Settings(models=("one",))
        assert server.clock.now == 100.0
        found = await asked.ask(question, "one", settings, part="lengths", level=1)
    assert (found.first_token, found.started) == (0.5, 50.0)
    assert server.bodies[0]["messages"][0]["content"] == "a long text"


async def test_a_name_with_control_characters_is_sent_as_it_is_and_shown_escaped() -> None:
    server = MeasuredServer()
    found = await ask(server, model="a\u202e\x1b[2J")
    assert (server.bodies[0]["model"], found.model) == ("a\u202e\x1b[2J", r"a\u202e\x1b[2J")


@pytest.mark.parametrize(
    "content", [DEEP, b'{"data":[{"id":"\xff"}]}', json.dumps({"data": "x" * MEBIBYTE}).encode(), b'{"data":7}']
)
async def test_a_list_of_models_that_cannot_be_read(content: bytes) -> None:
    server = MeasuredServer(paths={"/v1/models": httpx2.Response(200, content=content)})
    async with httpx2.AsyncClient(transport=server.transport()) as http:
        with pytest.raises(NodeFailed, match="does not list models"):
            await Server("http://server", http, server.clock).identity()


async def test_what_cannot_be_read_of_the_rest_is_not_known() -> None:
    odd = httpx2.Response(200, content=DEEP)
    server = MeasuredServer()
    server.paths |= {"/version": odd, "/api/version": odd, "/ready": odd, "/v1/topology": odd}
    async with httpx2.AsyncClient(transport=server.transport()) as http:
        assert (await Server("http://server", http, server.clock).identity()).version == ""
