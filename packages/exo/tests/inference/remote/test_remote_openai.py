from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from remote_server import (
    END,
    EVENTS,
    RemoteServer,
    answer,
    chunk,
    collect,
    event,
    openai_chat,
    said,
    until_error,
    usage,
)

from exo.inference.remote.link import Link
from exo.inference.remote.openai import OpenAIClient
from exo.types import (
    AnswerFormat,
    ChatRequest,
    CompletionRequest,
    ContextOverflow,
    Delta,
    EmbeddingRequest,
    ExoError,
    InvalidRequest,
    Limits,
    Message,
    RemoteFailed,
    RunFailed,
    Sampling,
    Timings,
    ToolCall,
    UnsupportedParameter,
    Usage,
)

Until = Callable[[Callable[[], bool]], Awaitable[None]]
CHAT = "/v1/chat/completions"
REQUEST = ChatRequest(model="m", messages=(Message(role="user", content="hi"),), id="r1")
COUNTS = Usage(prompt_tokens=9, completion_tokens=2, cached_tokens=4, reasoning_tokens=1)
BEGUN = Delta()


@pytest.fixture
def client(link: Link) -> OpenAIClient:
    return OpenAIClient(link)


async def test_a_streamed_answer(server: RemoteServer, client: OpenAIClient) -> None:
    server.routes[CHAT] = openai_chat("Hel", "lo \N{SNOWMAN}", finish="length")
    assert await collect(client.chat(REQUEST)) == [
        BEGUN,
        Delta(text="Hel"),
        Delta(text="lo \N{SNOWMAN}"),
        Delta(finish_reason="length", usage=COUNTS),
    ]
    assert server.body(CHAT) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert server.asked[0].headers["x-request-id"] == "r1"


async def test_the_whole_conversation_is_sent(server: RemoteServer, client: OpenAIClient) -> None:
    server.routes[CHAT] = openai_chat("x")
    messages = (
        Message(role="system", content="Be brief."),
        Message(role="user", content="one"),
        Message(
            role="assistant", content="", reasoning="hm", tool_calls=(ToolCall(id="c", name="f", arguments='{"x":1}'),)
        ),
        Message(role="tool", content="2", tool_call_id="c"),
        Message(role="user", content="two"),
    )
    await collect(client.chat(ChatRequest(model="m", messages=messages)))
    assert server.body(CHAT)["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}],
        },
        {"role": "tool", "content": "2", "tool_call_id": "c"},
        {"role": "user", "content": "two"},
    ]


async def test_every_field_of_a_request_is_passed_on(server: RemoteServer, client: OpenAIClient) -> None:
    server.routes[CHAT] = openai_chat("x")
    fields = {field.name: 1 for field in msgspec.structs.fields(Sampling)}
    asked = ChatRequest(
        model="m",
        messages=REQUEST.messages,
        sampling=msgspec.convert(fields, Sampling),
        limits=Limits(max_tokens=5, stop=("a", "b")),
        think=False,
        format=AnswerFormat(schema={"type": "object"}),
    )
    await collect(client.chat(asked))
    assert {
        **fields,
        "repetition_penalty": 1,
        "max_tokens": 5,
        "stop": ["a", "b"],
        "chat_template_kwargs": {"enable_thinking": False},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
        },
    }.items() <= server.body(CHAT).items()


async def test_a_template_is_refused(server: RemoteServer, client: OpenAIClient) -> None:
    with pytest.raises(UnsupportedParameter):
        await collect(client.chat(msgspec.structs.replace(REQUEST, template="x")))
    assert server.asked == []


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_reasoning_is_kept_apart(server: RemoteServer, client: OpenAIClient, field: str) -> None:
    server.routes[CHAT] = [EVENTS, said(**{field: "hm"}), said("so", finish="stop"), usage(), END]
    _, first, second, _ = await collect(client.chat(REQUEST))
    assert (first, second) == (Delta(reasoning="hm"), Delta(text="so"))


async def test_a_raw_completion(server: RemoteServer, client: OpenAIClient) -> None:
    piece = event({"choices": [{"index": 0, "text": "ab", "finish_reason": "stop"}]})
    server.routes["/v1/completions"] = [EVENTS, piece, usage(), END]
    deltas = await collect(client.complete(CompletionRequest(model="m", prompt="<s> p\n", limits=Limits(max_tokens=3))))
    assert [delta.text for delta in deltas] == ["", "ab", ""]
    body = server.body("/v1/completions")
    assert (body["prompt"], body["max_tokens"]) == ("<s> p\n", 3)


async def test_the_times_of_llama_server(server: RemoteServer, client: OpenAIClient) -> None:
    last = event({"choices": [], "usage": {}, "timings": {"prompt_ms": 1500.0, "predicted_ms": 500.0}})
    server.routes[CHAT] = [EVENTS, said("a", finish="stop"), last, END]
    assert (await collect(client.chat(REQUEST)))[-1].timings == Timings(prefill=1.5, decode=0.5)


