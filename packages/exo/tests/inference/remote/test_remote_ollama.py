from __future__ import annotations

import itertools
import json
import math
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from remote_server import (
    END,
    NDJSON,
    VERSION,
    RemoteServer,
    answer,
    chunk,
    collect,
    line,
    ollama_chat,
    ollama_end,
    ollama_line,
    until_error,
)

from exo.inference.remote import OllamaClient
from exo.inference.remote.link import Link
from exo.inference.remote.ollama_models import count_of, parameters_in, time_of
from exo.models import ModelDescription
from exo.types import (
    AnswerFormat,
    ChatRequest,
    CompletionRequest,
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
CHAT = "/api/chat"
REQUEST = ChatRequest(model="m", messages=(Message(role="user", content="hi"),), id="r1")
LAST = Delta(
    finish_reason="stop",
    usage=Usage(prompt_tokens=9, completion_tokens=2),
    timings=Timings(load=2.0, prefill=1.5, decode=0.5),
)


@pytest.fixture
def client(link: Link) -> OllamaClient:
    return OllamaClient(link)


async def test_a_streamed_answer(server: RemoteServer, client: OllamaClient) -> None:
    server.routes[CHAT] = ollama_chat("Hel", "lo \N{SNOWMAN}")
    assert await collect(client.chat(REQUEST)) == [Delta(), Delta(text="Hel"), Delta(text="lo \N{SNOWMAN}"), LAST]
    assert server.body(CHAT) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "truncate": False,
        "shift": False,
    }
    assert server.asked[0].headers["x-request-id"] == "r1"


async def test_the_whole_conversation_is_sent(server: RemoteServer, client: OllamaClient) -> None:
    server.routes[CHAT] = ollama_chat("x")
    messages = (
        Message(role="system", content="Be brief."),
        Message(
            role="assistant", content="", reasoning="hm", tool_calls=(ToolCall(id="c", name="f", arguments='{"x":1}'),)
        ),
        Message(role="tool", content="2", tool_call_id="c"),
        Message(role="user", content="two"),
    )
    await collect(client.chat(ChatRequest(model="m", messages=messages)))
    assert server.body(CHAT)["messages"] == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"x": 1}}}],
        },
        {"role": "tool", "content": "2", "tool_call_id": "c", "tool_name": "f"},
        {"role": "user", "content": "two"},
    ]


@pytest.mark.parametrize("arguments", ["[1]", "{half", "7"])
async def test_arguments_that_are_no_object_are_refused(client: OllamaClient, arguments: str) -> None:
    call = ToolCall(id="c", name="f", arguments=arguments)
    message = Message(role="assistant", content="", tool_calls=(call,))
    with pytest.raises(InvalidRequest) as caught:
        await collect(client.chat(ChatRequest(model="m", messages=(message,))))
    assert caught.value.param == "messages[0].tool_calls[0].function.arguments"


async def test_every_field_of_a_request_is_passed_on(server: RemoteServer, client: OllamaClient) -> None:
    server.routes[CHAT] = ollama_chat("x")
    fields = {field.name: 1 for field in msgspec.structs.fields(Sampling)}
    asked = ChatRequest(
        model="m",
        messages=REQUEST.messages,
        sampling=msgspec.convert(fields, Sampling),
        limits=Limits(max_tokens=5, stop=("a", "b")),
        think=True,
        format=AnswerFormat(schema={"type": "object"}),
        keep_alive=60.0,
    )
    await collect(client.chat(asked))
    body = server.body(CHAT)
    assert body["options"] == {**fields, "num_predict": 5, "stop": ["a", "b"]}
    assert (body["think"], body["format"], body["keep_alive"]) == (True, {"type": "object"}, 60.0)


async def test_any_json_object_and_for_ever(server: RemoteServer, client: OllamaClient) -> None:
    server.routes[CHAT] = ollama_chat("x")
    await collect(client.chat(msgspec.structs.replace(REQUEST, format=AnswerFormat(), keep_alive=math.inf)))
    body = server.body(CHAT)
    assert (body["format"], body["keep_alive"]) == ("json", -1)


async def test_a_template_is_refused(server: RemoteServer, client: OllamaClient) -> None:
    with pytest.raises(UnsupportedParameter):
        await collect(client.chat(msgspec.structs.replace(REQUEST, template="x")))
    assert server.asked == []


async def test_reasoning_is_kept_apart(server: RemoteServer, client: OllamaClient) -> None:
    thinking = line({"message": {"role": "assistant", "content": "", "thinking": "hm"}, "done": False})
    server.routes[CHAT] = [NDJSON, thinking, ollama_line("so"), ollama_end("length"), END]
    _, first, second, last = await collect(client.chat(REQUEST))
    assert (first, second, last.finish_reason) == (Delta(reasoning="hm"), Delta(text="so"), "length")


