"""The client ollama for Python. Models, copies and further calls are in tests/test_ollama_client.py."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import ollama
import pytest

from clients.suites.server import (
    GREETING,
    LONG,
    ORDER,
    QUESTION,
    QUESTION_OF_TWO,
    RESULT,
    THOUGHT,
    UNKNOWN,
    WRONG_KEY,
    Leaves,
    Report,
    Server,
    get_weather,
)

GREEDY = {"temperature": 0, "num_predict": 30}
CALL = {"temperature": 0, "num_predict": 200}


def connect(server: Server, key: str) -> ollama.Client:
    return ollama.Client(server.url, headers={"Authorization": f"Bearer {key}"})


@pytest.fixture
def client(server: Server) -> Iterator[ollama.Client]:
    with connect(server, server.key) as made:
        yield made


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_chat(server: Server, client: ollama.Client) -> None:
    answer = client.chat(server.talker, [user(GREETING)], options=GREEDY)
    assert (answer.model, answer.message.role, answer.done) == (server.talker, "assistant", True)
    assert answer.message.content
    assert 0 < (answer.eval_count or 0) <= 30
    assert server.talker in [model.model for model in client.list().models]


def test_chat_as_a_generation(server: Server, client: ollama.Client) -> None:
    whole = client.generate(server.talker, GREETING, options=GREEDY)
    assert whole.response
    parts = client.generate(server.talker, GREETING, options=GREEDY, stream=True)
    assert "".join(part.response or "" for part in parts) == whole.response


def test_stream(server: Server, client: ollama.Client) -> None:
    whole = client.chat(server.talker, [user(GREETING)], options=GREEDY)
    *parts, last = list(client.chat(server.talker, [user(GREETING)], options=GREEDY, stream=True))
    assert len(parts) > 3
    assert "".join(part.message.content or "" for part in (*parts, last)) == whole.message.content
    assert (last.done, last.done_reason, last.eval_count) == (True, whole.done_reason, whole.eval_count)


def test_tools_round_trip(server: Server, client: ollama.Client) -> None:
    """Ollama has no tool_choice: the small model of llamacpp may answer in words."""
    messages: list[Any] = [user(QUESTION)]
    first = client.chat(server.caller, messages, tools=[get_weather], options=CALL).message
    calls = first.tool_calls or []
    assert first.content or calls
    assert all(get_weather(**call.function.arguments) == RESULT for call in calls)
    if server.name == "rkllm":
        assert [dict(call.function.arguments) for call in calls] == [{"city": "Paris"}]
        assert first.content == "I will look."
    called = ollama.Message.ToolCall.Function(name="get_weather", arguments={"city": "Paris"})
    message = (
        first if calls else ollama.Message(role="assistant", tool_calls=[ollama.Message.ToolCall(function=called)])
    )
    messages += [message, {"role": "tool", "tool_name": "get_weather", "content": RESULT}]
    second = client.chat(server.caller, messages, options=CALL).message
    assert second.content
    if server.name == "rkllm":
        assert RESULT in second.content


def test_tools_in_a_stream(server: Server, client: ollama.Client) -> None:
    parts = list(client.chat(server.caller, [user(QUESTION)], tools=[get_weather], options=CALL, stream=True))
    whole = client.chat(server.caller, [user(QUESTION)], tools=[get_weather], options=CALL).message
    assert "".join(part.message.content or "" for part in parts) == (whole.content or "")
    calls = [call.function for part in parts for call in part.message.tool_calls or []]
    assert calls == [call.function for call in whole.tool_calls or []]


def test_tools_called_in_parallel(server: Server, client: ollama.Client) -> None:
    messages: list[Any] = [user(QUESTION_OF_TWO)]
    first = client.chat(server.caller, messages, tools=[get_weather], options=CALL).message
    calls = [call.function for call in first.tool_calls or []]
    assert all(get_weather(**call.arguments) == RESULT for call in calls)
    if server.name == "rkllm":
        assert [call.arguments["city"] for call in calls] == ["Paris", "Rome"]
        results = [{"role": "tool", "tool_name": call.name, "content": RESULT} for call in calls]
        assert RESULT in (client.chat(server.caller, [*messages, first, *results]).message.content or "")


@pytest.mark.parametrize("stream", [False, True])
def test_structured_output(server: Server, client: ollama.Client, stream: bool) -> None:  # noqa: FBT001 - a parameter
    asked: Any = {"format": Report.model_json_schema(), "options": CALL, "stream": stream}
    answer = client.chat(server.reporter, [user(ORDER)], **asked)
    text = "".join(part.message.content or "" for part in answer) if stream else answer.message.content
    assert Report.model_validate_json(text).degrees


def test_reasoning(server: Server, client: ollama.Client) -> None:
    model, options = server.thinker or server.talker, {**GREEDY, "num_predict": 60}
    answer = client.chat(model, [user(GREETING)], options=options).message
    assert answer.thinking == (THOUGHT if server.thinker else None)
    assert answer.content
    parts = [part.message for part in client.chat(model, [user(GREETING)], options=options, stream=True)]
    assert "".join(part.thinking or "" for part in parts) == (answer.thinking or "")
    assert "".join(part.content or "" for part in parts) == answer.content
    if server.thinker:
        assert client.chat(model, [user(GREETING)], think=False).message.thinking is None
        assert client.chat(model, [user(GREETING)], think=True).message.thinking == THOUGHT
        return
    with pytest.raises(ollama.ResponseError, match="think") as refused:  # as Ollama does
        client.chat(model, [user(GREETING)], think=True)
    assert refused.value.status_code == 400


def test_embeddings(server: Server, client: ollama.Client) -> None:
    found = client.embed(server.talker, ["One", "Two words"]).embeddings
    assert len(found) == 2
    assert len(found[0]) == len(found[1])
    assert client.embed(server.talker, "One").embeddings[0] == pytest.approx(found[0], abs=1e-3)


def test_errors(server: Server, client: ollama.Client) -> None:
    refused: list[Any] = [client.chat, client.generate, client.embed, client.show]
    for call in refused:
        with pytest.raises(ollama.ResponseError, match=UNKNOWN) as unknown:
            call(UNKNOWN)
        assert unknown.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="temperature") as bad:
        client.chat(server.talker, [user(GREETING)], options={"temperature": -1})
    assert bad.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="maximum context length") as long:
        client.chat(server.talker, [user("word " * 9000)])
    assert long.value.status_code == 400
    with connect(server, WRONG_KEY) as stranger, pytest.raises(ollama.ResponseError) as wrong:
        stranger.chat(server.talker, [user(GREETING)])
    assert wrong.value.status_code == 401


def test_errors_within_a_stream(server: Server, client: ollama.Client) -> None:
    if server.broken is None:
        return
    seen: list[str] = []
    with pytest.raises(ollama.ResponseError, match="run"):
        seen.extend(part.message.content or "" for part in client.chat(server.broken, [user(GREETING)], stream=True))
    assert "".join(seen) == "One two three"


def test_cancellation(server: Server, client: ollama.Client, leaves: Leaves) -> None:
    with leaves():
        with contextlib.closing(cast("Any", client.chat(server.slow, [user(LONG)], stream=True))) as stream:
            next(stream)
