from __future__ import annotations

from typing import Any

import pytest
from openai.types import Completion
from openai_engine import OpenAIEngine, events, post
from scripted_server import ScriptedEngine, running

from exo.types import ContextOverflow, RunFailed

PATH = "/v1/completions"


async def test_a_whole_answer() -> None:
    async with running(OpenAIEngine()) as node:
        body = (await post(node, PATH, {"model": "uno", "prompt": "Say: "})).json()
        assert node.sample("exo_requests_total", {"model": "one", "status": "200"}) == 1
    Completion.model_validate(body, strict=True)
    assert (body["object"], body["model"]) == ("text_completion", "one")
    assert body["choices"] == [{"index": 0, "text": "Hello world", "logprobs": None, "finish_reason": "length"}]
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (3, 2)
    assert body["timings"]["prompt_n"] == 2


async def test_a_stream_ends_with_the_reason_and_the_usage() -> None:
    async with running(OpenAIEngine()) as node:
        asked = {"prompt": "Say: ", "stream": True, "stream_options": {"include_usage": True}}
        *chunks, counted, done = events(await post(node, PATH, asked))
        plain = events(await post(node, PATH, {"prompt": "Say: ", "stream": True}))
    assert done == "[DONE]"
    for chunk in (*chunks, counted):
        Completion.model_validate(chunk | {"choices": [c | {"finish_reason": "stop"} for c in chunk["choices"]]})
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [(choice["text"], choice["finish_reason"]) for choice in choices] == [
        ("Hello", None),
        (" world", None),
        ("", "length"),
    ]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert (counted["choices"], counted["usage"]["total_tokens"]) == ([], 5)
    assert len({chunk["id"] for chunk in (*chunks, counted)}) == 1
    assert all("usage" not in chunk for chunk in plain[:-1])


async def test_fields_reach_the_engine() -> None:
    body = {"prompt": "Say: ", "max_tokens": 5, "temperature": 0.5, "seed": 3, "stop": "x", "logit_bias": {}}
    engine = OpenAIEngine()
    async with running(engine) as node:
        await post(node, PATH, body)
        await post(node, PATH, {"prompt": ["Say: "], "suffix": "", "best_of": 1, "user": "me"})
    first, second = engine.completions
    assert (first.model, first.prompt, first.limits.max_tokens, first.limits.stop) == ("one", "Say: ", 5, ("x",))
    assert (first.sampling.temperature, first.sampling.seed, first.logprobs) == (0.5, 3, None)
    assert (second.prompt, second.limits.max_tokens) == ("Say: ", None)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_prompt_comes_first_if_asked_for(stream: bool) -> None:  # noqa: FBT001 - a parameter of the test
    async with running(OpenAIEngine()) as node:
        response = await post(node, PATH, {"prompt": ["A: ", "B: "], "echo": True, "stream": stream})
    if stream:
        choices = [chunk["choices"][0] for chunk in events(response)[:-1]]
        texts = ["".join(choice["text"] for choice in choices if choice["index"] == index) for index in (0, 1)]
    else:
        texts = [choice["text"] for choice in response.json()["choices"]]
    assert texts == ["A: Hello world", "B: Hello world"]


async def test_every_prompt_has_n_choices_and_counts_once() -> None:
    engine = OpenAIEngine(scripts=[["a"], ["b"], ["c"], ["d"]], slots=4)
    async with running(engine) as node:
        body = (await post(node, PATH, {"prompt": ["A", "B"], "n": 2, "best_of": 2, "seed": 5})).json()
    Completion.model_validate(body, strict=True)
    assert [(choice["index"], choice["text"]) for choice in body["choices"]] == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]
    asked = [(request.prompt, request.sampling.seed) for request in engine.completions]
    assert asked == [("A", 5), ("A", 6), ("B", 5), ("B", 6)]
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (6, 8)
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({}, "invalid_request", "prompt"),
    ({"prompt": None}, "invalid_request", "prompt"),
    ({"prompt": []}, "invalid_request", "prompt"),
    ({"prompt": [1, 2]}, "unsupported_parameter", "prompt"),
    ({"prompt": [[1, 2], [3]]}, "unsupported_parameter", "prompt"),
    ({"prompt": ["a", 1]}, "unsupported_parameter", "prompt"),
    ({"prompt": ["a"] * 129}, "invalid_request", "prompt"),
    ({"prompt": ["a"] * 100, "n": 2}, "invalid_request", "n"),
    ({"prompt": "a", "n": 17}, "invalid_request", "n"),
    ({"prompt": "a", "best_of": 3}, "unsupported_parameter", "best_of"),
    ({"prompt": "a", "n": 2, "best_of": 3}, "unsupported_parameter", "best_of"),
    ({"prompt": "a", "suffix": "b"}, "unsupported_parameter", "suffix"),
    ({"prompt": "a", "echo": True, "logprobs": 0}, "unsupported_parameter", "echo"),
    ({"prompt": "a", "logprobs": True}, "invalid_request", "logprobs"),
    ({"prompt": "a", "max_tokens": 0}, "invalid_request", "max_tokens"),
    ({"prompt": "a", "grammar": "root ::= x"}, "unsupported_parameter", "grammar"),
]


async def test_what_is_wrong_is_refused_by_name() -> None:
    engine = OpenAIEngine()
    async with running(engine) as node:
        for fields, code, param in REFUSED:
            response = await post(node, PATH, fields)
            error = response.json()["error"]
            assert (response.status_code, error["code"], error["param"]) == (400, code, param), error
    assert engine.completions == []


async def test_refusals_and_failures_of_the_engine() -> None:
    overflow = ContextOverflow(prompt_tokens=900, context_tokens=512)
    async with running(OpenAIEngine(scripts=[[overflow], ["a", RunFailed("broken")]])) as node:
        refused = await post(node, PATH, {"prompt": "a", "stream": True})
        *_, failed = events(await post(node, PATH, {"prompt": "a", "stream": True}))
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "prompt")
    assert failed["error"]["code"] == "engine_run_failed"
    async with running(ScriptedEngine()) as node:
        response = await post(node, PATH, {"prompt": "a"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "unsupported_parameter")
