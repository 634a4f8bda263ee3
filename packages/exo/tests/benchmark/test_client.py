"""What the benchmark makes of a server's answers; the clock passes only where the server takes its time."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from measured_server import ANSWER, DONE, MeasuredServer, Step, event, said, usage

from exo.benchmark.client import Server, base_of, without_secrets
from exo.benchmark.plan import Question
from exo.benchmark.results import Sample, Settings
from exo.types import ConfigurationError, NodeFailed

QUESTION = Question("Math", "What is 145 + 278?", 2, 64)
SETTINGS = Settings(models=("one",), temperature=0.5)


async def ask(server: MeasuredServer, times: int = 1) -> Sample:
    async with httpx2.AsyncClient(transport=server.transport()) as http:
        asked = Server("http://server", http, server.clock)
        server.clock.now += 7
        for _ in range(times):
            found = await asked.ask(QUESTION, "one", SETTINGS, part="prompts", level=1)
    return found


async def answered(*steps: Step) -> Sample:
    return await ask(MeasuredServer(answers=[steps]))


async def test_an_answer_is_timed() -> None:
    server = MeasuredServer()
    found = await ask(server)
    assert found == Sample(
        part="prompts",
        model="one",
        name="Math",
        repeat=2,
        started=7.0,
        first_token=0.5,
        first_answer=0.5,
        total=1.5,
        prompt_tokens=9,
        completion_tokens=5,
        finish_reason="stop",
    )
    assert found.tokens_per_s == 4.0
    assert found.prefill_tokens_per_s == 18.0
    assert server.bodies == [
        {
            "model": "one",
            "messages": [{"role": "user", "content": "What is 145 + 278?"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 64,
            "temperature": 0.5,
        }
    ]


async def test_pieces_of_the_stream_may_be_cut_anywhere() -> None:
    whole = b"".join(step for step in ANSWER if isinstance(step, bytes))
    found = await answered(*(whole[place : place + 1] for place in range(len(whole))))
    assert (found.error, found.completion_tokens, found.finish_reason) == (None, 5, "stop")


async def test_a_line_separator_in_a_text_ends_no_event() -> None:
    found = await answered('data: {"choices":[{"delta":{"content":"a\u2028b"}}]}\n\n'.encode(), usage(), DONE)
    assert (found.error, found.first_token) == (None, 0.0)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_reasoning_is_the_first_token_but_not_the_first_answer(field: str) -> None:
    thought = said(**{field: "Hm"})
    found = await answered(1.0, thought, 2.0, said("4"), 1.0, said(finish="stop"), usage(), DONE)
    assert (found.first_token, found.first_answer, found.total) == (1.0, 3.0, 4.0)


async def test_an_empty_piece_is_no_token() -> None:
    found = await answered(1.0, said("", role="assistant"), 1.0, said("a"), said(finish="stop"), DONE)
    assert (found.first_token, found.completion_tokens) == (2.0, 1)


async def test_a_call_of_a_tool_is_an_answer() -> None:
    found = await answered(1.0, said(tool_calls=[{"index": 0}]), said(finish="tool_calls"), usage(), DONE)
    assert (found.first_answer, found.finish_reason) == (1.0, "tool_calls")


async def test_without_usage_pieces_are_counted() -> None:
    found = await answered(1.0, said("a"), said("b"), 1.0, said("c"), said(finish="length"), DONE)
    assert (found.counted_by, found.completion_tokens, found.prompt_tokens) == ("chunks", 3, None)
    assert (found.tokens_per_s, found.prefill_tokens_per_s) == (2.0, None)


async def test_what_came_from_the_cache_was_not_read() -> None:
    found = await answered(0.5, said("a"), said(finish="stop"), usage(prompt=100, cached=80), DONE)
    assert (found.cached_tokens, found.prefill_tokens_per_s) == (80, 40.0)


async def test_the_time_of_loading_where_a_server_tells_it() -> None:
    found = await answered(said("a", finish="stop"), event({"choices": [], "timings": {"load_ms": 1500}}), DONE)
    assert found.load == 1.5


async def test_the_model_that_the_server_says_has_answered() -> None:
    pieces = (event({"model": "auto", "choices": []}), event({"model": "quick\x1b", "choices": []}), said("a"))
    found = await answered(*pieces, event({"model": 7}), said(finish="stop"), DONE)
    assert (found.model, found.answered_by, found.error) == ("one", "quick\\x1b", None)


async def test_a_server_that_knows_no_usage_is_asked_again_without_it() -> None:
    server = MeasuredServer(refusing=30.0)
    refused = httpx2.Response(400, json={"error": {"message": "unknown field stream_options"}})
    server.answers = [refused, *[(1.0, said("a"), said(finish="stop"), DONE)] * 2]
    found = await ask(server)
    assert (found.error, found.counted_by) == (None, "chunks")
    assert (found.started, found.first_token, found.total) == (37.0, 1.0, 1.0), "the refusal was counted"
    assert ["stream_options" in body for body in server.bodies] == [True, False]


async def test_it_is_asked_without_usage_from_then_on() -> None:
    server = MeasuredServer()
    refused = httpx2.Response(422, json={"detail": [{"loc": ["body", "stream_options"]}]})
    server.answers = [refused, *[(said("a"), said(finish="stop"), DONE)] * 2]
    await ask(server, times=2)
    assert ["stream_options" in body for body in server.bodies] == [True, False, False]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"error": {"message": "The queue is full."}}, "status 429: The queue is full."),
        ({"error": "busy"}, "status 429: busy"),
        ({"detail": "slow down"}, "status 429: slow down"),
        ({}, "status 429: {}"),
    ],
)
async def test_a_refused_request_is_an_error_with_the_servers_words(content: Any, message: str) -> None:
    assert (await ask(MeasuredServer(answers=[httpx2.Response(429, json=content)]))).error == message


async def test_a_page_of_a_proxy_is_shown_in_one_line_without_control_characters() -> None:
    page = httpx2.Response(502, content=b"<html>\n\x1b[31mBad Gateway\r\n" + b"x" * 1000)
    error = (await ask(MeasuredServer(answers=[page]))).error or ""
    assert error.startswith("status 502: <html> [31mBad Gateway x")
    assert len(error) < 600


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((said("a"), event({"error": {"message": "The model ended."}})), "The model ended."),
        ((said("a"),), "broke off"),
        ((said("a"), event("nonsense")), "nobody understands: 'nonsense'"),
        ((event({"choices": "many"}),), "nobody understands"),
        ((said("a"), httpx2.ReadError("gone")), "the connection broke: gone"),
        ((httpx2.ReadTimeout(""),), "the connection broke: ReadTimeout"),
    ],
)
async def test_an_answer_that_goes_wrong(steps: tuple[Step, ...], message: str) -> None:
    assert message in str((await answered(*steps)).error)


async def identify(paths: dict[str, Any]) -> dict[str, Any]:
    server = MeasuredServer(paths=paths)
    async with httpx2.AsyncClient(transport=server.transport()) as http:
        found = await Server("http://me:secret@server", http, server.clock).identity()
    return {name: getattr(found, name) for name in ("url", "program", "version", "engine", "machine", "loaded")}


NODES = [
    {"name": "a", "engine": "dummy"},
    {"name": "b", "engine": "llamacpp", "capabilities": {"machine": {"cpu_model": "RK3588"}}},
]
MODELS = {"data": [{"id": "one", "owned_by": "llamacpp"}]}


@pytest.mark.parametrize(
    ("paths", "known"),
    [
        ({}, {"program": "llamacpp"}),
        ({"/version": {"version": "0.9"}}, {"program": "vLLM", "version": "0.9"}),
        ({"/api/version": {"version": "0.12"}}, {"program": "Ollama", "version": "0.12"}),
        (
            {
                "/api/version": {"version": "0.1.0"},
                "/ready": {"name": "b", "version": "0.1.0", "loaded": ["one"]},
                "/v1/topology": {"nodes": NODES},
            },
            {"program": "exo", "version": "0.1.0", "engine": "llamacpp", "machine": "RK3588", "loaded": ("one",)},
        ),
        (
            {
                "/ready": {"name": "c"},
                "/v1/topology": {
                    "nodes": [{"name": "c", "capabilities": {"machine": {"model": "Rock 5B", "cpu_model": "A76"}}}]
                },
            },
            {"program": "exo", "machine": "Rock 5B"},
        ),
        ({"/version": ["odd"], "/v1/topology": {"nodes": 3}, "/ready": {"loaded": 3}}, {"program": "llamacpp"}),
        ({"/v1/topology": {"nodes": [7, {"name": "b"}]}, "/ready": {"name": "b", "loaded": 3}}, {"program": "exo"}),
    ],
)
async def test_who_the_server_is_as_far_as_it_tells(paths: dict[str, Any], known: dict[str, Any]) -> None:
    unknown = {"url": "http://server", "version": "", "engine": "", "machine": "", "loaded": ()}
    assert await identify({"/v1/models": MODELS, **paths}) == {**unknown, **known}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx2.ConnectError("refused"), "Nothing answers on http://server (refused): start a node with `exo`"),
        (httpx2.Response(401, json={}), "--api-key or in EXO_API_KEY"),
        (httpx2.Response(200, content=b"<html>"), "does not list models"),
        (httpx2.Response(200, json=["odd"]), "does not list models"),
        (httpx2.Response(500, json={"data": []}), "status 500"),
    ],
)
async def test_a_server_that_cannot_be_measured(answer: Any, said: str) -> None:
    with pytest.raises(NodeFailed) as raised:
        await identify({"/v1/models": answer})
    assert said in raised.value.message
    assert "secret" not in raised.value.message


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/", "http://h:1/v1?x=1#y"])
def test_an_address_with_and_without_v1(url: str) -> None:
    assert base_of(url) == "http://h:1"


def test_an_address_below_a_path() -> None:
    assert base_of("https://h/openai/v1") == "https://h/openai"


@pytest.mark.parametrize(
    "url",
    [
        "", "h:1", "ftp://h", "http://", "http://[x:y]", "http://h:0", "http://h:65536", "http://h:-1", "http://h:x",
        "http://h\x1b/", "http://h/\udcff", "http://h\u202e/",
    ],
)  # fmt: skip
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigurationError, match="no address of a server"):
        base_of(url)


def test_a_wrong_address_is_shown_without_a_password() -> None:
    with pytest.raises(ConfigurationError, match=r"^'http://h:65536' is no address"):
        base_of("http://me:secret@h:65536")
    with pytest.raises(ConfigurationError, match=r"^'h:1' is no address"):
        base_of("me:secret@h:1")


def test_an_address_is_shown_without_a_password() -> None:
    assert without_secrets("https://me:se@cret@h:1/a@b") == "https://h:1/a@b"
