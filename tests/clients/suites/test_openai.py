"""The client openai for Python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
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

TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER, "strict": True}}
GREEDY: Any = {"temperature": 0, "max_tokens": 30}
CALL: Any = {"temperature": 0, "max_tokens": 200}
"""Room for a call, of which a model of the simulator needs a token for each character."""


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    """A client that checks every answer against its own types."""
    options: Any = {"max_retries": 0, "_strict_response_validation": True}
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key, **options) as made:
        yield made


@pytest.fixture
def lenient(server: Server) -> Iterator[openai.OpenAI]:
    """For what OpenAI itself answers otherwise than the client's types say."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0) as made:
        yield made


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def test_chat(server: Server, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=server.talker, messages=[user(GREETING)], **GREEDY)
    choice = answer.choices[0]
    assert answer.model == server.talker
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason in {"stop", "length"}
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 30
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert server.talker in [model.id for model in client.models.list()]


def test_chat_with_several_choices(server: Server, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=server.talker, messages=[user(GREETING)], n=2, **GREEDY)
    assert [choice.index for choice in answer.choices] == [0, 1]
    one, two = (choice.message.content for choice in answer.choices)
    assert one
    assert one == two
    stream = client.chat.completions.create(model=server.talker, messages=[user(GREETING)], n=2, stream=True, **GREEDY)
    texts = {0: "", 1: ""}
    for choice in (choice for chunk in stream for choice in chunk.choices):
        texts[choice.index] += choice.delta.content or ""
    assert texts == {0: one, 1: two}


def test_chat_with_a_seed(server: Server, client: openai.OpenAI) -> None:
    def ask(seed: int, temperature: float) -> str:
        asked: Any = {"model": server.talker, "messages": [user(GREETING)], "max_tokens": 30}
        answer = client.chat.completions.create(**asked, seed=seed, temperature=temperature)
        return answer.choices[0].message.content or ""

    if server.name == "rkllm":  # it has no seed, and needs none where nothing is random
        with pytest.raises(openai.BadRequestError, match="seed") as refused:
            ask(1, temperature=1)
        assert (refused.value.param, refused.value.code) == ("seed", "unsupported_parameter")
        assert ask(1, temperature=0) == ask(2, temperature=0)
        return
    assert ask(1, temperature=1) == ask(1, temperature=1) != ask(2, temperature=1)


def test_chat_in_a_response(server: Server, client: openai.OpenAI) -> None:
    limits: Any = {"temperature": 0, "max_output_tokens": 300}  # enough for the answer to be complete
    first = client.responses.create(model=server.talker, input=GREETING, **limits)
    assert first.output_text
    assert first.usage is not None
    again: Any = {"model": server.talker, "previous_response_id": first.id, **limits}
    second = client.responses.create(input="Goodbye!", **again)
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.total_tokens  # it goes on with the first
    with client.responses.stream(input="Goodbye!", **again) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert stream.get_final_response().output_text == text == second.output_text


def test_chat_with_logprobs(server: Server, client: openai.OpenAI) -> None:
    asked: Any = {"model": server.talker, "messages": [user(GREETING)], "logprobs": True, "top_logprobs": 2, **GREEDY}
    if server.name == "rkllm":
        with pytest.raises(openai.BadRequestError, match="rkllm") as refused:
            client.chat.completions.create(**asked)
        assert (refused.value.param, refused.value.code) == ("logprobs", "unsupported_parameter")
        return
    choice = client.chat.completions.create(**asked).choices[0]
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert "".join(token.token for token in choice.logprobs.content) == choice.message.content
    assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content)


def test_chat_as_a_raw_completion(server: Server, client: openai.OpenAI, lenient: openai.OpenAI) -> None:
    asked: Any = {"model": server.talker, "prompt": "One, two,", "temperature": 0, "max_tokens": 5}
    answer = client.completions.create(**asked)
    assert answer.choices[0].text
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    stream = lenient.completions.create(**asked, stream=True)  # while it goes on, finish_reason is null
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == answer.choices[0].text


def test_stream(server: Server, client: openai.OpenAI) -> None:
    asked: Any = {"model": server.talker, "messages": [user(GREETING)], **GREEDY}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert len([piece for piece in pieces if piece]) > 3
    assert "".join(piece or "" for piece in pieces) == whole.choices[0].message.content
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert reasons == [whole.choices[0].finish_reason]
    assert whole.usage is not None
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_tools_round_trip(server: Server, client: openai.OpenAI) -> None:
    asked: Any = {"model": server.caller, "tools": [TOOL], **CALL}
    first = client.chat.completions.create(messages=[user(QUESTION)], tool_choice="required", **asked).choices[0]
    assert first.finish_reason == "tool_calls"
    call: Any = (first.message.tool_calls or [])[0]
    assert call.function.name == "get_weather"
    result = get_weather(**json.loads(call.function.arguments))
    messages = [user(QUESTION), first.message, {"role": "tool", "tool_call_id": call.id, "content": result}]
    second = client.chat.completions.create(messages=messages, tool_choice="none", **asked).choices[0]
    assert second.message.content
    assert not second.message.tool_calls
    if server.name == "rkllm":
        assert RESULT in second.message.content


