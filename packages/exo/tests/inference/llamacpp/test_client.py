from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from exo.inference.llamacpp import client as client_module
from exo.inference.llamacpp.client import LlamaClient, error_of
from exo.types import (
    ChatRequest,
    CompletionRequest,
    ContextOverflow,
    Delta,
    ExoError,
    InvalidRequest,
    Limits,
    Message,
    RunFailed,
    Sampling,
    Timings,
    Usage,
)

Until = Callable[[Callable[[], bool]], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
STAY = b""
"""In a server's script: keep the connection open until the client closes it."""
USAGE = {
    "choices": [],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
    "timings": {"prompt_ms": 1500.0, "predicted_ms": 500.0, "predicted_n": 2},
}
REQUEST = ChatRequest(model="m", messages=(Message(role="user", content="hi"),))


def data(event: dict[str, Any] | str) -> bytes:
    """A server-sent event, in one chunk of HTTP."""
    text = f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n"
    return chunk(text.encode())


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


def word(text: str | None, *, finish: str | None = None, **delta: str) -> bytes:
    return data({"choices": [{"index": 0, "delta": {"content": text, **delta}, "finish_reason": finish}]})


def plain(status: str, body: object) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(content), content)


class FakeLlama:
    """Answers every request with the same pieces, each written on its own; notes what it was asked."""

    def __init__(self) -> None:
        self.script: list[bytes] = []
        self.paths: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.connections = 0
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._answer(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self.open -= 1

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-len"))
        self.paths.append(head.split()[1])
        self.bodies.append(json.loads(await reader.readexactly(length)))
        for piece in self.script:
            if piece == STAY:
                await reader.read()
                return
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)


@pytest.fixture
async def llama(tmp_path: Path, until: Until) -> AsyncIterator[FakeLlama]:
    fake = FakeLlama()
    server = await asyncio.start_unix_server(fake.serve, tmp_path / "llama.sock")
    async with server:
        yield fake
    await until(lambda: fake.open == 0)


@pytest.fixture
async def client(llama: FakeLlama, tmp_path: Path) -> AsyncIterator[LlamaClient]:
    made = LlamaClient(str(tmp_path / "llama.sock"))
    yield made
    await made.close()


async def collect(deltas: AsyncGenerator[Delta, None]) -> list[Delta]:
    async with contextlib.aclosing(deltas):
        return [delta async for delta in deltas]


async def texts_until_error(deltas: AsyncGenerator[Delta, None]) -> tuple[list[str], BaseException | None]:
    texts: list[str] = []
    try:
        async for delta in deltas:
            texts.append(delta.text)  # noqa: PERF401 - what came before an error counts
    except Exception as error:  # noqa: BLE001 - handed to the test
        return texts, error
    return texts, None


# errors


@pytest.mark.parametrize(
    ("status", "error", "kind", "words"),
    [
        (
            400,
            {
                "code": 400,
                "message": "request (3031 tokens) exceeds the available context size (512 tokens), try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 3031,
                "n_ctx": 512,
            },
            ContextOverflow,
            "This model's maximum context length is 512 tokens here, but the prompt has 3031.",
        ),
        (500, {"message": "x", "n_prompt_tokens": 3031, "n_ctx": 512}, ContextOverflow, "3031"),
        (400, {"message": "x", "n_prompt_tokens": 3031}, InvalidRequest, "refused the request: x"),
        (400, {"message": "no parser: JSON schema error at #: type y"}, InvalidRequest, "cannot be used: at #: type y"),
        (400, {"code": 400, "message": "bad grammar", "type": "invalid"}, InvalidRequest, "bad grammar"),
        (404, {"message": "no such path"}, InvalidRequest, "no such path"),
        (500, {"code": 500, "message": "compute failed"}, RunFailed, "could not run the request: compute failed"),
        (503, {"message": "Loading model"}, RunFailed, "Loading model"),
        (500, {}, RunFailed, "no message"),
    ],
)
def test_errors_of_llama_cpp(status: int, error: dict[str, Any], kind: type[ExoError], words: str) -> None:
    found = error_of(status, json.dumps({"error": error}).encode())
    assert type(found) is kind
    assert words in found.message
    if isinstance(found, ContextOverflow):
        assert (found.prompt_tokens, found.context_tokens) == (3031, 512)


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"{}", b"[]", b"null", b'{"error": "text"}', b'{"error": {"message": 5}}', b"\xff"]
)
@pytest.mark.parametrize("status", [400, 502])
def test_errors_that_cannot_be_read(status: int, content: bytes) -> None:
    found = error_of(status, content)
    assert type(found) is RunFailed
    assert f"status {status}" in found.message


