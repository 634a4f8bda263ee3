from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from remote_engines import OLLAMA, OPENAI, REQUEST, engine_for, ids, text_of
from remote_server import (
    END,
    EVENTS,
    RemoteServer,
    answer,
    collect,
    event,
    ollama_chat,
    openai_chat,
    usage,
)

from exo.api.openai.schema import ChatCompletionRequest
from exo.inference.openai_request import sampling_json
from exo.inference.remote.dialects import Offer
from exo.inference.remote.settings import Dialect
from exo.types import (
    AnswerFormat,
    CompletionRequest,
    EmbeddingRequest,
    Message,
    RemoteFailed,
    RemoteUnavailable,
    Sampling,
    Tool,
    ToolChoice,
)

TOOLS = (Tool(name="f"),)
MUST = ToolChoice(mode="required", name="f")
RAW = CompletionRequest(model="m", prompt="p")
RESULT = Message(role="tool", content="x", tool_call_id="c")
RESULT_OF_NOTHING = Message(role="tool", content="x")


@pytest.mark.parametrize(
    ("offer", "change", "dialect"),
    [
        (Offer(ollama=True, openai=True, is_exo=True), {}, "openai"),
        (Offer(ollama=True, openai=True, is_exo=True), {"think": False}, "openai"),
        (Offer(ollama=True, openai=True, is_exo=True), {"keep_alive": 0.0}, "ollama"),
        (Offer(ollama=True, openai=True, is_exo=True), {"format": AnswerFormat()}, "openai"),
        (Offer(ollama=True, openai=True, is_exo=True), {"messages": (RESULT,)}, "openai"),
        (Offer(ollama=True, openai=True, is_exo=True), {"messages": (RESULT_OF_NOTHING,)}, "ollama"),
        (Offer(ollama=True, openai=True), {"think": False}, "ollama"),
        (Offer(ollama=True, openai=True), {"format": AnswerFormat()}, "ollama"),
        (Offer(ollama=True, openai=True, is_exo=True), {"sampling": Sampling(temperature=2.0)}, "openai"),
        (Offer(ollama=True, openai=True, is_exo=True), {"sampling": Sampling(temperature=2.1)}, "ollama"),
        (Offer(ollama=True, openai=True, is_exo=True), {"sampling": Sampling(repeat_penalty=10.0)}, "openai"),
        (Offer(ollama=True, openai=True, is_exo=True), {"sampling": Sampling(repeat_penalty=10.1)}, "ollama"),
        (Offer(ollama=True, openai=True, is_exo=True), {"sampling": Sampling(repeat_penalty=0.0)}, "ollama"),
        (Offer(ollama=False, openai=True, is_exo=True), {"sampling": Sampling(temperature=2.1)}, "openai"),
        (Offer(ollama=True, openai=True), {}, "ollama"),
        (Offer(ollama=True, openai=False), {}, "ollama"),
        (Offer(ollama=False, openai=True), {}, "openai"),
        (Offer(ollama=False, openai=True), {"think": True, "keep_alive": 1.0}, "openai"),
        (Offer(ollama=True, openai=True, is_exo=True), {"tools": TOOLS, "logprobs": 2}, "openai"),
        (Offer(ollama=True, openai=True, is_exo=True), {"tools": TOOLS, "think": True}, "openai"),
        (Offer(ollama=True, openai=True), {"tools": TOOLS, "tool_choice": ToolChoice(mode="none")}, "ollama"),
        (Offer(ollama=True, openai=True), {"tools": TOOLS, "tool_choice": MUST}, "openai"),
        (Offer(ollama=True, openai=True), {"tools": TOOLS, "tool_choice": MUST, "think": True}, "openai"),
        (Offer(ollama=True, openai=True), {"tool_choice": MUST}, "ollama"),
        (Offer(ollama=True, openai=True), {"think_budget": 5}, "openai"),
        (Offer(ollama=True, openai=False), {"tools": TOOLS, "tool_choice": MUST}, "ollama"),
    ],
)
def test_the_rule(offer: Offer, change: dict[str, Any], dialect: Dialect) -> None:
    assert offer.for_run(msgspec.structs.replace(REQUEST, **change)) == dialect


@pytest.mark.parametrize(
    ("offer", "change", "dialect"),
    [
        (Offer(ollama=True, openai=True, is_exo=True), {}, "openai"),
        (Offer(ollama=True, openai=True, is_exo=True), {"keep_alive": 5.0}, "ollama"),
        (Offer(ollama=True, openai=True, is_exo=True), {"sampling": Sampling(temperature=2.1)}, "ollama"),
        (Offer(ollama=True, openai=True), {}, "ollama"),
        (Offer(ollama=False, openai=True), {"keep_alive": 5.0}, "openai"),
    ],
)
def test_the_rule_for_raw_prompts(offer: Offer, change: dict[str, Any], dialect: Dialect) -> None:
    assert offer.for_run(msgspec.structs.replace(RAW, **change)) == dialect