def test_tools_in_a_stream(server: Server, client: openai.OpenAI) -> None:
    named: Any = {"type": "function", "function": {"name": "get_weather"}}
    asked: Any = {"model": server.caller, "tools": [TOOL], "tool_choice": named, **CALL}
    with client.chat.completions.stream(messages=[user(QUESTION)], **asked) as stream:
        kinds = [event.type for event in stream]
        choice = stream.get_final_completion().choices[0]
    assert "tool_calls.function.arguments.delta" in kinds
    assert "tool_calls.function.arguments.done" in kinds
    call: Any = (choice.message.tool_calls or [])[0]
    assert call.id
    assert get_weather(**json.loads(call.function.arguments)) == RESULT
    assert choice.finish_reason == "tool_calls"


def test_tools_called_in_parallel(server: Server, client: openai.OpenAI) -> None:
    choice = "auto" if server.name == "rkllm" else "required"
    question = user(QUESTION_OF_TWO)
    asked: Any = {"model": server.caller, "tools": [TOOL], "tool_choice": choice, "messages": [question], **CALL}
    message = client.chat.completions.create(**asked).choices[0].message
    calls: Any = message.tool_calls or []
    cities = [json.loads(call.function.arguments)["city"] for call in calls]
    assert cities == ["Paris", "Rome"] if server.name == "rkllm" else cities
    assert len({call.id for call in calls}) == len(calls)
    with client.chat.completions.stream(**asked) as stream:
        streamed: Any = stream.get_final_completion().choices[0].message.tool_calls
    assert [call.function.arguments for call in streamed] == [call.function.arguments for call in calls]
    results = [{"role": "tool", "tool_call_id": call.id, "content": RESULT} for call in calls]
    again = {**asked, "messages": [question, message, *results], "tool_choice": "none"}
    assert client.chat.completions.create(**again).choices[0].message.content
    alone = client.chat.completions.create(**asked, parallel_tool_calls=False).choices[0].message
    assert len(alone.tool_calls or []) == 1


def test_tools_in_a_response(server: Server, client: openai.OpenAI) -> None:
    tool: Any = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}
    asked: Any = {"model": server.caller, "tools": [tool], "temperature": 0, "max_output_tokens": 200}
    first = client.responses.create(input=QUESTION, tool_choice="required", **asked)
    (call,) = [item for item in first.output if item.type == "function_call"]
    result = get_weather(**json.loads(call.arguments))
    answer: Any = {"type": "function_call_output", "call_id": call.call_id, "output": result}
    second = client.responses.create(input=[answer], previous_response_id=first.id, tool_choice="none", **asked)
    assert second.output_text
    if server.name == "rkllm":
        assert RESULT in second.output_text
    with client.responses.stream(input=QUESTION, tool_choice="required", **asked) as stream:
        pieces = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
        (streamed,) = [item for item in stream.get_final_response().output if item.type == "function_call"]
    assert "".join(pieces) == streamed.arguments == call.arguments


def test_structured_output(server: Server, client: openai.OpenAI) -> None:
    form: Any = {"name": "report", "schema": Report.model_json_schema(), "strict": True}
    asked: Any = {"model": server.reporter, "messages": [user(ORDER)], "temperature": 0, "max_tokens": 100}
    answer = client.chat.completions.create(
        **asked, response_format={"type": "json_schema", "json_schema": form}
    ).choices[0]
    assert answer.finish_reason == "stop"
    parsed = client.chat.completions.parse(**asked, response_format=Report).choices[0].message.parsed
    assert parsed == Report.model_validate_json(answer.message.content or "")
    with client.chat.completions.stream(**asked, response_format=Report) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == parsed


def test_structured_output_of_any_object(server: Server, client: openai.OpenAI) -> None:
    form: Any = {"type": "json_object"}
    asked: Any = {"model": server.reporter, "messages": [user(f"{ORDER} In JSON.")], "temperature": 0}
    answer = client.chat.completions.create(**asked, response_format=form, max_tokens=200)
    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


def test_structured_response(server: Server, client: openai.OpenAI) -> None:
    asked: Any = {"model": server.reporter, "input": ORDER, "temperature": 0, "max_output_tokens": 100}
    parsed = client.responses.parse(**asked, text_format=Report)
    assert isinstance(parsed.output_parsed, Report)
    with client.responses.stream(**asked, text_format=Report) as stream:
        assert stream.get_final_response().output_parsed == parsed.output_parsed


def test_reasoning(server: Server, client: openai.OpenAI) -> None:
    model, options = server.thinker or server.talker, {**GREEDY, "max_tokens": 60}
    asked: Any = {"model": model, "messages": [user(GREETING)], **options}
    answer = client.chat.completions.create(**asked)
    assert reasoning_in(answer.choices[0].message) == (THOUGHT if server.thinker else "")
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert bool(answer.usage.completion_tokens_details.reasoning_tokens) == bool(server.thinker)
    deltas = [chunk.choices[0].delta for chunk in client.chat.completions.create(**asked, stream=True)]
    assert "".join(map(reasoning_in, deltas)) == reasoning_in(answer.choices[0].message)
    assert "".join(delta.content or "" for delta in deltas) == answer.choices[0].message.content
    answer = client.chat.completions.create(**asked, reasoning_effort="none")
    assert answer.choices[0].message.content
    assert not reasoning_in(answer.choices[0].message)