# what is asked


async def test_a_chat_in_the_words_of_llama_cpp(llama: FakeLlama, client: LlamaClient) -> None:
    llama.script = [OK, data(USAGE)]
    request = ChatRequest(
        model="m",
        messages=(Message(role="system", content="s"), Message(role="user", content="u")),
        sampling=Sampling(temperature=0.0, top_p=0.5, top_k=0, min_p=0.1, repeat_penalty=1.1, seed=7),
        limits=Limits(max_tokens=5, stop=("a", "b")),
    )
    await collect(client.chat(request))
    assert llama.paths == ["/v1/chat/completions"]
    assert llama.bodies == [
        {
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
            "temperature": 0.0,
            "top_p": 0.5,
            "top_k": 0,
            "min_p": 0.1,
            "repeat_penalty": 1.1,
            "seed": 7,
            "max_tokens": 5,
            "stop": ["a", "b"],
            "verbose": True,
            "timings_per_token": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


async def test_every_sampling_field_is_passed_on(llama: FakeLlama, client: LlamaClient) -> None:
    llama.script = [OK, data(USAGE)]
    fields = {field.name: 1 for field in msgspec.structs.fields(Sampling)}
    await collect(client.chat(msgspec.structs.replace(REQUEST, sampling=msgspec.convert(fields, Sampling))))
    assert fields.items() <= llama.bodies[0].items()


async def test_what_is_not_set_is_left_to_llama_cpp(llama: FakeLlama, client: LlamaClient) -> None:
    llama.script = [OK, data(USAGE)]
    await collect(client.chat(REQUEST))
    assert set(llama.bodies[0]) == {"messages", "timings_per_token", "stream", "stream_options"}


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 2**63, -1, -(2**40)])
async def test_any_seed_becomes_one_that_is_not_random(llama: FakeLlama, client: LlamaClient, seed: int) -> None:
    llama.script = [OK, data(USAGE)]
    await collect(client.chat(msgspec.structs.replace(REQUEST, sampling=Sampling(seed=seed))))
    assert 0 <= llama.bodies[0]["seed"] < 2**32 - 1


# what comes back