@pytest.mark.parametrize(
    "end",
    [
        [usage(), event("[DONE]"), END],
        [usage(), END],
        [event({"choices": None, "usage": None}), usage(), END],
        [chunk(b": ping\n\nevent: x\r\n\r\n"), usage(), END],
    ],
    ids=["done", "no done", "nulls", "comments"],
)
async def test_ways_to_end(server: RemoteServer, client: OpenAIClient, end: list[bytes]) -> None:
    server.routes[CHAT] = [EVENTS, said("a"), said(finish="stop"), *end]
    assert (await collect(client.chat(REQUEST)))[1:] == [Delta(text="a"), Delta(finish_reason="stop", usage=COUNTS)]


@pytest.mark.parametrize("end", [[event("[DONE]"), END], [END]])
async def test_a_server_that_does_not_count(server: RemoteServer, client: OpenAIClient, end: list[bytes]) -> None:
    server.routes[CHAT] = [EVENTS, said("a"), said(finish="stop"), *end]
    assert (await collect(client.chat(REQUEST)))[-1] == Delta(finish_reason="stop", usage=Usage())


async def test_the_last_delta_does_not_wait_for_the_end_of_the_stream(
    server: RemoteServer, client: OpenAIClient
) -> None:
    server.routes[CHAT] = [EVENTS, said("a", finish="stop"), usage(), "stay"]
    async with contextlib.aclosing(client.chat(REQUEST)) as deltas:
        assert [(await anext(deltas)).finish_reason for _ in range(3)] == [None, None, "stop"]


async def test_a_server_that_does_not_stream(server: RemoteServer, client: OpenAIClient) -> None:
    message = {"role": "assistant", "content": "so", "reasoning_content": "hm"}
    whole = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}
    server.routes[CHAT] = [answer(whole)]
    assert (await collect(client.chat(REQUEST)))[1:] == [
        Delta(text="so", reasoning="hm"),
        Delta(finish_reason="stop", usage=Usage(prompt_tokens=3)),
    ]


@pytest.mark.parametrize(
    ("said_reason", "reason"),
    [("stop", "stop"), ("length", "length"), ("tool_calls", "tool_calls"), ("eos", "stop"), ("content_filter", "stop")],
)
async def test_finish_reasons(server: RemoteServer, client: OpenAIClient, said_reason: str, reason: str) -> None:
    server.routes[CHAT] = openai_chat("a", finish=said_reason)
    assert (await collect(client.chat(REQUEST)))[-1].finish_reason == reason


async def test_one_request_a_chat_and_one_connection_for_all(server: RemoteServer, client: OpenAIClient) -> None:
    server.routes[CHAT] = openai_chat("a")
    for _ in range(3):
        await collect(client.chat(REQUEST))
    assert server.paths() == [CHAT] * 3
    assert server.connections == 1


# failures


@pytest.mark.parametrize("end", [[END], [event("[DONE]"), END], ["cut"]], ids=["end", "done", "cut"])
async def test_an_answer_that_breaks_off(server: RemoteServer, client: OpenAIClient, end: list[Any]) -> None:
    server.routes[CHAT] = [EVENTS, said("a"), said("b"), *end]
    text, error = await until_error(client.chat(REQUEST))
    assert text == "ab"
    assert isinstance(error, RemoteFailed)
    assert "after 2 pieces" in error.message
    assert server.paths() == [CHAT]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"error": {"message": "boom", "code": "engine_run_failed"}}, RunFailed),
        ({"error": {"message": "boom", "code": 400}}, InvalidRequest),
        ({"error": {"message": "boom"}}, RemoteFailed),
        ({"error": "boom"}, RemoteFailed),
    ],
)
@pytest.mark.parametrize("shape", ["data: {}\n\n", "error: {}\n\n", "event: error\ndata: {}\n\n", "{}\n"])
async def test_an_error_in_the_middle(
    server: RemoteServer, client: OpenAIClient, body: dict[str, Any], kind: type[ExoError], shape: str
) -> None:
    server.routes[CHAT] = [EVENTS, said("a"), chunk(shape.replace("{}", json.dumps(body)).encode()), "stay"]
    text, error = await until_error(client.chat(REQUEST))
    assert text == "a"
    assert type(error) is kind
    assert "boom" in str(error)


async def test_a_refusal_after_the_head_comes_before_the_first_delta(
    server: RemoteServer, client: OpenAIClient
) -> None:
    server.routes[CHAT] = [EVENTS, event({"error": {"message": "x", "n_prompt_tokens": 9, "n_ctx": 8}}), "stay"]
    with pytest.raises(ContextOverflow):
        await anext(client.chat(REQUEST))


