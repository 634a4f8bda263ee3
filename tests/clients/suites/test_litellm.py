"""litellm, which speaks the dialects of OpenAI, Anthropic and Ollama."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import litellm  # type: ignore[import-not-found]  # it is in the environment of the clients
import pytest

from clients.suites.server import (
    GREETING,
    LONG,
    ORDER,
    QUESTION,
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

PROVIDERS: Mapping[str, str] = {"openai": "/v1", "anthropic": "", "ollama_chat": ""}
"""litellm's name of a dialect, and the path of its base."""
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
pytestmark = [  # what pydantic thinks of litellm's own types
    pytest.mark.filterwarnings("ignore:Item 'summary' on TypedDict class:UserWarning"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_.*fields' attribute:DeprecationWarning"),
]
every_dialect = pytest.mark.parametrize("provider", PROVIDERS)


def complete(server: Server, model: str, messages: str | list[Any], provider: str = "openai", **options: Any) -> Any:
    asked = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    defaults = {"api_key": server.key, "temperature": 0, "max_tokens": 30, "num_retries": 0, "max_retries": 0}
    base = f"{server.url}{PROVIDERS[provider]}"
    return litellm.completion(f"{provider}/{model}", messages=asked, api_base=base, **{**defaults, **options})


@every_dialect
def test_chat(server: Server, provider: str) -> None:
    answer = complete(server, server.talker, GREETING, provider)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in {"stop", "length"}
    assert 0 < answer.usage.completion_tokens <= 30


@every_dialect
def test_stream(server: Server, provider: str) -> None:
    whole = complete(server, server.talker, GREETING, provider)
    with_usage = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(complete(server, server.talker, GREETING, provider, **with_usage))
    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert len(pieces) > 3
    assert "".join(pieces) == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


@every_dialect
def test_tools_round_trip(server: Server, provider: str) -> None:
    asked: dict[str, Any] = {"tools": [TOOL], "max_tokens": 100}
    has_to = {} if provider == "ollama_chat" else {"tool_choice": "required"}  # Ollama has no such thing
    first = complete(server, server.caller, QUESTION, provider, **has_to, **asked).choices[0]
    if provider == "ollama_chat" and server.name == "llamacpp":
        return  # the small model may answer in words
    assert first.finish_reason == "tool_calls"
    (call,) = first.message.tool_calls
    result = get_weather(**json.loads(call.function.arguments))
    answer = {"role": "tool", "tool_call_id": call.id, "content": result}
    messages = [{"role": "user", "content": QUESTION}, first.message, answer]
    second = complete(server, server.caller, messages, provider, **asked).choices[0].message
    if server.name == "rkllm":
        assert RESULT in second.content


@every_dialect
def test_tools_in_a_stream(server: Server, provider: str) -> None:
    asked: dict[str, Any] = {"tools": [TOOL], "max_tokens": 100, "stream": True}
    has_to = {} if provider == "ollama_chat" else {"tool_choice": "required"}
    whole = litellm.stream_chunk_builder(list(complete(server, server.caller, QUESTION, provider, **has_to, **asked)))
    calls = whole.choices[0].message.tool_calls or []
    if has_to or server.name == "rkllm":
        assert [get_weather(**json.loads(call.function.arguments)) for call in calls] == [RESULT]
        assert whole.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("provider", ["openai", "ollama_chat"])
def test_structured_output(server: Server, provider: str) -> None:
    answer = complete(server, server.reporter, ORDER, provider, response_format=Report, max_tokens=100)
    assert Report.model_validate_json(answer.choices[0].message.content).degrees


@every_dialect
def test_reasoning(server: Server, provider: str) -> None:
    asked: dict[str, Any] = {"provider": provider, "max_tokens": 60}
    model = server.thinker or server.talker
    message = complete(server, model, GREETING, **asked).choices[0].message
    assert (getattr(message, "reasoning_content", None) or "") == (THOUGHT if server.thinker else "")
    assert message.content
    deltas = [chunk.choices[0].delta for chunk in complete(server, model, GREETING, **asked, stream=True)]
    streamed = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert streamed == (THOUGHT if server.thinker else "")


def test_embeddings(server: Server) -> None:
    """In OpenAI's dialect: in Ollama's litellm sends no key here."""
    options = {"api_base": f"{server.url}/v1", "api_key": server.key, "encoding_format": "float"}
    found = litellm.embedding(f"openai/{server.talker}", input=["One", "Two words"], **options)
    one, two = (item["embedding"] for item in found.data)
    assert len(one) == len(two)
    assert found.usage.prompt_tokens > 0


@every_dialect
def test_errors(server: Server, provider: str) -> None:
    with pytest.raises(litellm.NotFoundError, match=server.talker):
        complete(server, UNKNOWN, GREETING, provider)
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        complete(server, server.talker, GREETING, provider, temperature=-1)
    overflow = litellm.BadRequestError if provider == "ollama_chat" else litellm.ContextWindowExceededError
    with pytest.raises(overflow, match="maximum context length"):
        complete(server, server.talker, "word " * 9000, provider)
    with pytest.raises(litellm.AuthenticationError):
        complete(server, server.talker, GREETING, provider, api_key=WRONG_KEY)


@every_dialect
def test_cancellation(server: Server, provider: str, leaves: Leaves) -> None:
    """Of an asynchronous stream: the others have nothing that closes them."""

    async def leave() -> None:
        asked = {"messages": [{"role": "user", "content": LONG}], "max_tokens": 2000, "stream": True}
        reached = {"api_key": server.key, "api_base": f"{server.url}{PROVIDERS[provider]}"}
        stream = await litellm.acompletion(f"{provider}/{server.slow}", **asked, **reached)
        await anext(stream)
        await stream.aclose()

    with leaves(), ThreadPoolExecutor() as thread:  # in this one asyncio.run would drop a loop that litellm has open
        thread.submit(asyncio.run, leave()).result()