async def test_a_streamed_answer(llama: FakeLlama, client: LlamaClient) -> None:
    end = data({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
    llama.script = [OK, word(None, role="assistant"), word("Hel"), word("lo \N{SNOWMAN}"), end, data(USAGE)]
    assert await collect(client.chat(REQUEST)) == [
        Delta(text="Hel"),
        Delta(text="lo \N{SNOWMAN}"),
        Delta(
            finish_reason="length",
            usage=Usage(prompt_tokens=9, completion_tokens=2, cached_tokens=4),
            timings=Timings(prefill=1.5, decode=0.5),
        ),
    ]


async def test_reasoning_is_kept_apart(llama: FakeLlama, client: LlamaClient) -> None:
    llama.script = [OK, word(None, reasoning_content="hm"), word("so", finish="stop"), data(USAGE)]
    first, second, last = await collect(client.chat(REQUEST))
    assert (first, second) == (Delta(reasoning="hm"), Delta(text="so"))
    assert last.finish_reason == "stop"


async def test_a_streamed_completion(llama: FakeLlama, client: LlamaClient) -> None:
    piece = {"choices": [{"index": 0, "text": "ab", "finish_reason": None}]}
    llama.script = [OK, data(piece), data(USAGE), data("[DONE]")]
    deltas = await collect(client.complete(CompletionRequest(model="m", prompt="p")))
    assert [delta.text for delta in deltas] == ["ab", ""]
    assert (llama.paths, llama.bodies[0]["prompt"]) == (["/v1/completions"], "p")


async def test_events_may_be_cut_anywhere(llama: FakeLlama, client: LlamaClient) -> None:
    stream = b"".join(
        f"data: {json.dumps(event)}\n\n".encode()
        for event in ({"choices": [{"delta": {"content": "\N{SNOWMAN}b"}, "finish_reason": "stop"}]}, USAGE)
    )
    llama.script = [OK, *(chunk(stream[start : start + 7]) for start in range(0, len(stream), 7))]
    assert [delta.text for delta in await collect(client.chat(REQUEST))] == ["\N{SNOWMAN}b", ""]


@pytest.mark.parametrize("ping", [b":\n\n", b": ping\n\n", b":\r\n\r\n"], ids=["bare", "text", "crlf"])
async def test_comments_between_events_are_no_events(llama: FakeLlama, client: LlamaClient, ping: bytes) -> None:
    """llama.cpp writes one every 30 seconds in which nothing else comes, as in a long prefill."""
    llama.script = [OK, chunk(ping), chunk(ping), word("a"), chunk(ping), word("b"), data(USAGE)]
    assert [delta.text for delta in await collect(client.chat(REQUEST))] == ["a", "b", ""]


async def test_an_unknown_finish_reason_is_no_crash(llama: FakeLlama, client: LlamaClient) -> None:
    llama.script = [OK, word("a", finish="content_filter"), data(USAGE)]
    _, error = await texts_until_error(client.chat(REQUEST))
    assert error is None or isinstance(error, RunFailed)


@pytest.mark.parametrize(
    "event",
    [chunk(b"data: {half\n\n"), chunk(b"data: []\n\n"), chunk(b"data: \xff\n\n"), chunk(b"data: what?\n\n")],
    ids=["half", "list", "bytes", "words"],
)
async def test_an_event_that_cannot_be_read_is_a_failed_run(
    llama: FakeLlama, client: LlamaClient, event: bytes
) -> None:
    llama.script = [OK, word("a"), event, STAY]
    texts, error = await texts_until_error(client.chat(REQUEST))
    assert texts == ["a"]
    assert isinstance(error, RunFailed)


# refusals and failures


async def test_a_refusal_comes_before_the_first_delta(llama: FakeLlama, client: LlamaClient) -> None:
    llama.script = [plain("400 Bad Request", {"error": {"message": "x", "n_prompt_tokens": 9, "n_ctx": 8}})]
    with pytest.raises(ContextOverflow):
        await collect(client.chat(REQUEST))


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (data({"error": {"code": 500, "message": "compute failed", "type": "server_error"}}), RunFailed),
        (chunk(b'data: {"error":{"code":500,"message":"compute failed"}}\n\n'), RunFailed),
        (chunk(b'error: {"error":{"code":500,"message":"compute failed"}}\n\n'), RunFailed),
        (data({"error": {"code": 400, "message": "compute failed"}}), InvalidRequest),
    ],
    ids=["spaced", "dense", "error line", "its own code"],
)
async def test_an_error_in_the_middle(
    llama: FakeLlama, client: LlamaClient, event: bytes, kind: type[ExoError]
) -> None:
    llama.script = [OK, word("a"), event, STAY]
    texts, error = await texts_until_error(client.chat(REQUEST))
    assert texts == ["a"]
    assert type(error) is kind
    assert "compute failed" in error.message


async def test_an_overflow_that_shows_after_the_head_was_sent(llama: FakeLlama, client: LlamaClient) -> None:
    llama.script = [OK, data({"error": {"message": "x", "n_prompt_tokens": 9, "n_ctx": 8}}), STAY]
    with pytest.raises(ContextOverflow):
        await collect(client.chat(REQUEST))


@pytest.mark.parametrize("end", [[], [data("[DONE]")], [chunk(b"\n"), data("[DONE]")]], ids=["cut", "done", "blank"])
async def test_an_answer_without_a_result_is_no_answer(llama: FakeLlama, client: LlamaClient, end: list[bytes]) -> None:
    llama.script = [OK, word("a", finish="stop"), *end, b"0\r\n\r\n"]
    texts, error = await texts_until_error(client.chat(REQUEST))
    assert texts == ["a"]
    assert isinstance(error, RunFailed)
    assert "without a result" in error.message


