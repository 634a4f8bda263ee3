"""An engine with every power that the Responses API asks for, and answers read with the types of OpenAI's client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import httpx2
from openai import BaseModel
from openai.types.responses import FunctionToolParam, Response, ResponseStreamEvent
from pydantic import TypeAdapter
from scripted_server import ScriptedEngine

from exo.api import HttpSettings, create_app
from exo.inference import Capability, InferenceService, NodeMetrics
from exo.types import Delta, FinishReason, ToolCallDelta, Usage

PATH = "/v1/responses"
USAGE = Usage(prompt_tokens=20, cached_tokens=15, completion_tokens=9, reasoning_tokens=4)
WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
TIME: FunctionToolParam = {"type": "function", "name": "time", "parameters": None, "strict": False}
BEYOND_THE_CLIENT = {"store", "name", "bytes"}
"""Fields that the API has and the client's types do not: of a response, of a call that is done, of probabilities."""
_event_type: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)


class CapableEngine(ScriptedEngine):
    """Can do everything but count."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "tools", "reasoning", "json_schema", "logprobs"})


def last(reason: FinishReason = "stop") -> Delta:
    return Delta(finish_reason=reason, usage=USAGE)


def call(index: int, name: str, arguments: str, call_id: str | None = None) -> list[Delta]:
    """A call in pieces, as engines bring it."""
    half = len(arguments) // 2
    return [
        Delta(tool_calls=(ToolCallDelta(index=index, id=call_id or f"call_{name}", name=name),)),
        Delta(tool_calls=(ToolCallDelta(index=index, arguments=arguments[:half]),)),
        Delta(tool_calls=(ToolCallDelta(index=index, arguments=arguments[half:]),)),
    ]


class Node:
    """The application itself, without a server, which is enough for what no client leaves early."""

    def __init__(self, engine: ScriptedEngine, settings: HttpSettings | None = None) -> None:
        self.engine = engine
        self._app = create_app(InferenceService(engine, NodeMetrics(engine.context.registry)), settings)

    def client(self, headers: dict[str, str]) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(app=self._app)
        return httpx2.AsyncClient(transport=transport, base_url="http://localhost", headers=headers)


async def send(node: Node, method: str, path: str, body: Any = None, key: str = "") -> httpx2.Response:
    async with node.client({"authorization": f"Bearer {key}"} if key else {}) as client:
        response: httpx2.Response = await client.request(method, path, json=body)
        return response


async def create(node: Node, body: dict[str, Any], key: str = "") -> httpx2.Response:
    return await send(node, "POST", PATH, body, key)


async def answered(node: Node, body: dict[str, Any], key: str = "") -> dict[str, Any]:
    """The response of a request that is not streamed, as the client's type accepts it."""
    response = await create(node, body, key)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    check_response(found)
    return found


def events(response: httpx2.Response) -> list[dict[str, Any]]:
    """The data of all events, whose names are their types and whose numbers go up by one."""
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    blocks = response.text.split("\n\n")
    assert blocks.pop() == ""
    found = []
    for block in blocks:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        read = _event_type.validate_python(event, strict=True)
        assert set(_unknown(read)) <= BEYOND_THE_CLIENT
        found.append(event)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def check_response(body: dict[str, Any]) -> None:
    """The client's type takes it, has no field for others, and gives it back as it was."""
    read = Response.model_validate(body, strict=True)
    assert set(_unknown(read)) <= BEYOND_THE_CLIENT
    assert read.model_dump(mode="json", exclude_unset=True, by_alias=True) == body


def refusal(response: httpx2.Response) -> tuple[int, str, str | None]:
    """Status, code and field of an error in OpenAI's shape."""
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return response.status_code, error["code"], error["param"]


def _unknown(model: BaseModel) -> Iterator[str]:
    """The fields that no type of the client has, at any depth."""
    yield from model.model_extra or {}
    for name in model.model_fields_set:
        value = getattr(model, name)
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, BaseModel):
                yield from _unknown(inner)