def reasoning_in(message: Any) -> str:
    """Of a message or of a delta; the client has no field of its own for it."""
    return str((message.model_extra or {}).get("reasoning_content") or "")


def test_reasoning_in_a_response(server: Server, client: openai.OpenAI) -> None:
    model = server.thinker or server.talker
    asked: Any = {"model": model, "input": GREETING, "temperature": 0, "max_output_tokens": 300}
    whole = client.responses.create(**asked)
    with client.responses.stream(**asked) as stream:
        thought = "".join(event.delta for event in stream if event.type == "response.reasoning_text.delta")
        last = stream.get_final_response()
    for response in (whole, last):
        assert [item.type for item in response.output] == (["reasoning"] if server.thinker else []) + ["message"]
        assert reasoning_items(response) == ([THOUGHT] if server.thinker else [])
        assert response.usage is not None
        assert bool(response.usage.output_tokens_details.reasoning_tokens) == bool(server.thinker)
    assert thought == (THOUGHT if server.thinker else "")
    silent = client.responses.create(**asked, reasoning={"effort": "none"})
    assert [item.type for item in silent.output] == ["message"]


def reasoning_items(response: Any) -> list[str]:
    items = [item for item in response.output if item.type == "reasoning"]
    return ["".join(part.text for part in item.content or []) for item in items]


def test_embeddings(server: Server, client: openai.OpenAI, lenient: openai.OpenAI) -> None:
    """The client asks for base64, which its types do not have, unless it is told not to."""
    texts = ["One", "Two words"]
    found = lenient.embeddings.create(model=server.talker, input=texts)
    plain = client.embeddings.create(model=server.talker, input=texts, encoding_format="float")
    assert [item.index for item in found.data] == [0, 1]
    assert found.usage.prompt_tokens > 0
    for packed, floats in zip(found.data, plain.data, strict=True):
        assert packed.embedding == pytest.approx(floats.embedding, abs=1e-6)
    short = lenient.embeddings.create(model=server.talker, input="One", dimensions=8)
    assert len(short.data[0].embedding) == 8


def test_errors(server: Server, client: openai.OpenAI) -> None:
    create, messages = client.chat.completions.create, [user(GREETING)]
    for stream in (False, True):
        with pytest.raises(openai.NotFoundError, match=server.talker) as unknown:
            create(model=UNKNOWN, messages=messages, stream=stream)
        assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
        assert unknown.value.request_id
    with pytest.raises(openai.BadRequestError, match="temperature") as bad:
        create(model=server.talker, messages=messages, temperature=-1)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.BadRequestError, match="messages"):
        create(model=server.talker, messages=[])
    with pytest.raises(openai.BadRequestError) as long:
        create(model=server.talker, messages=[user("word " * 9000)])
    assert long.value.code == "context_length_exceeded"
    stranger = client.with_options(api_key=WRONG_KEY)
    with pytest.raises(openai.AuthenticationError) as wrong:
        stranger.chat.completions.create(model=server.talker, messages=messages)
    assert wrong.value.code == "invalid_api_key"


def test_errors_of_other_endpoints(server: Server, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=UNKNOWN):
        client.models.retrieve(UNKNOWN)
    with pytest.raises(openai.NotFoundError, match=UNKNOWN):
        client.embeddings.create(model=UNKNOWN, input="One")
    with pytest.raises(openai.NotFoundError, match=UNKNOWN):
        client.responses.create(model=UNKNOWN, input=GREETING)
    with pytest.raises(openai.BadRequestError, match="resp_unknown") as unknown:
        client.responses.create(model=server.talker, input=GREETING, previous_response_id="resp_unknown")
    assert (unknown.value.code, unknown.value.param) == ("previous_response_not_found", "previous_response_id")
    with pytest.raises(openai.BadRequestError, match="suffix"):
        client.completions.create(model=server.talker, prompt="One", suffix="three")


def test_errors_within_a_stream(server: Server, client: openai.OpenAI) -> None:
    if server.broken is None:
        return
    chunks = client.chat.completions.create(model=server.broken, messages=[user(GREETING)], stream=True)
    seen: list[str] = []
    with pytest.raises(openai.APIError) as failed:
        seen.extend(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert "".join(seen) == "One two three"
    assert failed.value.type == "server_error"


def test_cancellation(server: Server, client: openai.OpenAI, leaves: Leaves) -> None:
    with leaves():
        with client.chat.completions.create(model=server.slow, messages=[user(LONG)], stream=True) as stream:
            next(iter(stream))


def test_cancellation_by_a_timeout(server: Server, client: openai.OpenAI, leaves: Leaves) -> None:
    with leaves(), pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model=server.slow, messages=[user(LONG)], timeout=1)
