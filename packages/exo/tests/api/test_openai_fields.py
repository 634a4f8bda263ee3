"""What becomes of each field of OpenAI's requests."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai_engine import OpenAIEngine, post
from scripted_server import CHAT, ScriptedEngine, running

from exo.api.fields import Fields
from exo.api.openai.fields import CHAT as CHAT_FIELDS
from exo.api.openai.fields import COMPLETIONS, EMBEDDINGS
from exo.api.openai.request import chat_request
from exo.api.openai.schema import ChatCompletionRequest, CompletionRequestIn, EmbeddingRequestIn
from exo.types import AnswerFormat, ChatRequest, InvalidRequest, UnsupportedParameter

PATH = "/v1/chat/completions"
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}
TABLES = [
    (CHAT_FIELDS, ChatCompletionRequest, chat_create_params.CompletionCreateParamsBase),
    (COMPLETIONS, CompletionRequestIn, completion_create_params.CompletionCreateParamsBase),
    (EMBEDDINGS, EmbeddingRequestIn, embedding_create_params.EmbeddingCreateParams),
]


def request_of(**fields: Any) -> ChatRequest:
    return chat_request(msgspec.convert({**CHAT, **fields}, ChatCompletionRequest), model="one", request_id="r")


@pytest.mark.parametrize(("table", "kind", "published"), TABLES)
def test_the_table_has_every_field_of_openai_and_those_that_are_read(
    table: Fields, kind: type[msgspec.Struct], published: Any
) -> None:
    assert published.__annotations__.keys() <= table.keys()
    read = {name for name, handling in table.items() if handling.kind != "ignored"}
    assert read == set(kind.__struct_fields__)


@pytest.mark.parametrize("name", [name for name, handling in CHAT_FIELDS.items() if handling.kind == "refused"])
def test_a_refused_field_is_refused_by_name_but_for_what_changes_nothing(name: str) -> None:
    for value in (None, *CHAT_FIELDS[name].accepted):
        request_of(**{name: value})
    with pytest.raises(UnsupportedParameter, match=name) as caught:
        request_of(**{name: {"something": "else"}})
    assert caught.value.param == name
    assert CHAT_FIELDS[name].note in caught.value.message


async def test_ignored_fields_are_accepted_with_any_value() -> None:
    ignored = {name: [1, "x"] for name, handling in CHAT_FIELDS.items() if handling.kind == "ignored"}
    async with running() as node:
        assert (await post(node, PATH, {**CHAT, **ignored})).status_code == 200


@pytest.mark.parametrize(
    ("fields", "think"),
    [
        ({}, None),
        ({"reasoning_effort": None, "chat_template_kwargs": None}, None),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, False),
        ({"reasoning_effort": "low"}, True),
        ({"reasoning_effort": "max"}, True),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "high"}, True),
        ({"chat_template_kwargs": {}}, None),
    ],
)
def test_reasoning_is_switched(fields: dict[str, Any], think: bool | None) -> None:  # noqa: FBT001 - a parameter of the test
    assert request_of(**fields).think is think


def test_reasoning_is_bounded() -> None:
    assert request_of(thinking_budget_tokens=100).think_budget == 100
    assert request_of(thinking_budget_tokens=-1).think_budget is None
    assert request_of(thinking_budget_tokens=100, reasoning_effort="none").think_budget is None


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, AnswerFormat()),
        ({"type": "json_object", "schema": SCHEMA}, AnswerFormat(schema=SCHEMA)),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}, AnswerFormat(schema=SCHEMA)),
        ({"type": "json_schema", "json_schema": {"name": "a", "strict": True}}, AnswerFormat()),
    ],
)
def test_the_format_of_the_answer(form: Any, expected: AnswerFormat | None) -> None:
    assert request_of(response_format=form).format == expected


def test_logprobs_are_asked_for() -> None:
    assert request_of(logprobs=False, top_logprobs=0).logprobs is None
    assert request_of(logprobs=True).logprobs == 0
    assert request_of(logprobs=True, top_logprobs=3).logprobs == 3


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"chat_template_kwargs": {"enable_thinking": "yes"}}, "chat_template_kwargs.enable_thinking"),
        ({"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "low"}, "reasoning_effort"),
        ({"chat_template_kwargs": {"tone": "warm"}}, "chat_template_kwargs.tone"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"messages": [{"role": "assistant", "function_call": {"name": "f"}}]}, "messages[0].function_call"),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "messages[0].audio"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        request_of(**fields)
    assert caught.value.param == param


def test_a_refusal_of_earlier_is_its_text() -> None:
    assert request_of(messages=[{"role": "assistant", "refusal": "No."}]).messages[0].content == "No."


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"chat_template_kwargs": {"enable_thinking": True}}, "chat_template_kwargs.enable_thinking"),
        ({"thinking_budget_tokens": 5}, "thinking_budget_tokens"),
        ({"logprobs": True}, "logprobs"),
    ],
)
async def test_what_the_engine_cannot_is_refused_by_the_name_that_was_sent(fields: dict[str, Any], param: str) -> None:
    async with running(ScriptedEngine()) as node:
        response = await post(node, PATH, {**CHAT, **fields})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", param)


async def test_a_schema_that_is_too_long_reaches_no_engine() -> None:
    form = {"type": "json_schema", "json_schema": {"schema": {"enum": [f"name{number}" for number in range(8000)]}}}
    async with running(OpenAIEngine()) as node:  # it constrains its answers by itself
        response = await post(node, PATH, {**CHAT, "response_format": form})
    error = response.json()["error"]
    assert (response.status_code, error["param"], node.engine.requests) == (400, "response_format", [])
    assert "over 65536 characters" in error["message"]


async def test_a_schema_that_is_none_is_refused_by_the_name_that_was_sent() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": 5}}}
    async with running(ScriptedEngine(['{"x": 1}'])) as node:
        response = await post(node, PATH, {**CHAT, "response_format": form})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "response_format"), error


async def test_what_the_engine_can_reaches_it() -> None:
    body = {
        **CHAT,
        "reasoning_effort": "low",
        "thinking_budget_tokens": 9,
        "logprobs": True,
        "top_logprobs": 2,
        "response_format": {"type": "json_object"},
    }
    async with running(OpenAIEngine(["{}"])) as node:
        assert (await post(node, PATH, body)).status_code == 200
    request = node.engine.requests[0]
    assert (request.think, request.think_budget, request.logprobs) == (True, 9, 2)
    assert request.format == AnswerFormat()
