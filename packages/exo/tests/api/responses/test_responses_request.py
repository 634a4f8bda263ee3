"""What becomes of a request: messages, fields, refusals."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from responses_node import TIME, WEATHER, CapableEngine, Node, answered, create, refusal
from scripted_server import ScriptedEngine

from exo.api.responses.fields import RESPONSES
from exo.api.responses.schema import ResponsesRequest
from exo.types import AnswerFormat, ChatRequest, Message, ToolCall, ToolChoice

USER = {"role": "user", "content": "hi"}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": "{}"}
OTHER_CALL = {**CALL, "call_id": "c2", "name": "time"}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "rain"}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}


def said(text: str, kind: str = "output_text") -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": kind, "text": text, "refusal": text}]}


async def asked(**fields: Any) -> ChatRequest:
    """What the engine gets."""
    node = Node(CapableEngine())
    await answered(node, {"input": "hi", **fields})
    return node.engine.requests[0]


async def refused(**fields: Any) -> tuple[int, str, str | None]:
    node = Node(CapableEngine())
    found = refusal(await create(node, {"input": "hi", **fields}))
    assert node.engine.requests == []
    return found


CONVERSATIONS: list[tuple[Any, list[Message]]] = [
    ("hi", [Message(role="user", content="hi")]),
    (
        [{"role": "developer", "content": "a"}, {"role": "system", "content": "b"}, {**USER, "type": "message"}],
        [
            Message(role="system", content="a"),
            Message(role="system", content="b"),
            Message(role="user", content="hi"),
        ],
    ),
    (
        [{"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]}],
        [Message(role="user", content="a\nb")],
    ),
    (
        [USER, said("no", "refusal"), {**USER, "type": None}],
        [
            Message(role="user", content="hi"),
            Message(role="assistant", content="no"),
            Message(role="user", content="hi"),
        ],
    ),
    (
        [USER, THOUGHT, said("I ask."), CALL, OTHER_CALL, RESULT],
        [
            Message(role="user", content="hi"),
            Message(
                role="assistant",
                content="I ask.",
                reasoning="hm",
                tool_calls=(
                    ToolCall(id="c1", name="weather", arguments="{}"),
                    ToolCall(id="c2", name="time", arguments="{}"),
                ),
            ),
            Message(role="tool", content="rain", tool_call_id="c1"),
        ],
    ),
    (
        [USER, THOUGHT, CALL, {**RESULT, "output": [{"type": "input_text", "text": "rain"}]}, THOUGHT, said("Rain.")],
        [
            Message(role="user", content="hi"),
            Message(
                role="assistant",
                content="",
                reasoning="hm",
                tool_calls=(ToolCall(id="c1", name="weather", arguments="{}"),),
            ),
            Message(role="tool", content="rain", tool_call_id="c1"),
            Message(role="assistant", content="Rain.", reasoning="hm"),
        ],
    ),
    (
        [
            USER,
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "sum"}], "encrypted_content": "x"},
            CALL,
        ],
        [
            Message(role="user", content="hi"),
            Message(
                role="assistant",
                content="",
                reasoning="sum",
                tool_calls=(ToolCall(id="c1", name="weather", arguments="{}"),),
            ),
        ],
    ),
    (
        [THOUGHT, USER, said("a"), THOUGHT],
        [Message(role="user", content="hi"), Message(role="assistant", content="a")],
    ),
    (
        [said("a"), THOUGHT, said("b"), said("c")],
        [
            Message(role="assistant", content="a"),
            Message(role="assistant", content="b", reasoning="hm"),
            Message(role="assistant", content="c"),
        ],
    ),
]


@pytest.mark.parametrize(("given", "messages"), CONVERSATIONS)
async def test_items_become_messages(given: Any, messages: list[Message]) -> None:
    assert list((await asked(input=given)).messages) == messages


async def test_instructions_are_a_system_message_in_front() -> None:
    request = await asked(input=[{"role": "system", "content": "b"}, USER], instructions="a")
    assert [(message.role, message.content) for message in request.messages] == [
        ("system", "a"),
        ("system", "b"),
        ("user", "hi"),
    ]


async def test_fields_reach_the_engine() -> None:
    request = await asked(
        temperature=0.5, top_p=0.9, max_output_tokens=7, tools=[WEATHER, TIME], parallel_tool_calls=False
    )
    assert (request.sampling.temperature, request.sampling.top_p, request.limits.max_tokens) == (0.5, 0.9, 7)
    assert not request.parallel_tool_calls
    weather, time = request.tools
    assert (weather.name, weather.description) == ("weather", "The weather of a city")
    assert weather.parameters == WEATHER["parameters"]
    assert (time.name, time.description, time.parameters) == ("time", "", {"type": "object", "properties": {}})


CHOICES: list[tuple[Any, ToolChoice, list[str]]] = [
    (None, ToolChoice(), ["weather", "time"]),
    ("auto", ToolChoice(), ["weather", "time"]),
    ("none", ToolChoice(mode="none"), ["weather", "time"]),
    (
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "time"}]},
        ToolChoice(),
        ["time"],
    ),
]
FORCED: list[tuple[Any, ToolChoice, list[str]]] = [
    ("required", ToolChoice(mode="required"), ["weather", "time"]),
    ({"type": "function", "name": "time"}, ToolChoice(mode="required", name="time"), ["weather", "time"]),
    (
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "time"}]},
        ToolChoice(mode="required"),
        ["time"],
    ),
]


@pytest.mark.parametrize(("given", "choice", "names"), [*CHOICES, *FORCED])
async def test_the_choice_of_tools(given: Any, choice: ToolChoice, names: list[str]) -> None:
    node = Node(CapableEngine())
    response = await create(node, {"input": "hi", "tools": [WEATHER, TIME], "tool_choice": given})
    request = node.engine.requests[0]
    assert (request.tool_choice, [tool.name for tool in request.tools]) == (choice, names)
    assert response.status_code == 200 or choice.mode == "required"  # which the script does not do


@pytest.mark.parametrize(
    ("effort", "think"),
    [
        (None, None),
        ("none", False),
        ("minimal", False),
        ("low", True),
        ("medium", True),
        ("high", True),
        ("xhigh", True),
    ],
)
async def test_the_effort_switches_reasoning(effort: str | None, *, think: bool | None) -> None:
    assert (await asked(reasoning={"effort": effort})).think is think


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, AnswerFormat()),
        ({"type": "json_schema", "name": "n", "schema": {"type": "array"}}, AnswerFormat(schema={"type": "array"})),
    ],
)
async def test_the_format(given: Any, expected: AnswerFormat | None) -> None:
    assert (await asked(text={"format": given})).format == expected


DEFAULTS: list[dict[str, Any]] = [
    {"background": False, "truncation": "disabled", "context_management": [], "conversation": None, "prompt": None},
    {"tools": [], "tool_choice": "auto", "include": [], "metadata": {}, "reasoning": {}, "text": {}},
    {"include": ["reasoning.encrypted_content", "file_search_call.results"], "store": None, "stream": None},
    {"max_tool_calls": 1, "service_tier": "flex", "user": "me", "stream_options": {"include_obfuscation": False}},
    {"text": {"verbosity": "low"}, "reasoning": {"summary": "detailed"}, "something_unknown": [1, 2]},
    {"temperature": None, "top_p": None, "max_output_tokens": None, "instructions": None, "previous_response_id": None},
]


@pytest.mark.parametrize("fields", DEFAULTS)
async def test_defaults_hints_and_unknown_fields_are_accepted(fields: dict[str, Any]) -> None:
    request = await asked(**fields)
    assert request == msgspec.structs.replace(await asked(), id=request.id)


UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    ({"background": True}, "background"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"conversation": {"id": "conv_1"}}, "conversation"),
    ({"prompt": {"id": "p"}}, "prompt"),
    ({"truncation": "auto"}, "truncation"),
    ({"context_management": [{"type": "compaction"}]}, "context_management"),
    ({"moderation": {"model": "m"}}, "moderation"),
    ({"tools": [WEATHER, {"type": "web_search"}]}, "tools[1].type"),
    ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0].type"),
    ({"tools": [WEATHER], "tool_choice": {"type": "file_search"}}, "tool_choice"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
    ({"input": [USER, {"type": "computer_call_output", "call_id": "c", "output": {"type": "x"}}]}, "input[1].type"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content[0]"),
    ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]}, "input[0].content[0]"),
    ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input[0].content[0]"),
    ({"input": [{**RESULT, "output": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].output[0]"),
]


@pytest.mark.parametrize(("fields", "param"), UNSUPPORTED)
async def test_what_cannot_be_honoured_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert await refused(**fields) == (400, "unsupported_parameter", param)


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"input": None}, "input"),
    ({"input": []}, "input"),
    ({"input": 5}, "input"),
    ({"input": [THOUGHT]}, "input"),
    ({"input": [{"content": "a"}]}, "input[0].role"),
    ({"input": [{"role": "tool", "content": "a"}]}, "input[0].role"),
    ({"input": [{"role": "user"}]}, "input[0].content"),
    ({"input": [{"role": "user", "content": [{"type": "hologram"}]}]}, "input[0].content[0].type"),
    ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
    ({"input": [{"role": "assistant", "content": [{"type": "refusal"}]}]}, "input[0].content[0].refusal"),
    ({"input": [{**THOUGHT, "content": [{"type": "refusal", "refusal": "x"}]}]}, "input[0].content[0].type"),
    ({"input": [{**CALL, "call_id": None}]}, "input[0].call_id"),
    ({"input": [{**CALL, "name": ""}]}, "input[0].name"),
    ({"input": [{**CALL, "arguments": {}}]}, "input[0].arguments"),
    ({"input": [{**RESULT, "call_id": ""}]}, "input[0].call_id"),
    ({"input": [{**RESULT, "output": None}]}, "input[0].output"),
    ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tools": [{"type": "function", "function": {"name": "chat_shape"}}]}, "tools[0].name"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [TIME], "tool_choice": {"type": "function", "name": "weather"}}, "tool_choice"),
    ({"tools": [TIME], "tool_choice": {"type": "allowed_tools", "mode": "required"}}, "tool_choice"),
    ({"tool_choice": "sometimes"}, "tool_choice"),
    ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
    ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"temperature": 3}, "temperature"),
    ({"top_p": -1}, "top_p"),
    ({"top_logprobs": 21}, "top_logprobs"),
    ({"include": ["everything"]}, "include[0]"),
    ({"reasoning": {"effort": "heroic"}}, "reasoning.effort"),
    ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
    ({"stream": "yes"}, "stream"),
]


@pytest.mark.parametrize(("fields", "param"), INVALID)
async def test_what_makes_no_sense_is_refused_with_its_place(fields: dict[str, Any], param: str) -> None:
    assert await refused(**fields) == (400, "invalid_request", param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [TIME]}, "tools"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
        ({"top_logprobs": 1}, "top_logprobs"),
    ],
)
async def test_what_the_engine_cannot_do_is_refused_by_the_name_that_it_has_here(
    fields: dict[str, Any], param: str
) -> None:
    node = Node(ScriptedEngine())
    assert refusal(await create(node, {"input": "hi", **fields})) == (400, "unsupported_parameter", param)


def test_every_field_has_its_handling() -> None:
    fields = {field.encode_name for field in msgspec.structs.fields(ResponsesRequest)}
    assert fields == {name for name, handling in RESPONSES.items() if handling.kind != "ignored"} | {
        "max_tool_calls",
        "user",
        "safety_identifier",
        "prompt_cache_key",
    }
