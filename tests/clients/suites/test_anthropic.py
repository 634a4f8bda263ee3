"""The client anthropic for Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic  # type: ignore[import-not-found]  # it is in the environment of the clients
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
    WEATHER,
    WRONG_KEY,
    Leaves,
    Report,
    Server,
    get_weather,
)

TOOL = {"name": "get_weather", "description": "Get the weather of a city.", "input_schema": WEATHER}
COLD: Any = {"extra_body": {"temperature": 0}}
"""The client's newest version has no parameter for it."""
GREEDY: Any = {"max_tokens": 30, **COLD}
CALL: Any = {"max_tokens": 200, **COLD}


@pytest.fixture
def client(server: Server) -> Iterator[anthropic.Anthropic]:
    """A client that checks every answer against its own types."""
    options: Any = {"max_retries": 0, "_strict_response_validation": True}
    with anthropic.Anthropic(base_url=server.url, api_key=server.key, **options) as made:
        yield made


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_chat(server: Server, client: anthropic.Anthropic) -> None:
    answer = client.messages.create(model=server.talker, system="Be kind.", messages=[user(GREETING)], **GREEDY)
    assert (answer.model, answer.role, answer.type) == (server.talker, "assistant", "message")
    (block,) = answer.content
    assert block.type == "text"
    assert block.text
    assert answer.stop_reason in {"end_turn", "max_tokens"}
    assert 0 < answer.usage.output_tokens <= 30
    assert server.talker in [model.id for model in client.models.list()]


def test_chat_is_counted_before(server: Server, client: anthropic.Anthropic) -> None:
    asked: Any = {"model": server.talker, "messages": [user(GREETING)]}
    counted = client.messages.count_tokens(**asked).input_tokens
    usage = client.messages.create(**asked, **GREEDY).usage
    assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_stream(server: Server, client: anthropic.Anthropic) -> None:
    asked: Any = {"model": server.talker, "messages": [user(GREETING)], **GREEDY}
    whole = client.messages.create(**asked)
    with client.messages.stream(**asked) as stream:
        pieces = list(stream.text_stream)
        last = stream.get_final_message()
    assert len(pieces) > 3
    assert "".join(pieces) == whole.content[0].text == last.content[0].text
    assert (last.stop_reason, last.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)


def test_tools_round_trip(server: Server, client: anthropic.Anthropic) -> None:
    asked: Any = {"model": server.caller, "tools": [TOOL], **CALL}
    first = client.messages.create(messages=[user(QUESTION)], tool_choice={"type": "any"}, **asked)
    assert first.stop_reason == "tool_use"
    (call,) = first.content
    assert call.name == "get_weather"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": get_weather(**call.input)}
    messages = [user(QUESTION), {"role": "assistant", "content": first.content}, user([result])]
    second = client.messages.create(messages=messages, tool_choice={"type": "none"}, **asked)
    assert [block.type for block in second.content] == ["text"]
    if server.name == "rkllm":
        assert RESULT in second.content[0].text


def test_tools_in_a_stream(server: Server, client: anthropic.Anthropic) -> None:
    asked: Any = {"model": server.caller, "tools": [TOOL], "tool_choice": {"type": "tool", "name": "get_weather"}}
    with client.messages.stream(messages=[user(QUESTION)], **asked, **CALL) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        last = stream.get_final_message()
    assert "".join(pieces)
    assert last.stop_reason == "tool_use"
    assert get_weather(**last.content[-1].input) == RESULT


def test_tools_called_in_parallel(server: Server, client: anthropic.Anthropic) -> None:
    kind = "auto" if server.name == "rkllm" else "any"
    asked: Any = {"model": server.caller, "tools": [TOOL], "tool_choice": {"type": kind}, **CALL}
    asked["messages"] = [user(QUESTION_OF_TWO)]
    first = client.messages.create(**asked)
    calls = [block for block in first.content if block.type == "tool_use"]
    assert [call.input["city"] for call in calls] == ["Paris", "Rome"] if server.name == "rkllm" else calls
    assert len({call.id for call in calls}) == len(calls)
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": RESULT} for call in calls]
    messages = [*asked["messages"], {"role": "assistant", "content": first.content}, user(results)]
    second = client.messages.create(**{**asked, "messages": messages, "tool_choice": {"type": "none"}})
    assert [block.type for block in second.content] == ["text"]
    asked["tool_choice"] = {"type": kind, "disable_parallel_tool_use": True}
    alone = client.messages.create(**asked)
    assert len([block for block in alone.content if block.type == "tool_use"]) == 1


