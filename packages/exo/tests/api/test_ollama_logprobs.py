"""Probabilities of tokens in Ollama's dialect."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from ollama_engine import OllamaEngine, lines, post
from scripted_server import running

from exo.inference import Capability
from exo.types import CompletionRequest, Delta, TokenChance, TokenLogprob, Usage

CHAT: dict[str, Any] = {"model": "one", "messages": [{"role": "user", "content": "hi"}], "prompt": "hi"}
PATHS = pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])


class TellingEngine(OllamaEngine):
    """As the class above, and it knows the probabilities of its tokens."""

    capabilities: ClassVar[frozenset[Capability]] = OllamaEngine.capabilities | {"logprobs"}


def chance(raw: bytes, logprob: float) -> TokenChance:
    return TokenChance(text="" if raw == b"\xe2" else raw.decode(), logprob=logprob, raw=raw)


END = Delta(finish_reason="stop", usage=Usage(prompt_tokens=3, completion_tokens=2))
SCRIPT = [
    Delta(text="a", logprobs=(TokenLogprob(chosen=chance(b"a", -0.5), top=(chance(b"a", -0.5), chance(b"b", -2.0))),)),
    Delta(logprobs=(TokenLogprob(chosen=chance(b"\xe2", -0.25)),)),
    Delta(text="!"),
    END,
]
FIRST = {
    "token": "a",
    "logprob": -0.5,
    "bytes": [97],
    "top_logprobs": [
        {"token": "a", "logprob": -0.5, "bytes": [97]},
        {"token": "b", "logprob": -2.0, "bytes": [98]},
    ],
}
SECOND = {"token": "\ufffd", "logprob": -0.25, "bytes": [226]}


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({"logprobs": True, "top_logprobs": 20}, 20),
        ({"logprobs": True, "top_logprobs": 0}, 0),
        ({"logprobs": True}, 0),
        ({"logprobs": False, "top_logprobs": 2}, None),
        ({"top_logprobs": 2}, None),
        ({}, None),
    ],
)
@PATHS
async def test_what_the_engine_is_asked_for(path: str, fields: dict[str, Any], asked: int | None) -> None:
    engine = TellingEngine()
    async with running(engine) as node:
        assert (await post(node, path, {**CHAT, **fields})).status_code == 200
        raw = await post(node, "/api/generate", {"model": "one", "prompt": "hi", "raw": True, **fields})
        assert raw.status_code == 200
    assert [engine.requests[0].logprobs, engine.completions[0].logprobs] == [asked, asked]


@PATHS
async def test_each_line_has_those_of_its_text(path: str) -> None:
    async with running(TellingEngine(SCRIPT)) as node:
        found = lines(await post(node, path, {**CHAT, "logprobs": True, "top_logprobs": 2}))
    texts = [line["message"]["content"] if path == "/api/chat" else line["response"] for line in found]
    assert texts == ["a", "", "!", ""]
    assert [line.get("logprobs") for line in found] == [[FIRST], [SECOND], None, None]


@PATHS
async def test_a_whole_answer_has_all_of_them(path: str) -> None:
    async with running(TellingEngine(SCRIPT)) as node:
        found = (await post(node, path, {**CHAT, "stream": False, "logprobs": True})).json()
    assert found["logprobs"] == [FIRST, SECOND]


async def test_a_raw_completion_has_them_too() -> None:
    class Raw(TellingEngine):
        async def complete(self, request: CompletionRequest) -> Any:
            for delta in SCRIPT:
                yield delta

    async with running(Raw()) as node:
        body = {"model": "one", "prompt": "hi", "raw": True, "stream": False, "logprobs": True}
        assert (await post(node, "/api/generate", body)).json()["logprobs"] == [FIRST, SECOND]


@PATHS
async def test_those_of_reasoning_that_is_left_out_are_left_out_too(path: str) -> None:
    hidden = Delta(reasoning="hm", logprobs=(TokenLogprob(chosen=chance(b"hm", -1.0)),))
    async with running(TellingEngine([hidden, *SCRIPT])) as node:
        silent = lines(await post(node, path, {**CHAT, "think": False, "logprobs": True}))
        thought = (await post(node, path, {**CHAT, "think": True, "stream": False, "logprobs": True})).json()
    assert [line.get("logprobs") for line in silent] == [[FIRST], [SECOND], None, None]
    assert [one["token"] for one in thought["logprobs"]] == ["hm", "a", "\ufffd"]


async def test_an_answer_without_any_has_no_such_field() -> None:
    async with running(TellingEngine()) as node:
        streamed = lines(await post(node, "/api/chat", {**CHAT, "logprobs": True}))
        whole = (await post(node, "/api/chat", {**CHAT, "stream": False})).json()
    assert not [line for line in (*streamed, whole) if "logprobs" in line]
