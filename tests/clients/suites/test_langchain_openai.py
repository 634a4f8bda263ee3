"""langchain-openai."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from langchain_core.tools import tool  # type: ignore[import-not-found]  # it is in the environment of the clients
from langchain_openai import ChatOpenAI, OpenAIEmbeddings  # type: ignore[import-not-found]  # likewise

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

TOOL = tool(get_weather)


def chat(server: Server, model: str, **options: Any) -> ChatOpenAI:
    """langchain's client for a model of the node."""
    defaults = {"api_key": server.key, "temperature": 0, "max_tokens": 30, "max_retries": 0}
    return ChatOpenAI(base_url=f"{server.url}/v1", model=model, **{**defaults, **options})


def test_chat(server: Server) -> None:
    answer = chat(server, server.talker).invoke([("system", "Be kind."), ("human", GREETING)])
    assert answer.content
    assert answer.response_metadata["finish_reason"] in {"stop", "length"}
    assert 0 < answer.usage_metadata["output_tokens"] <= 30


def test_chat_in_a_response(server: Server) -> None:
    answer = chat(server, server.talker, use_responses_api=True).invoke(GREETING)
    assert answer.text
    assert answer.usage_metadata["output_tokens"] > 0


def test_stream(server: Server) -> None:
    model = chat(server, server.talker, stream_usage=True)
    pieces = list(model.stream(GREETING))
    assert len(pieces) > 3
    assert "".join(piece.content for piece in pieces) == model.invoke(GREETING).content
    assert [piece.usage_metadata["output_tokens"] for piece in pieces if piece.usage_metadata][-1] > 3


def test_tools_round_trip(server: Server) -> None:
    model = chat(server, server.caller, max_tokens=200)
    first = model.bind_tools([TOOL], tool_choice="required").invoke(QUESTION)
    (call,) = first.tool_calls
    assert (call["name"], first.invalid_tool_calls) == ("get_weather", [])
    result = TOOL.invoke(call)
    assert result.content == RESULT
    second = model.bind_tools([TOOL], tool_choice="none").invoke([("human", QUESTION), first, result])
    assert second.content
    if server.name == "rkllm":
        assert RESULT in second.content


def test_tools_in_a_stream(server: Server) -> None:
    model = chat(server, server.caller, max_tokens=200).bind_tools([TOOL], tool_choice="get_weather")
    whole = None
    for piece in model.stream(QUESTION):
        whole = piece if whole is None else whole + piece
    assert whole is not None
    (call,) = whole.tool_calls
    assert get_weather(**call["args"]) == RESULT


def test_tools_called_in_parallel(server: Server) -> None:
    choice = "auto" if server.name == "rkllm" else "required"
    model = chat(server, server.caller, max_tokens=200).bind_tools([TOOL], tool_choice=choice)
    first = model.invoke(QUESTION_OF_TWO)
    results = [TOOL.invoke(call) for call in first.tool_calls]
    assert {result.content for result in results} == {RESULT}
    if server.name == "rkllm":
        assert [call["args"]["city"] for call in first.tool_calls] == ["Paris", "Rome"]
        assert RESULT in model.invoke([("human", QUESTION_OF_TWO), first, *results]).content


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_output(server: Server, method: str) -> None:
    if method == "json_mode" and server.name == "llamacpp":
        return  # any object is right then, and this small model makes up its own
    model = chat(server, server.reporter, max_tokens=100)
    assert isinstance(model.with_structured_output(Report, method=method).invoke(ORDER), Report)


def test_reasoning(server: Server) -> None:
    """Only in a response: from chat completions this client takes none, and from a stream not its text."""
    model = chat(server, server.thinker or server.talker, max_tokens=60, use_responses_api=True)
    answer = model.invoke(GREETING)
    thoughts = [part["text"] for block in reasoning_in(answer) for part in block["extras"]["content"]]
    assert thoughts == ([THOUGHT] if server.thinker else [])
    whole = None
    for piece in model.stream(GREETING):
        whole = piece if whole is None else whole + piece
    assert whole is not None
    assert len(reasoning_in(whole)) == len(thoughts)
    assert whole.text == answer.text
    assert not reasoning_in(model.invoke(GREETING, reasoning={"effort": "none"}))


def reasoning_in(message: Any) -> list[Any]:
    return [block for block in message.content_blocks if block["type"] == "reasoning"]


def test_embeddings(server: Server) -> None:
    options: Any = {"check_embedding_ctx_length": False}  # else it sends numbers of OpenAI's own tokens
    model = OpenAIEmbeddings(base_url=f"{server.url}/v1", api_key=server.key, model=server.talker, **options)
    one, two = model.embed_documents(["One", "Two words"])
    assert len(one) == len(two)
    assert model.embed_query("One") == pytest.approx(one, abs=1e-3)


def test_errors(server: Server) -> None:
    with pytest.raises(openai.NotFoundError, match=server.talker):
        chat(server, UNKNOWN).invoke(GREETING)
    with pytest.raises(openai.BadRequestError, match="temperature"):
        chat(server, server.talker, temperature=-1).invoke(GREETING)
    with pytest.raises(openai.BadRequestError, match="maximum context length") as long:
        chat(server, server.talker).invoke("word " * 9000)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.AuthenticationError):
        chat(server, server.talker, api_key=WRONG_KEY).invoke(GREETING)


def test_cancellation(server: Server, leaves: Leaves) -> None:
    with leaves():
        stream = chat(server, server.slow, max_tokens=2000).stream(LONG)
        next(stream)
        stream.close()
