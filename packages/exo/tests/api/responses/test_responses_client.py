"""OpenAI's own client against the node."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai.types.responses import ResponseErrorEvent, ResponseFailedEvent
from pydantic import BaseModel
from responses_node import WEATHER, CapableEngine, call, last
from scripted_server import Running, Step, running

from exo.types import ContextOverflow, Delta, WorkerDied


class Rain(BaseModel):
    rain: bool


@contextlib.asynccontextmanager
async def client_of(node: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{node.url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def test_create_retrieve_list_and_delete() -> None:
    async with running(CapableEngine([Delta(reasoning="hm"), "Hello", last()])) as node, client_of(node) as client:
        first = await client.responses.create(model="one", input="a")
        second = await client.responses.create(model="one", input="b", previous_response_id=first.id)
        assert (first.output_text, first.status) == ("Hello", "completed")
        assert await client.responses.retrieve(second.id) == second
        items = [item async for item in client.responses.input_items.list(second.id, limit=1)]
        assert len(items) == 1
        await client.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(first.id)
    assert [message.content for message in node.engine.requests[1].messages] == ["a", "Hello", "b"]


async def test_a_round_trip_of_tools_with_the_items_sent_back() -> None:
    engine = CapableEngine([Delta(reasoning="hm"), *call(0, "weather", '{"city": "Oslo"}'), last("tool_calls")])
    async with running(engine) as node, client_of(node) as client:
        first = await client.responses.create(model="one", input="rain?", tools=[WEATHER], store=False)
        called = first.output[-1]
        assert called.type == "function_call"
        engine.script = ["Yes.", last()]
        result = {"type": "function_call_output", "call_id": called.call_id, "output": "rain"}
        sent: Any = [{"role": "user", "content": "rain?"}, *(item.model_dump() for item in first.output), result]
        second = await client.responses.create(model="one", input=sent, store=False)
    assert second.output_text == "Yes."
    user, assistant, tool = engine.requests[1].messages
    assert (user.content, assistant.reasoning, tool.content) == ("rain?", "hm", "rain")
    assert [(made.id, made.arguments) for made in assistant.tool_calls] == [(tool.tool_call_id, '{"city": "Oslo"}')]


async def test_stream_gathers_the_same_response() -> None:
    script: list[Step] = [
        Delta(reasoning="hm"),
        "Hel",
        "lo",
        *call(0, "weather", '{"city": "Oslo"}'),
        last("tool_calls"),
    ]
    async with running(CapableEngine(script)) as node, client_of(node) as client:
        async with client.responses.stream(model="one", input="hi", tools=[WEATHER]) as stream:
            texts = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            final = await stream.get_final_response()
        stored = await client.responses.retrieve(final.id)
    assert (texts, final.output_text) == (["Hel", "lo"], "Hello")
    assert final.output[-1].type == "function_call"
    assert final.output[-1].parsed_arguments == {"city": "Oslo"}
    assert [item.to_dict()["id"] for item in final.output] == [item.to_dict()["id"] for item in stored.output]


async def test_parse_reads_an_answer_in_a_format() -> None:
    async with running(CapableEngine(['{"rain"', ": true}", last()])) as node, client_of(node) as client:
        parsed = await client.responses.parse(model="one", input="rain?", text_format=Rain)
    assert parsed.output_parsed == Rain(rain=True)
    (request,) = node.engine.requests
    assert request.format is not None
    assert request.format.schema is not None
    assert request.format.schema["required"] == ["rain"]


async def test_errors_have_their_classes_and_a_broken_stream_says_so() -> None:
    async with (
        running(CapableEngine([ContextOverflow(prompt_tokens=9, context_tokens=5)])) as node,
        client_of(node) as client,
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(model="one", input="hi")
        with pytest.raises(openai.NotFoundError):
            await client.responses.create(model="gpt-4", input="hi")
    assert refused.value.code == "context_length_exceeded"
    async with running(CapableEngine(["Hel", WorkerDied("ended by SIGKILL")])) as node, client_of(node) as client:
        stream = await client.responses.create(model="one", input="hi", stream=True)
        *_, error, failed = [event async for event in stream]
    assert isinstance(error, ResponseErrorEvent)
    assert isinstance(failed, ResponseFailedEvent)
    assert failed.response.error is not None
    assert failed.response.error.message == "ended by SIGKILL"
