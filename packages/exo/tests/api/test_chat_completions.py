from __future__ import annotations

from typing import Any

import httpx2
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai_engine import events
from scripted_server import CHAT, Running, ScriptedEngine, running

from exo.types import ContextOverflow, Delta, QueueFull, RunFailed, Usage, WorkerDied

# What OpenAI's published schema marks as required.
COMPLETION_KEYS = {"id", "object", "created", "model", "choices"}
CHOICE_KEYS = {"index", "message", "logprobs", "finish_reason"}
MESSAGE_KEYS = {"role", "content", "refusal"}
CHUNK_KEYS = {"id", "object", "created", "model", "choices"}
CHUNK_CHOICE_KEYS = {"index", "delta", "finish_reason"}
MODEL_KEYS = {"id", "object", "created", "owned_by"}


async def post(node: Running, body: dict[str, Any]) -> httpx2.Response:
    async with httpx2.AsyncClient() as client:
        response: httpx2.Response = await client.post(f"{node.url}/v1/chat/completions", json=body)
        return response


async def test_a_whole_answer_has_every_required_key() -> None:
    async with running() as node:
        response = await post(node, {**CHAT, "model": "uno"})
    body = response.json()
    assert response.status_code == 200
    assert body.keys() >= COMPLETION_KEYS
    choice = body["choices"][0]
    assert choice.keys() >= CHOICE_KEYS
    assert choice["message"].keys() >= MESSAGE_KEYS
    assert choice["message"] == {"role": "assistant", "content": "Hello world", "refusal": None}
    assert (choice["finish_reason"], choice["logprobs"], body["model"]) == ("stop", None, "one")
    assert set(body["timings"]) == {"prompt_n", "prompt_ms", "predicted_n", "predicted_ms", "load_ms"}
    usage = body["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (7, 2, 9)
    assert usage["prompt_tokens_details"] == {"cached_tokens": 2}
    ChatCompletion.model_validate(body, strict=True)


async def test_a_stream_has_one_id_a_role_first_and_one_finish_chunk() -> None:
    async with running() as node:
        response = await post(node, {**CHAT, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, done = events(response)
    assert done == "[DONE]"
    for chunk in chunks:
        assert chunk.keys() >= CHUNK_KEYS
        assert chunk["choices"][0].keys() >= CHUNK_CHOICE_KEYS
        assert "usage" not in chunk
        ChatCompletionChunk.model_validate(chunk, strict=True)
    assert len({chunk["id"] for chunk in chunks}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Hello"},
        {"content": " world"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]


async def test_usage_comes_in_a_chunk_of_its_own_when_asked_for() -> None:
    async with running() as node:
        response = await post(node, {**CHAT, "stream": True, "stream_options": {"include_usage": True}})
    *chunks, last, done = events(response)
    assert done == "[DONE]"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["timings"]["predicted_n"] == last["usage"]["completion_tokens"]
    assert not any("timings" in chunk for chunk in chunks)
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + last["usage"]["completion_tokens"] == 9
    ChatCompletionChunk.model_validate(last, strict=True)


async def test_any_text_survives_the_stream() -> None:
    texts = ['quote " and \\ back', "line\nbreak\u2028", "emoji \U0001f642 \0 nul", '"\\u0000"', "</script>"]
    async with running(ScriptedEngine(texts)) as node:
        response = await post(node, {**CHAT, "stream": True})
    *chunks, _ = events(response)
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks[1:-1]] == texts


async def test_reasoning_is_kept_apart() -> None:
    script = [Delta(reasoning="hm"), Delta(text="yes"), Delta(finish_reason="length", usage=Usage(reasoning_tokens=1))]
    async with running(ScriptedEngine(script)) as node:
        whole = (await post(node, CHAT)).json()
        *chunks, _ = events(await post(node, {**CHAT, "stream": True}))
    assert whole["choices"][0]["message"]["content"] == "yes"
    assert whole["choices"][0]["message"]["reasoning_content"] == "hm"
    assert whole["choices"][0]["finish_reason"] == "length"
    assert [chunk["choices"][0]["delta"].get("reasoning_content") for chunk in chunks] == [None, "hm", None, None]


async def test_what_comes_at_once_is_told_in_its_order() -> None:
    async with running(ScriptedEngine([Delta(reasoning="hm", text="yes", finish_reason="length")])) as node:
        *chunks, _ = events(await post(node, {**CHAT, "stream": True}))
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [choice["delta"] for choice in choices[1:]] == [{"reasoning_content": "hm"}, {"content": "yes"}, {}]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "length"]


async def test_a_refusal_before_the_run_keeps_its_status_streamed_or_not() -> None:
    engine = ScriptedEngine([ContextOverflow(prompt_tokens=900, context_tokens=512)])
    async with running(engine) as node:
        for stream in (False, True):
            response = await post(node, {**CHAT, "stream": stream})
            error = response.json()["error"]
            assert response.status_code == 400
            assert error["code"] == "context_length_exceeded"
            assert "900" in error["message"]
            assert "512" in error["message"]
        assert node.sample("exo_errors_total", {"type": "context_length_exceeded", "model": "one"}) == 2


async def test_an_error_in_mid_stream_is_an_event_and_no_done_follows() -> None:
    async with running(ScriptedEngine(["Hel", WorkerDied("the worker was ended by SIGKILL")])) as node:
        response = await post(node, {**CHAT, "stream": True})
        assert node.sample("exo_requests_total", {"model": "one", "status": "502"}) == 1
    *_, text, error = events(response)
    assert text["choices"][0]["delta"] == {"content": "Hel"}
    assert error["error"]["code"] == "engine_worker_died"


async def test_an_error_in_the_middle_of_a_whole_answer_is_the_status() -> None:
    async with running(ScriptedEngine(["Hel", RunFailed("broken")])) as node:
        response = await post(node, CHAT)
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "engine_run_failed"


async def test_queue_full_is_429_with_retry_after() -> None:
    async with running(ScriptedEngine([QueueFull("full", retry_after=7)])) as node:
        response = await post(node, CHAT)
    assert (response.status_code, response.headers["retry-after"]) == (429, "7")


async def test_fields_reach_the_engine() -> None:
    body = {
        **CHAT,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.1,
        "repeat_penalty": 1.2,
        "presence_penalty": -1,
        "frequency_penalty": 1,
        "seed": 42,
        "max_tokens": 5,
        "max_completion_tokens": 6,
        "stop": ["a", "", "b"],
    }
    async with running() as node:
        await post(node, body)
        await post(node, {**CHAT, "stop": "x", "max_tokens": 5})
    first, second = node.engine.requests
    assert (first.sampling.temperature, first.sampling.top_p, first.sampling.top_k) == (0.5, 0.9, 5)
    assert (first.sampling.min_p, first.sampling.repeat_penalty, first.sampling.seed) == (0.1, 1.2, 42)
    assert (first.sampling.presence_penalty, first.sampling.frequency_penalty) == (-1, 1)
    assert (first.limits.max_tokens, first.limits.stop) == (6, ("a", "b"))
    assert (second.limits.max_tokens, second.limits.stop) == (5, ("x",))


async def test_messages_reach_the_engine() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "4", "tool_call_id": "c1"},
    ]
    async with running() as node:
        assert (await post(node, {"messages": messages})).status_code == 200
    system, user, assistant, tool = node.engine.requests[0].messages
    assert (system.role, user.content) == ("system", "a\nb")
    assert assistant.tool_calls[0].name == "f"
    assert (tool.role, tool.tool_call_id) == ("tool", "c1")