@pytest.mark.parametrize(
    "script",
    [[], [b"HTTP/1.1 200"], [OK], [OK, word("a")], [OK, word("a"), word("b")[:-5]]],
    ids=["at once", "in the head", "after the head", "between events", "inside an event"],
)
async def test_a_connection_that_is_cut_is_a_transport_error(
    llama: FakeLlama, client: LlamaClient, script: list[bytes]
) -> None:
    llama.script = script
    _, error = await texts_until_error(client.chat(REQUEST))
    assert isinstance(error, httpx2.TransportError)


async def test_a_server_that_is_not_there_is_a_transport_error(tmp_path: Path) -> None:
    client = LlamaClient(str(tmp_path / "nobody.sock"))
    with pytest.raises(httpx2.TransportError):
        await collect(client.chat(REQUEST))
    await client.close()


@pytest.mark.parametrize("script", [[OK, word("a"), STAY], [OK, word("a"), *[word("b")] * 1000, STAY]])
async def test_closing_the_generator_closes_the_connection(
    llama: FakeLlama, client: LlamaClient, until: Until, script: list[bytes]
) -> None:
    llama.script = script
    left_to_the_garbage_collector: list[Any] = []  # asynchronous generators
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(finalizer=left_to_the_garbage_collector.append)
    try:
        deltas = client.chat(REQUEST)
        assert (await anext(deltas)).text == "a"
        assert llama.open == 1
        await deltas.aclose()
    finally:
        sys.set_asyncgen_hooks(*hooks)
    ours = [found for found in left_to_the_garbage_collector if found.ag_code.co_filename == client_module.__file__]
    assert ours == [], "closed some time later, not at once"
    await until(lambda: llama.open == 0)


@pytest.mark.parametrize("script", [[STAY], [OK, STAY]], ids=["before the head", "after the head"])
async def test_cancelling_before_the_first_delta_closes_the_connection(
    llama: FakeLlama, client: LlamaClient, until: Until, script: list[bytes]
) -> None:
    llama.script = script
    reading = asyncio.create_task(collect(client.chat(REQUEST)))
    await until(lambda: len(llama.bodies) == 1)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await until(lambda: llama.open == 0)


async def test_every_request_has_a_connection_of_its_own(llama: FakeLlama, client: LlamaClient) -> None:
    llama.script = [OK, data(USAGE), b"0\r\n\r\n"]
    for _ in range(3):
        await collect(client.chat(REQUEST))
    assert llama.connections == 3


async def test_many_requests_at_once_do_not_wait_for_each_other(
    llama: FakeLlama, client: LlamaClient, until: Until
) -> None:
    llama.script = [OK, STAY]
    tasks = [asyncio.create_task(collect(client.chat(REQUEST))) for _ in range(120)]
    await until(lambda: llama.open == 120)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# small questions


@pytest.mark.parametrize("special", [True, False])
async def test_tokenize(llama: FakeLlama, client: LlamaClient, *, special: bool) -> None:
    llama.script = [plain("200 OK", {"tokens": [1, 2]})]
    assert await client.tokenize("<s>hi", special=special) == [1, 2]
    assert (llama.paths, llama.bodies) == (
        ["/tokenize"],
        [{"content": "<s>hi", "parse_special": special, "add_special": False}],
    )


async def test_a_connection_is_not_kept_for_the_next_request(
    llama: FakeLlama, client: LlamaClient, until: Until
) -> None:
    llama.script = [plain("200 OK", {"tokens": []}), STAY]
    await client.tokenize("x", special=False)
    await until(lambda: llama.open == 0)


async def test_render(llama: FakeLlama, client: LlamaClient) -> None:
    llama.script = [plain("200 OK", {"prompt": "<user>hi"})]
    assert await client.render(REQUEST) == "<user>hi"
    assert llama.paths == ["/apply-template"]
    assert llama.bodies[0]["messages"] == [{"role": "user", "content": "hi"}]


async def test_small_questions_are_refused_with_the_same_errors(llama: FakeLlama, client: LlamaClient) -> None:
    llama.script = [plain("400 Bad Request", {"error": {"message": "no template"}})]
    with pytest.raises(InvalidRequest, match="no template"):
        await client.render(REQUEST)