@given(
    temperature=st.none() | st.sampled_from([0.0, 2.0]) | st.floats(0, 100),
    penalty=st.none() | st.sampled_from([0.0, 10.0]) | st.floats(0, 100),
    top_k=st.none() | st.integers(0, 2**31 - 1),
    share=st.none() | st.floats(0, 1),
    other=st.none() | st.floats(-2, 2),
    seed=st.none() | st.integers(-(2**63), 2**64 - 1),
)
def test_v1_is_only_sent_what_it_takes(
    *,
    temperature: float | None,
    penalty: float | None,
    top_k: int | None,
    share: float | None,
    other: float | None,
    seed: int | None,
) -> None:
    """Whatever `/api` takes reaches a node behind this one in a dialect that takes it there."""
    sampling = Sampling(
        temperature=temperature,
        repeat_penalty=penalty,
        top_k=top_k,
        top_p=share,
        min_p=share,
        presence_penalty=other,
        frequency_penalty=other,
        seed=seed,
    )
    chosen = Offer(ollama=True, openai=True, is_exo=True).for_run(msgspec.structs.replace(REQUEST, sampling=sampling))
    body = {"messages": [{"role": "user", "content": "hi"}], **sampling_json(sampling)}
    try:
        msgspec.convert(body, ChatCompletionRequest)
    except msgspec.ValidationError:
        assert chosen == "ollama"
    else:
        assert chosen == "openai"


@pytest.mark.parametrize("dialect", ["auto", "ollama"])
async def test_a_server_with_ollamas_dialect(server: RemoteServer, dialect: str) -> None:
    server.speak_ollama("m")
    server.routes[OLLAMA] = ollama_chat("hi ", "there")
    async with engine_for(server, EXO_REMOTE_DIALECT=dialect) as engine:
        assert await text_of(engine) == "hi there"
    assert server.paths() == [*(["/api/version", "/v1/models"] if dialect == "auto" else []), OLLAMA]


@pytest.mark.parametrize("dialect", ["auto", "openai"])
async def test_a_server_with_openais_dialect(server: RemoteServer, dialect: str) -> None:
    server.speak_openai("m")
    server.routes[OPENAI] = openai_chat("hi ", "there")
    async with engine_for(server, EXO_REMOTE_DIALECT=dialect) as engine:
        assert await text_of(engine) == "hi there"
        assert await text_of(engine) == "hi there"
    assert server.paths() == [*(["/api/version", "/v1/models"] if dialect == "auto" else []), OPENAI, OPENAI]


async def test_a_node_of_this_project_is_asked_in_both(server: RemoteServer) -> None:
    server.speak_ollama("m")
    server.speak_openai("m", owner="exo")
    piece = event({"choices": [{"text": "raw", "finish_reason": "stop"}]})
    server.routes |= {OPENAI: openai_chat("exact"), OLLAMA: ollama_chat("kept")}
    server.routes |= {"/v1/completions": [EVENTS, piece, usage(), END], "/api/embed": [answer({"embeddings": [[1]]})]}
    async with engine_for(server) as engine:
        assert await text_of(engine) == "exact"
        assert await text_of(engine, msgspec.structs.replace(REQUEST, keep_alive=5.0)) == "kept"
        deltas = await collect(engine.complete(RAW))
        assert [delta.text for delta in deltas] == ["", "raw", ""]
        assert (await engine.embed(EmbeddingRequest(model="m", inputs=("a",)))).vectors == ((1.0,),)
    assert server.paths() == ["/api/version", "/v1/models", OPENAI, OLLAMA, "/v1/completions", "/api/embed"]


async def test_a_server_with_openais_dialect_only_does_the_rest(server: RemoteServer) -> None:
    server.speak_openai("m")
    piece = event({"choices": [{"text": "raw", "finish_reason": "stop"}]})
    server.routes["/v1/completions"] = [EVENTS, piece, usage(), END]
    server.routes["/v1/embeddings"] = [answer({"data": [{"embedding": [1]}]})]
    async with engine_for(server) as engine:
        deltas = await collect(engine.complete(RAW))
        assert [delta.text for delta in deltas] == ["", "raw", ""]
        assert (await engine.embed(EmbeddingRequest(model="m", inputs=("a",)))).vectors == ((1.0,),)
        asked = server.paths()
        await engine.load("m", keep_alive=5.0)
        await engine.unload("m")
        assert server.paths() == asked, "there is no way to load"
        assert await ids(engine) == ["m"]
        assert engine.loaded() == []


async def test_a_server_that_speaks_neither(server: RemoteServer) -> None:
    async with engine_for(server) as engine:
        with pytest.raises(RemoteFailed, match=r"neither.*has no /api/version.*has no /v1/models"):
            await text_of(engine)


async def test_a_server_that_wants_a_key(server: RemoteServer) -> None:
    server.routes["/api/version"] = [answer({"error": "key?", "code": "invalid_api_key"}, "401 Unauthorized")]
    async with engine_for(server) as engine:
        with pytest.raises(RemoteUnavailable, match="EXO_REMOTE_API_KEY"):
            await text_of(engine)
        health = await engine.health()
        assert not health.ready
        assert "EXO_REMOTE_API_KEY" in health.detail


async def test_a_key_for_openais_paths_only_leaves_ollamas(server: RemoteServer) -> None:
    server.speak_ollama("m")
    server.routes |= {"/v1/models": [answer(b"", "401 Unauthorized")], OLLAMA: ollama_chat("hi")}
    async with engine_for(server) as engine:
        assert await text_of(engine) == "hi"
