"""Probabilities of tokens, bounds for reasoning and lengths of vectors, by way of another server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from remote_engines import OLLAMA, OPENAI, REQUEST, engine_for
from remote_server import (
    END,
    EVENTS,
    NDJSON,
    RemoteServer,
    Step,
    answer,
    collect,
    event,
    line,
    ollama_chat,
    ollama_end,
    ollama_line,
    openai_chat,
    said,
    until_error,
    usage,
)

from exo.inference.remote import OllamaClient
from exo.inference.remote.link import Link
from exo.inference.remote.openai import OpenAIClient
from exo.types import (
    CompletionRequest,
    Delta,
    EmbeddingRequest,
    TokenChance,
    TokenLogprob,
    UnsupportedParameter,
)

COMPLETIONS, GENERATE = "/v1/completions", "/api/generate"
TELLING = msgspec.structs.replace(REQUEST, logprobs=1)
RAW = CompletionRequest(model="m", prompt="p", logprobs=1)
OTHERS = [{"token": "a", "logprob": -0.5, "bytes": [97]}, {"token": "b", "logprob": -2.0, "bytes": [98]}]
WIRE = [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": OTHERS}]
CHANCE = TokenChance(text="a", logprob=-0.5, raw=b"a")
TOLD = (TokenLogprob(chosen=CHANCE, top=(CHANCE,)),)


def told(**choice: Any) -> bytes:
    """An event of OpenAI's dialect with a text and probabilities."""
    return event({"choices": [{"index": 0, **choice}]})


LISTED = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"b": -2.0, "a": -0.5}]}
CHATTED = {"content": WIRE}


@pytest.mark.parametrize(
    ("path", "piece"),
    [
        (OPENAI, told(delta={"content": "a"}, logprobs=CHATTED)),
        (COMPLETIONS, told(text="a", logprobs=LISTED)),
        (COMPLETIONS, told(text="a", logprobs=CHATTED)),
        (OLLAMA, ollama_line("a", logprobs=WIRE)),
        (GENERATE, line({"response": "a", "done": False, "logprobs": WIRE})),
    ],
    ids=["chat", "completion", "completion of llama.cpp", "Ollama's chat", "Ollama's completion"],
)
async def test_probabilities_come_with_their_text(server: RemoteServer, link: Link, path: str, piece: bytes) -> None:
    is_openai = path.startswith("/v1")
    end = [said(finish="stop"), usage()] if is_openai else [ollama_end()]
    server.routes[path] = [EVENTS if is_openai else NDJSON, piece, *end, END]
    client = OpenAIClient(link) if is_openai else OllamaClient(link)
    deltas = client.chat(TELLING) if path in (OPENAI, OLLAMA) else client.complete(RAW)
    _, delta, _ = await collect(deltas)
    assert delta == Delta(text="a", logprobs=TOLD)
    body = server.body(path)
    if path == COMPLETIONS:
        assert (body["logprobs"], type(body["logprobs"]), body.get("top_logprobs")) == (1, int, None)
    else:
        assert (body["logprobs"], body["top_logprobs"]) == (True, 1)


@pytest.mark.parametrize("path", [OPENAI, COMPLETIONS, OLLAMA, GENERATE])
async def test_probabilities_that_nobody_asked_for_are_left_out(server: RemoteServer, link: Link, path: str) -> None:
    pieces = {
        OPENAI: [EVENTS, told(delta={"content": "a"}, logprobs=CHATTED), said(finish="stop"), usage(), END],
        COMPLETIONS: [EVENTS, told(text="a", logprobs=LISTED), said(finish="stop"), usage(), END],
        OLLAMA: [NDJSON, ollama_line("a", logprobs=WIRE), ollama_end(), END],
        GENERATE: [NDJSON, line({"response": "a", "done": False, "logprobs": WIRE}), ollama_end(), END],
    }
    server.routes[path] = pieces[path]
    client = OpenAIClient(link) if path.startswith("/v1") else OllamaClient(link)
    raw = msgspec.structs.replace(RAW, logprobs=None)
    deltas = await collect(client.chat(REQUEST) if path in (OPENAI, OLLAMA) else client.complete(raw))
    assert deltas[1] == Delta(text="a")
    assert "logprobs" not in server.body(path)