DEFAULTS: list[dict[str, Any]] = [
    {"n": 1},
    {"logprobs": False, "top_logprobs": 0},
    {"logit_bias": {}},
    {"response_format": {"type": "text"}},
    {"tools": [], "tool_choice": "auto"},
    {"tool_choice": "none"},
    {"modalities": ["text"]},
    {"stream_options": {"include_usage": True}},
    {"user": "me", "metadata": {"a": "b"}, "store": False, "something_unknown": [1, 2]},
    {"temperature": None, "stop": None, "max_tokens": None, "seed": None},
]


async def test_defaults_and_unknown_fields_are_accepted() -> None:
    async with running() as node:
        for fields in DEFAULTS:
            assert (await post(node, {**CHAT, **fields})).status_code == 200, fields


UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    ({"logprobs": True}, "logprobs"),
    ({"logit_bias": {"50": 1}}, "logit_bias"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"store": True}, "store"),
]


async def test_what_cannot_be_honoured_is_refused_by_name() -> None:
    async with running() as node:
        for fields, param in UNSUPPORTED:
            response = await post(node, {**CHAT, **fields})
            error = response.json()["error"]
            assert (response.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", param)
    assert node.engine.requests == []


async def test_images_are_refused_with_their_place() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    async with running() as node:
        response = await post(node, {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, part]}]})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "messages[0].content[1]")


async def test_models_lists_and_shows() -> None:
    async with running() as node, httpx2.AsyncClient(base_url=node.url) as client:
        listed = (await client.get("/v1/models")).json()
        assert listed == (await client.get("/models")).json()
        shown = await client.get("/v1/models/two/b:1")
        alias = await client.get("/v1/models/uno")
        missing = await client.get("/v1/models/gpt-4")
    assert [model["id"] for model in listed["data"]] == ["one", "two/b:1"]
    assert all(model.keys() >= MODEL_KEYS for model in listed["data"])
    assert shown.json()["id"] == "two/b:1"
    assert alias.json()["id"] == "one"
    assert missing.status_code == 404
    assert "one, two/b:1" in missing.json()["error"]["message"]


async def test_an_unknown_gpt_name_does_not_become_another_model() -> None:
    async with running() as node:
        response = await post(node, {**CHAT, "model": "gpt-4o"})
        assert node.sample("exo_requests_total", {"model": "", "status": "404"}) == 1
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    assert node.engine.requests == []
