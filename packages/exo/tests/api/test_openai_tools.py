from __future__ import annotations

from typing import Any

import msgspec
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai_engine import OTHER_TOOL, TOOL, OpenAIEngine, events, post
from scripted_server import CHAT, ScriptedEngine, running

from exo.api.openai.request import chat_request
from exo.api.openai.schema import ChatCompletionRequest
from exo.types import ChatRequest, Delta, InvalidRequest, ToolCallDelta, ToolChoice, UnsupportedParameter, Usage

PATH = "/v1/chat/completions"
LAST = Delta(finish_reason="tool_calls", usage=Usage(prompt_tokens=7, completion_tokens=5))
CALLS = [
    Delta(text="Let me see."),
    Delta(tool_calls=(ToolCallDelta(index=0, id="call_a", name="f"),)),
    Delta(tool_calls=(ToolCallDelta(index=0, arguments='{"x":'),)),
    Delta(tool_calls=(ToolCallDelta(index=0, arguments=" 1}"),)),
    Delta(tool_calls=(ToolCallDelta(index=1, id="call_b", name="g", arguments="{}"),)),
    LAST,
]
A_CALL = {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
B_CALL = {"id": "call_b", "type": "function", "function": {"name": "g", "arguments": "{}"}}


def request_of(**fields: Any) -> ChatRequest:
    return chat_request(msgspec.convert({**CHAT, **fields}, ChatCompletionRequest), model="one", request_id="r")


async def test_calls_of_a_whole_answer_stand_beside_its_text() -> None:
    async with running(OpenAIEngine(CALLS)) as node:
        body = (await post(node, PATH, {**CHAT, "tools": [TOOL, OTHER_TOOL]})).json()
    choice = body["choices"][0]
    assert choice["message"] == {
        "role": "assistant",
        "content": "Let me see.",
        "refusal": None,
        "tool_calls": [A_CALL, B_CALL],
    }
    assert choice["finish_reason"] == "tool_calls"
    ChatCompletion.model_validate(body, strict=True)


async def test_without_text_the_content_is_null() -> None:
    async with running(OpenAIEngine(CALLS[1:])) as node:
        body = (await post(node, PATH, {**CHAT, "tools": [TOOL, OTHER_TOOL]})).json()
    assert body["choices"][0]["message"]["content"] is None


async def test_calls_are_streamed_with_their_name_first() -> None:
    async with running(OpenAIEngine(CALLS)) as node:
        *chunks, done = events(await post(node, PATH, {**CHAT, "stream": True, "tools": [TOOL, OTHER_TOOL]}))
    assert done == "[DONE]"
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Let me see."},
        {"tool_calls": [_piece(0, "", id="call_a", name="f")]},
        {"tool_calls": [_piece(0, '{"x": 1}')]},
        {"tool_calls": [_piece(1, "", id="call_b", name="g")]},
        {"tool_calls": [_piece(1, "{}")]},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 6 + ["tool_calls"]


def _piece(index: int, arguments: str, *, id: str = "", name: str = "") -> dict[str, Any]:  # noqa: A002 - OpenAI's name
    if not id:
        return {"index": index, "function": {"arguments": arguments}}
    return {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_tools_reach_the_engine() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    full = {"type": "function", "function": {"name": "h", "description": "H.", "parameters": schema, "strict": True}}
    request = request_of(tools=[TOOL, full], parallel_tool_calls=False)
    bare, told = request.tools
    assert (bare.name, bare.description, bare.parameters) == ("f", "", {"type": "object", "properties": {}})
    assert (told.name, told.description, told.parameters) == ("h", "H.", schema)
    assert not request.parallel_tool_calls
    assert request_of(parallel_tool_calls=None).parallel_tool_calls


@pytest.mark.parametrize(
    ("choice", "expected", "names"),
    [
        (None, ToolChoice(), ["f", "g"]),
        ("auto", ToolChoice(), ["f", "g"]),
        ("none", ToolChoice(mode="none"), ["f", "g"]),
        ("required", ToolChoice(mode="required"), ["f", "g"]),
        ({"type": "function", "function": {"name": "g"}}, ToolChoice(mode="required", name="g"), ["f", "g"]),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [OTHER_TOOL]}}, ToolChoice(), ["g"]),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [OTHER_TOOL, TOOL]}},
            ToolChoice(mode="required"),
            ["f", "g"],
        ),
    ],
)
def test_the_choice_reaches_the_engine(choice: Any, expected: ToolChoice, names: list[str]) -> None:
    request = request_of(tools=[TOOL, OTHER_TOOL], tool_choice=choice)
    assert request.tool_choice == expected
    assert [tool.name for tool in request.tools] == names


CUSTOM = {"type": "custom", "custom": {"name": "c"}}
WRONG: list[tuple[dict[str, Any], type[InvalidRequest], str]] = [
    ({"tools": [TOOL, CUSTOM]}, UnsupportedParameter, "tools[1].type"),
    ({"tools": [TOOL], "tool_choice": CUSTOM}, UnsupportedParameter, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": OTHER_TOOL}, InvalidRequest, "tool_choice"),
    ({"tool_choice": "required"}, InvalidRequest, "tool_choice"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}}},
        InvalidRequest,
        "tool_choice",
    ),
]


@pytest.mark.parametrize(("fields", "kind", "param"), WRONG)
def test_what_cannot_be_called_is_refused_by_name(
    fields: dict[str, Any], kind: type[InvalidRequest], param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        request_of(**fields)
    assert (type(caught.value), caught.value.param) == (kind, param)


async def test_an_engine_without_calls_refuses_tools() -> None:
    async with running(ScriptedEngine()) as node:
        response = await post(node, PATH, {**CHAT, "tools": [TOOL]})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", "tools")