async def test_the_token_alone(server: RemoteServer, link: Link) -> None:
    """One other is asked for, which llama.cpp needs, and not handed on."""
    server.routes[OPENAI] = [EVENTS, told(delta={"content": "a"}, logprobs=CHATTED), said(finish="stop"), usage(), END]
    _, delta, _ = await collect(OpenAIClient(link).chat(msgspec.structs.replace(REQUEST, logprobs=0)))
    assert delta.logprobs == (TokenLogprob(chosen=CHANCE),)
    assert server.body(OPENAI)["top_logprobs"] == 1


@pytest.mark.parametrize("answered", [openai_chat("a", "b"), ollama_chat("a", "b")], ids=["openai", "ollama"])
async def test_a_server_that_ignores_the_wish_is_found_out(
    server: RemoteServer, link: Link, answered: Sequence[Step]
) -> None:
    server.routes |= {OPENAI: answered, OLLAMA: answered}
    client = OpenAIClient(link) if answered[0] == EVENTS else OllamaClient(link)
    text, error = await until_error(client.chat(TELLING))
    assert text == "ab"
    assert isinstance(error, UnsupportedParameter)
    assert error.param == "logprobs"
    assert link.host in error.message


@pytest.mark.parametrize("answered", [openai_chat(), ollama_chat()], ids=["openai", "ollama"])
async def test_an_answer_without_text_has_no_probabilities(
    server: RemoteServer, link: Link, answered: Sequence[Step]
) -> None:
    server.routes |= {OPENAI: answered, OLLAMA: answered}
    client = OpenAIClient(link) if answered[0] == EVENTS else OllamaClient(link)
    assert (await collect(client.chat(TELLING)))[-1].finish_reason == "stop"


# bounds for reasoning


@pytest.mark.parametrize("owner", ["exo", "llamacpp"])
@pytest.mark.parametrize("dialect", ["auto", "openai"])
async def test_a_bound_for_reasoning_reaches_servers_that_know_it(
    server: RemoteServer, owner: str, dialect: str
) -> None:
    server.speak_openai("m", owner=owner)
    server.routes[OPENAI] = openai_chat("x")
    async with engine_for(server, EXO_REMOTE_DIALECT=dialect) as engine:
        await collect(engine.chat(msgspec.structs.replace(REQUEST, think_budget=64)))
    assert server.body(OPENAI)["thinking_budget_tokens"] == 64


async def test_a_bound_takes_openais_dialect_of_a_node_of_this_project(server: RemoteServer) -> None:
    server.speak_ollama("m")
    server.speak_openai("m", owner="exo")
    server.routes[OPENAI] = openai_chat("x")
    async with engine_for(server) as engine:
        await collect(engine.chat(msgspec.structs.replace(REQUEST, think=True, think_budget=64)))
    assert server.body(OPENAI)["chat_template_kwargs"] == {"enable_thinking": True}


@pytest.mark.parametrize("owner", ["vllm", "library", ""])
@pytest.mark.parametrize("dialect", ["auto", "openai", "ollama"])
async def test_others_would_ignore_it(server: RemoteServer, owner: str, dialect: str) -> None:
    server.speak_ollama("m")
    server.speak_openai("m", owner=owner)
    async with engine_for(server, EXO_REMOTE_DIALECT=dialect) as engine:
        with pytest.raises(UnsupportedParameter) as caught:
            await collect(engine.chat(msgspec.structs.replace(REQUEST, think_budget=64)))
    assert caught.value.param == "thinking_budget_tokens"
    assert not {OPENAI, OLLAMA} & set(server.paths())


# lengths of vectors


@pytest.mark.parametrize("dimensions", [None, 2])
async def test_the_length_of_vectors_is_passed_on(server: RemoteServer, link: Link, dimensions: int | None) -> None:
    server.routes["/v1/embeddings"] = [answer({"data": [{"embedding": [1, 2]}]})]
    server.routes["/api/embed"] = [answer({"embeddings": [[1, 2]]})]
    request = EmbeddingRequest(model="m", inputs=("a",), dimensions=dimensions)
    for client in (OpenAIClient(link), OllamaClient(link)):
        assert (await client.embed(request)).vectors == ((1.0, 2.0),)
    assert [asked.body.get("dimensions") for asked in server.asked] == [dimensions, dimensions]