def test_structured_output_by_a_forced_tool(server: Server, client: anthropic.Anthropic) -> None:
    tool = {"name": "give_report", "input_schema": Report.model_json_schema()}
    asked: Any = {"model": server.reporter, "tools": [tool], "tool_choice": {"type": "tool", "name": "give_report"}}
    answer = client.messages.create(messages=[user(ORDER)], **CALL, **asked)
    assert answer.stop_reason == "tool_use"
    assert Report.model_validate(answer.content[-1].input).degrees


def test_structured_output_by_a_format(server: Server, client: anthropic.Anthropic) -> None:
    asked: Any = {"model": server.reporter, "output_format": Report, **CALL}
    parsed = client.messages.parse(messages=[user(ORDER)], **asked).parsed_output
    assert isinstance(parsed, Report)
    with client.messages.stream(messages=[user(ORDER)], **asked) as stream:
        assert stream.get_final_message().parsed_output == parsed


def test_reasoning(server: Server, client: anthropic.Anthropic) -> None:
    model = server.thinker or server.talker
    asked: Any = {"model": model, "messages": [user(GREETING)], "max_tokens": 2000, **COLD}
    answer = client.messages.create(**asked)
    kinds = ["thinking", "text"] if server.thinker else ["text"]
    assert [block.type for block in answer.content] == kinds
    assert [block.thinking for block in answer.content if block.type == "thinking"] == [THOUGHT] * len(kinds[:-1])
    with client.messages.stream(**asked) as stream:
        thought = "".join(event.thinking for event in stream if event.type == "thinking")
        streamed = stream.get_final_message().content
    assert [block.type for block in streamed] == kinds
    assert streamed[-1].text == answer.content[-1].text
    assert thought == (THOUGHT if server.thinker else "")
    messages = [user(GREETING), {"role": "assistant", "content": answer.content}, user("Goodbye!")]
    assert client.messages.create(**{**asked, "messages": messages}).content[-1].text
    if server.thinker:
        silent = client.messages.create(**asked, thinking={"type": "disabled"})
        assert [block.type for block in silent.content] == ["text"]
        bounded = client.messages.create(**asked, thinking={"type": "enabled", "budget_tokens": 1024})
        assert [block.type for block in bounded.content] == kinds


def test_errors(server: Server, client: anthropic.Anthropic) -> None:
    asked: Any = {"model": server.talker, "messages": [user(GREETING)], "max_tokens": 5}
    for stream in (False, True):
        with pytest.raises(anthropic.NotFoundError, match=UNKNOWN) as unknown:
            client.messages.create(**{**asked, "model": UNKNOWN}, stream=stream)
        assert unknown.value.body["error"]["type"] == "not_found_error"
        assert unknown.value.request_id
    with pytest.raises(anthropic.BadRequestError, match="temperature") as bad:
        client.messages.create(**asked, extra_body={"temperature": -1})
    assert bad.value.body["error"]["type"] == "invalid_request_error"
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        client.messages.create(**{**asked, "messages": []})
    with pytest.raises(anthropic.BadRequestError, match="maximum context length"):
        client.messages.create(**{**asked, "messages": [user("word " * 9000)]})
    with pytest.raises(anthropic.NotFoundError, match=UNKNOWN):
        client.models.retrieve(UNKNOWN)
    with pytest.raises(anthropic.AuthenticationError) as wrong:
        client.with_options(api_key=WRONG_KEY).messages.create(**asked)
    assert wrong.value.body["error"]["type"] == "authentication_error"


def test_errors_within_a_stream(server: Server, client: anthropic.Anthropic) -> None:
    if server.broken is None:
        return
    seen: list[str] = []
    with client.messages.stream(model=server.broken, messages=[user(GREETING)], max_tokens=30) as stream:
        with pytest.raises(anthropic.APIStatusError) as failed:
            seen.extend(stream.text_stream)
    assert "".join(seen) == "One two three"
    assert failed.value.body["error"]["type"] == "api_error"


def test_cancellation(server: Server, client: anthropic.Anthropic, leaves: Leaves) -> None:
    with leaves():
        with client.messages.stream(model=server.slow, messages=[user(LONG)], max_tokens=2000) as stream:
            next(stream.text_stream)