async def test_a_raw_prompt_goes_untouched(server: RemoteServer, client: OllamaClient) -> None:
    prompt = "<|im_start|>user\n\thi \N{SNOWMAN}\\n<|im_end|>\n "
    pieces = [line({"response": text, "done": False}) for text in ("a", "b")]
    server.routes["/api/generate"] = [NDJSON, *pieces, ollama_end(), END]
    deltas = await collect(client.complete(CompletionRequest(model="m", prompt=prompt)))
    assert deltas == [Delta(), Delta(text="a"), Delta(text="b"), LAST]
    body = server.body("/api/generate")
    assert (body["prompt"], body["raw"]) == (prompt, True)


async def test_one_request_a_chat_and_one_connection_for_all(server: RemoteServer, client: OllamaClient) -> None:
    server.routes[CHAT] = ollama_chat("a")
    for _ in range(3):
        await collect(client.chat(REQUEST))
    assert server.paths() == [CHAT] * 3
    assert server.connections == 1


# failures


@pytest.mark.parametrize("end", [[END], ["cut"]], ids=["end", "cut"])
async def test_an_answer_that_breaks_off(server: RemoteServer, client: OllamaClient, end: list[Any]) -> None:
    server.routes[CHAT] = [NDJSON, ollama_line("a"), ollama_line("b"), *end]
    text, error = await until_error(client.chat(REQUEST))
    assert text == "ab"
    assert isinstance(error, RemoteFailed)
    assert "after 2 pieces" in error.message


@pytest.mark.parametrize(
    ("body", "kind"),
    [({"error": "boom", "code": "engine_run_failed"}, RunFailed), ({"error": "boom"}, RemoteFailed)],
)
async def test_an_error_in_the_middle(
    server: RemoteServer, client: OllamaClient, body: dict[str, Any], kind: type[ExoError]
) -> None:
    server.routes[CHAT] = [NDJSON, ollama_line("a"), line(body), "stay"]
    text, error = await until_error(client.chat(REQUEST))
    assert text == "a"
    assert type(error) is kind
    assert "boom" in str(error)


@pytest.mark.parametrize("broken", [b"{half\n", b"[]\n", b"\xff\n", b"<html>\n"])
async def test_a_line_that_cannot_be_read(server: RemoteServer, client: OllamaClient, broken: bytes) -> None:
    server.routes[CHAT] = [NDJSON, ollama_line("a"), chunk(broken), "stay"]
    text, error = await until_error(client.chat(REQUEST))
    assert (text, type(error)) == ("a", RemoteFailed)


async def test_closing_the_generator_ends_the_run_there(
    server: RemoteServer, client: OllamaClient, until: Until
) -> None:
    server.routes[CHAT] = [NDJSON, ollama_line("a"), "stay"]
    deltas = client.chat(REQUEST)
    assert [(await anext(deltas)).text for _ in range(2)] == ["", "a"]
    assert server.open == 1
    await deltas.aclose()
    await until(lambda: server.open == 0)


STREAM = "".join(
    json.dumps(body, ensure_ascii=False) + end
    for body, end in (
        ({"message": {"content": "\N{SNOWMAN}\n\N{GRINNING FACE}"}, "done": False}, "\r\n"),
        ({"message": {"content": "b"}, "done": False}, "\n\n"),
        ({"message": {"content": ""}, "done": True, "prompt_eval_count": 3, "eval_count": 2}, ""),
    )
).encode()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=6))
async def test_lines_may_be_cut_anywhere(server: RemoteServer, client: OllamaClient, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in itertools.pairwise(edges) if start < end]
    server.routes[CHAT] = [NDJSON, *map(chunk, pieces), END]
    deltas = await collect(client.chat(REQUEST))
    assert [delta.text for delta in deltas] == ["", "\N{SNOWMAN}\n\N{GRINNING FACE}", "b", ""]
    assert deltas[-1].usage == Usage(prompt_tokens=3, completion_tokens=2)


# the rest


async def test_embeddings(server: RemoteServer, client: OllamaClient) -> None:
    server.routes["/api/embed"] = [answer({"embeddings": [[1.5, 2], [3, 4]], "prompt_eval_count": 5})]
    found = await client.embed(EmbeddingRequest(id="r1", model="m", inputs=("a", "b"), keep_alive=7))
    assert found.vectors == ((1.5, 2.0), (3.0, 4.0))
    assert found.usage == Usage(prompt_tokens=5)
    assert server.body("/api/embed") == {"model": "m", "input": ["a", "b"], "truncate": False, "keep_alive": 7}
    assert server.asked[0].headers["x-request-id"] == "r1"


async def test_too_few_embeddings(server: RemoteServer, client: OllamaClient) -> None:
    server.routes["/api/embed"] = [answer({"embeddings": []})]
    with pytest.raises(RemoteFailed, match="0 vectors for 1 texts"):
        await client.embed(EmbeddingRequest(model="m", inputs=("a",)))


async def test_load_and_unload(server: RemoteServer, client: OllamaClient) -> None:
    server.routes[CHAT] = [answer({"model": "m", "done": True, "done_reason": "load"})]
    await client.load("m")
    await client.load("m", math.inf)
    await client.unload("m")
    empty = {"model": "m", "messages": [], "stream": False}
    assert [asked.body for asked in server.asked] == [empty, {**empty, "keep_alive": -1}, {**empty, "keep_alive": 0}]


