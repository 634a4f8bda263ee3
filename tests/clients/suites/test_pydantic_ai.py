"""pydantic-ai, with its model for OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from pydantic_ai import (  # type: ignore[import-not-found]  # it is in the environment of the clients
    Agent,
    ModelHTTPError,
    NativeOutput,
    RunContext,
    ToolCallPart,
    ToolOutput,
)
from pydantic_ai.embeddings import Embedder  # type: ignore[import-not-found]  # likewise
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel  # type: ignore[import-not-found]  # likewise
from pydantic_ai.exceptions import (  # type: ignore[import-not-found]  # likewise
    ModelAuthenticationError,
    ModelContextWindowExceededError,
    ModelNotFoundError,
)
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel  # type: ignore[import-not-found]  # likewise
from pydantic_ai.providers.openai import OpenAIProvider  # type: ignore[import-not-found]  # likewise

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

pytestmark = pytest.mark.anyio
GREEDY = {"temperature": 0, "max_tokens": 30}
CALL = {"temperature": 0, "max_tokens": 200}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def provided(server: Server, key: str | None = None) -> AsyncIterator[OpenAIProvider]:
    """The node as a provider of models."""
    client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key or server.key, max_retries=0)
    async with client:
        yield OpenAIProvider(openai_client=client)


@pytest.fixture
async def provider(server: Server) -> AsyncIterator[OpenAIProvider]:
    async with provided(server) as made:
        yield made


def agent(provider: OpenAIProvider, model: str, **options: Any) -> Any:
    return Agent(OpenAIChatModel(model, provider=provider), **{"model_settings": GREEDY, "retries": 0, **options})


async def test_chat(server: Server, provider: OpenAIProvider) -> None:
    found = await agent(provider, server.talker, instructions="Be kind.").run(GREETING)
    assert found.output
    assert found.response.model_name == server.talker
    assert 0 < found.usage.output_tokens <= 30


async def test_chat_in_a_response(server: Server, provider: OpenAIProvider) -> None:
    found = await Agent(OpenAIResponsesModel(server.talker, provider=provider), model_settings=GREEDY).run(GREETING)
    assert found.output
    assert 0 < found.usage.output_tokens <= 30


async def test_stream(server: Server, provider: OpenAIProvider) -> None:
    whole = await agent(provider, server.talker).run(GREETING)
    async with agent(provider, server.talker).run_stream(GREETING) as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
    assert len(pieces) > 3
    assert "".join(pieces) == whole.output
    assert stream.usage.output_tokens == whole.usage.output_tokens


async def test_tools_round_trip(server: Server, provider: OpenAIProvider) -> None:
    def settings(context: RunContext[object]) -> dict[str, Any]:
        """The first step has to call the function, the second one must not."""
        return {**CALL, "tool_choice": "required" if context.run_step <= 1 else "none"}

    found = await agent(provider, server.caller, tools=[get_weather], model_settings=settings).run(QUESTION)
    parts = [part for message in found.all_messages() for part in message.parts]
    (call,) = [part for part in parts if isinstance(part, ToolCallPart)]
    assert call.tool_name == "get_weather"
    assert [part.content for part in parts if part.part_kind == "tool-return"] == [RESULT]
    assert found.output
    if server.name == "rkllm":
        assert RESULT in found.output


async def test_tools_called_in_parallel(server: Server, provider: OpenAIProvider) -> None:
    def settings(context: RunContext[object]) -> dict[str, Any]:
        """The small model of llamacpp has to call at first and must not then; that of rkllm does so by itself."""
        choice = "auto" if server.name == "rkllm" else "required" if context.run_step <= 1 else "none"
        return {**CALL, "tool_choice": choice}

    found = await agent(provider, server.caller, tools=[get_weather], model_settings=settings).run(QUESTION_OF_TWO)
    parts = [part for message in found.all_messages() for part in message.parts]
    cities = [part.args_as_dict()["city"] for part in parts if isinstance(part, ToolCallPart)]
    assert [part.content for part in parts if part.part_kind == "tool-return"] == [RESULT] * len(cities)
    if server.name == "rkllm":
        assert cities == ["Paris", "Rome"]
        assert RESULT in found.output


@pytest.mark.parametrize("kind", [ToolOutput, NativeOutput])
async def test_structured_output(server: Server, provider: OpenAIProvider, kind: Any) -> None:
    settings = {**GREEDY, "max_tokens": 100}
    reporter = agent(provider, server.reporter, output_type=kind(Report), model_settings=settings)
    assert isinstance((await reporter.run(ORDER)).output, Report)


@pytest.mark.parametrize("kind", [OpenAIChatModel, OpenAIResponsesModel])
async def test_reasoning(server: Server, provider: OpenAIProvider, kind: Any) -> None:
    model = kind(server.thinker or server.talker, provider=provider)
    thinker = Agent(model, model_settings={"max_tokens": 60, "temperature": 0})
    found = await thinker.run(GREETING)
    assert thoughts_in(found.response) == ([THOUGHT] if server.thinker else [])
    async with thinker.run_stream(GREETING) as stream:
        assert await stream.get_output() == found.output
    assert thoughts_in(stream.response) == thoughts_in(found.response)


def thoughts_in(response: Any) -> list[str]:
    """pydantic-ai puts the reasoning of a response beside the content, which is for its summary."""
    parts = [part for part in response.parts if part.part_kind == "thinking"]
    return [part.content or "".join((part.provider_details or {})["raw_content"]) for part in parts]


async def test_embeddings(server: Server, provider: OpenAIProvider) -> None:
    embedder = Embedder(OpenAIEmbeddingModel(server.talker, provider=provider))
    one, two = (await embedder.embed_documents(["One", "Two words"])).embeddings
    assert len(one) == len(two)
    assert (await embedder.embed_query("One")).embeddings[0] == pytest.approx(one, abs=1e-3)


async def test_errors(server: Server, provider: OpenAIProvider) -> None:
    with pytest.raises(ModelNotFoundError, match=server.talker) as unknown:
        await agent(provider, UNKNOWN).run(GREETING)
    assert unknown.value.status_code == 404
    assert unknown.value.body["code"] == "model_not_found"
    with pytest.raises(ModelHTTPError, match="temperature") as bad:
        await agent(provider, server.talker, model_settings={"temperature": -1}).run(GREETING)
    assert bad.value.status_code == 400
    with pytest.raises(ModelContextWindowExceededError) as long:
        await agent(provider, server.talker).run("word " * 9000)
    assert long.value.status_code == 400
    async with provided(server, WRONG_KEY) as stranger:
        with pytest.raises(ModelAuthenticationError) as wrong:
            await agent(stranger, server.talker).run(GREETING)
    assert wrong.value.status_code == 401


async def test_cancellation(server: Server, provider: OpenAIProvider, leaves: Leaves) -> None:
    with leaves():
        slow = agent(provider, server.slow, model_settings={"max_tokens": 2000})
        async with slow.run_stream(LONG) as stream:
            await anext(stream.stream_text(delta=True, debounce_by=None))
            await stream.cancel()