@pytest.mark.parametrize("broken", [b"data: {half\n\n", b"data: []\n\n", b"data: \xff\n\n", b"data: what?\n\n"])
async def test_an_event_that_cannot_be_read(server: RemoteServer, client: OpenAIClient, broken: bytes) -> None:
    server.routes[CHAT] = [EVENTS, said("a"), chunk(broken), "stay"]
    text, error = await until_error(client.chat(REQUEST))
    assert (text, type(error)) == ("a", RemoteFailed)


async def test_closing_the_generator_ends_the_run_there(
    server: RemoteServer, client: OpenAIClient, until: Until
) -> None:
    server.routes[CHAT] = [EVENTS, said("a"), *[said("b")] * 100, "stay"]
    deltas = client.chat(REQUEST)
    assert [(await anext(deltas)).text for _ in range(2)] == ["", "a"]
    assert server.open == 1
    await deltas.aclose()
    await until(lambda: server.open == 0)


async def test_cancelling_ends_the_run_there(server: RemoteServer, client: OpenAIClient, until: Until) -> None:
    server.routes[CHAT] = [EVENTS, said("a"), "stay"]
    reading = asyncio.create_task(collect(client.chat(REQUEST)))
    await until(lambda: server.open == 1 and server.paths() == [CHAT])
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await until(lambda: server.open == 0)


STREAM = (
    "data: {}\n\n: ping\r\n\r\ndata:{}\r\n\r\ndata: {}\n\ndata: {}\n\ndata: [DONE]\n\n".format(
        *(
            json.dumps(body, ensure_ascii=False)
            for body in (
                {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
                {"choices": [{"delta": {"content": "\N{SNOWMAN}\n\N{GRINNING FACE}"}}]},
                {"choices": [{"delta": {"content": "b"}, "finish_reason": "stop"}]},
                {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
            )
        )
    )
).encode()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=6))
async def test_events_may_be_cut_anywhere(server: RemoteServer, client: OpenAIClient, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in itertools.pairwise(edges) if start < end]
    server.routes[CHAT] = [EVENTS, *map(chunk, pieces), END]
    deltas = await collect(client.chat(REQUEST))
    assert [delta.text for delta in deltas] == ["", "\N{SNOWMAN}\n\N{GRINNING FACE}", "b", ""]
    assert deltas[-1].usage == Usage(prompt_tokens=3, completion_tokens=2)


async def test_an_answer_in_single_bytes(server: RemoteServer, client: OpenAIClient) -> None:
    server.routes[CHAT] = [EVENTS, *(chunk(STREAM[at : at + 1]) for at in range(len(STREAM))), END]
    assert "".join(delta.text for delta in await collect(client.chat(REQUEST))) == "\N{SNOWMAN}\n\N{GRINNING FACE}b"


# the rest


async def test_embeddings(server: RemoteServer, client: OpenAIClient) -> None:
    data = [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": [1.5, 2]}]
    server.routes["/v1/embeddings"] = [answer({"data": data, "usage": {"prompt_tokens": 5}})]
    found = await client.embed(EmbeddingRequest(id="r1", model="m", inputs=("a", "b")))
    assert found.vectors == ((1.5, 2.0), (3.0, 4.0))
    assert found.usage == Usage(prompt_tokens=5)
    assert server.body("/v1/embeddings") == {"model": "m", "input": ["a", "b"], "encoding_format": "float"}
    assert server.asked[0].headers["x-request-id"] == "r1"


async def test_too_few_embeddings(server: RemoteServer, client: OpenAIClient) -> None:
    server.routes["/v1/embeddings"] = [answer({"data": []})]
    with pytest.raises(RemoteFailed, match="0 vectors for 1 texts"):
        await client.embed(EmbeddingRequest(model="m", inputs=("a",)))


async def test_models(server: RemoteServer, client: OpenAIClient) -> None:
    listed = [
        {"id": "a", "owned_by": "vllm", "max_model_len": 4096},
        {"id": "b", "owned_by": "llamacpp", "meta": {"n_ctx": 2048, "n_ctx_train": 32768, "n_params": 7, "size": 5}},
        {"id": "b2", "owned_by": "llamacpp", "meta": {"n_ctx_train": 32768}},
        {"id": "c", "meta": None},
    ]
    server.routes["/v1/models"] = [answer({"data": listed})]
    found = await client.models()
    assert [(one.id, one.context_length, one.size, one.parameters_count) for one in found] == [
        ("a", 4096, 0, 0),
        ("b", 2048, 5, 7),
        ("b2", 0, 0, 0),
        ("c", 0, 0, 0),
    ]


@pytest.mark.parametrize(("owners", "is_exo"), [(["exo", "exo"], True), (["exo", "library"], False), ([], False)])
async def test_a_node_of_this_project_is_known(
    server: RemoteServer, client: OpenAIClient, owners: list[str], *, is_exo: bool
) -> None:
    server.routes["/v1/models"] = [answer({"data": [{"id": "m", "owned_by": owner} for owner in owners]})]
    assert (await client.listing()).is_exo is is_exo