async def test_models(server: RemoteServer, client: OllamaClient) -> None:
    details = {"format": "rkllm", "family": "qwen2", "parameter_size": "1.5B", "quantization_level": "W8A8"}
    tag = {"name": "qwen:1.5b", "modified_at": "1970-01-01T00:01:00.123456789Z", "size": 5, "digest": "sha256:ab"}
    server.routes["/api/tags"] = [
        answer(
            {
                "models": [
                    {**tag, "details": details},
                    {"model": "x", "modified_at": "0001-01-01T00:00:00Z"},
                    {"size": 1},
                ]
            }
        )
    ]
    assert await client.models() == [
        ModelDescription(
            id="qwen:1.5b",
            size=5,
            modified=60.123456,
            digest="ab",
            format="rkllm",
            family="qwen2",
            parameters_count=1_500_000_000,
            parameter_size="1.5B",
            quantization="W8A8",
            capabilities=("completion",),
        ),
        ModelDescription(id="x", capabilities=("completion",)),
    ]


async def test_resident_models(server: RemoteServer, client: OllamaClient) -> None:
    soon = (datetime.now(timezone.utc) + timedelta(seconds=1000)).isoformat()
    models = [
        {"name": "a", "size": 5, "context_length": 4096, "expires_at": soon},
        {"name": "b", "expires_at": "2318-01-01T00:00:00Z"},
        {"name": "c", "expires_at": "0001-01-01T00:00:00Z"},
        {"name": "d"},
    ]
    server.routes["/api/ps"] = [answer({"models": models})]
    first, *others = await client.resident()
    assert (first.id, first.size, first.context) == ("a", 5, 4096)
    assert 900 < first.expires_in <= 1000
    assert [(one.id, one.expires_in) for one in others] == [("b", math.inf), ("c", 0.0), ("d", math.inf)]


async def test_show(server: RemoteServer, client: OllamaClient) -> None:
    shown = {
        "template": "{{ .Prompt }}",
        "system": "Be brief.",
        "license": ["one", "two"],
        "modelfile": "FROM x",
        "parameters": 'temperature 0.7\nstop "<|end|>"\nstop "x"\n\n',
        "details": {"format": "gguf"},
        "model_info": {"general.parameter_count": 7, "qwen2.context_length": 4096, "qwen2.embedding_length": 64},
        "capabilities": ["completion", "thinking"],
    }
    server.routes["/api/show"] = [answer(shown)]
    found = await client.show(ModelDescription(id="m", size=5, format="rkllm"), is_exo=True)
    assert found == ModelDescription(
        id="m",
        size=5,
        format="rkllm",
        parameters_count=7,
        context_length=4096,
        embedding_length=64,
        template="{{ .Prompt }}",
        system="Be brief.",
        licence="one\ntwo",
        modelfile="FROM x",
        parameters={"temperature": 0.7, "stop": ["<|end|>", "x"]},
        capabilities=("completion", "thinking"),
    )
    assert server.body("/api/show") == {"model": "m"}


@pytest.mark.parametrize(
    ("parameters", "context"),
    [
        ("", 0),
        ("num_ctx 2048", 2048),
        ("num_ctx 999999", 4096),
        ("num_ctx many", 0),
        ("num_ctx -1", 0),
        ("num_ctx 1\nnum_ctx 2", 0),
    ],
)
async def test_the_longest_context_of_a_model_is_not_the_one_it_is_served_with(
    server: RemoteServer, client: OllamaClient, parameters: str, context: int
) -> None:
    server.routes["/api/show"] = [answer({"model_info": {"x.context_length": 4096}, "parameters": parameters})]
    assert (await client.show(ModelDescription(id="m"))).context_length == context


async def test_a_client_of_its_own(server: RemoteServer) -> None:
    server.routes["/api/version"] = [VERSION]
    client = OllamaClient.at(f"{server.url}/", api_key="k")
    assert await client.version() == "0.1.0"
    assert server.asked[0].headers["authorization"] == "Bearer k"
    await client.close()


@pytest.mark.parametrize(
    ("text", "count"), [("135M", 135_000_000), ("1.5B", 1_500_000_000), ("", 0), ("big", 0), ("7", 0), ("1.5 B", 0)]
)
def test_counts(text: str, count: int) -> None:
    assert count_of(text) == count


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01T01:00:10.5+01:00", 10.5),
        ("1970-01-01T00:00:10", 10.0),
        ("soon", 0.0),
        (None, 0.0),
    ],
)
def test_times(text: str | None, moment: float) -> None:
    assert time_of(text) == moment


def test_parameters_that_nobody_knows() -> None:
    assert parameters_in('a\nb   c d\nnum_ctx 7\nstop "x') == {"a": "", "b": "c d", "num_ctx": 7, "stop": ["x"]}
