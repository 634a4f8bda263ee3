from __future__ import annotations

from typing import Any

import msgspec
import pytest

from exo.inference.openai_request import (
    SEEDS,
    calling_json,
    chat_json,
    completion_json,
    format_json,
    limits_json,
    logprobs_json,
    messages_json,
    sampling_json,
    tool_choice_json,
)
from exo.types import (
    AnswerFormat,
    ChatRequest,
    CompletionRequest,
    Limits,
    Message,
    Sampling,
    Tool,
    ToolCall,
    ToolChoice,
)

WEATHER = Tool(name="weather", description="Tells it.", parameters={"type": "object"})
TIME = Tool(name="time")
CALLING = ChatRequest(model="m", messages=(), tools=(WEATHER, TIME))
NAMED = {"type": "function", "function": {"name": "time"}}


def test_messages_keep_their_tool_calls_and_their_reasoning() -> None:
    call = ToolCall(id="c1", name="f", arguments='{"x": 1}')
    messages = (
        Message(role="assistant", content="", reasoning="hm", tool_calls=(call,)),
        Message(role="tool", content="2", tool_call_id="c1"),
    )
    assert messages_json(messages) == [
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}],
        },
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
    ]


def test_formats() -> None:
    assert format_json(AnswerFormat()) == {"type": "json_object"}
    assert format_json(AnswerFormat(schema={"type": "object"}))["json_schema"]["schema"] == {"type": "object"}


def test_only_what_is_set_is_written() -> None:
    assert sampling_json(Sampling()) == limits_json(Limits()) == {}
    fields = {field.name: 1 for field in msgspec.structs.fields(Sampling)}
    assert sampling_json(msgspec.convert(fields, Sampling)) == fields
    assert sampling_json(Sampling(temperature=0.0, seed=0)) == {"temperature": 0.0, "seed": 0}
    assert limits_json(Limits(max_tokens=3, stop=("a",), deadline=9.0)) == {"max_tokens": 3, "stop": ["a"]}
    assert limits_json(Limits(max_tokens=3), "num_predict") == {"num_predict": 3}


@pytest.mark.parametrize("seed", [0, 1, SEEDS, 2**32, 2**63, -1, -(2**40)])
def test_any_seed_becomes_one_that_is_not_random(seed: int) -> None:
    assert 0 <= sampling_json(Sampling(seed=seed))["seed"] < SEEDS


@pytest.mark.parametrize(
    ("choice", "written"),
    [
        (ToolChoice(), "auto"),
        (ToolChoice(mode="none"), "none"),
        (ToolChoice(mode="required"), "required"),
        (ToolChoice(mode="required", name="time"), NAMED),
    ],
)
def test_choices(choice: ToolChoice, written: str | dict[str, Any]) -> None:
    assert tool_choice_json(choice) == written


@pytest.mark.parametrize(
    ("fields", "llama_cpp", "written"),
    [
        ({"tools": ()}, False, {}),
        ({}, False, {"tools": ["weather", "time"]}),
        ({}, True, {"tools": ["weather", "time"], "parallel_tool_calls": True}),
        ({"parallel_tool_calls": False}, False, {"tools": ["weather", "time"], "parallel_tool_calls": False}),
        ({"tool_choice": ToolChoice(mode="none")}, False, {"tools": ["weather", "time"], "tool_choice": "none"}),
        (
            {"tool_choice": ToolChoice(mode="required", name="time")},
            False,
            {"tools": ["weather", "time"], "tool_choice": NAMED},
        ),
        (
            {"tool_choice": ToolChoice(mode="required", name="time")},
            True,
            {"tools": ["time"], "tool_choice": "required", "parallel_tool_calls": True},
        ),
    ],
)
def test_what_a_request_says_of_functions(fields: dict[str, Any], written: dict[str, Any], *, llama_cpp: bool) -> None:
    body = calling_json(msgspec.structs.replace(CALLING, **fields), of_llama_cpp=llama_cpp)
    if "tools" in body:
        body["tools"] = [tool["function"]["name"] for tool in body["tools"]]
    assert body == written


def test_one_other_is_asked_for_at_least() -> None:
    assert logprobs_json(0) == {"logprobs": True, "top_logprobs": 1}
    assert logprobs_json(7) == {"logprobs": True, "top_logprobs": 7}


def test_a_chat_with_all_that_can_be_asked_for() -> None:
    form = AnswerFormat(schema={"type": "object"})
    request = msgspec.structs.replace(
        CALLING,
        messages=(Message(role="user", content="hi"),),
        format=form,
        think=True,
        think_budget=9,
        logprobs=2,
        sampling=Sampling(temperature=0.5),
        limits=Limits(max_tokens=7),
    )
    assert chat_json(request) == {
        "messages": [{"role": "user", "content": "hi"}],
        "tools": calling_json(CALLING)["tools"],
        "response_format": format_json(form),
        "chat_template_kwargs": {"enable_thinking": True},
        "thinking_budget_tokens": 9,
        "logprobs": True,
        "top_logprobs": 2,
        "temperature": 0.5,
        "max_tokens": 7,
    }
    assert chat_json(ChatRequest(model="m", messages=request.messages)) == {"messages": messages_json(request.messages)}
    assert chat_json(request, of_llama_cpp=True)["parallel_tool_calls"] is True


@pytest.mark.parametrize(("budget", "written"), [(0, 1), (1, 1), (9, 9)])
def test_llama_cpp_is_never_given_a_bound_of_nothing(budget: int, written: int) -> None:
    request = ChatRequest(model="m", messages=(), think_budget=budget)
    assert chat_json(request, of_llama_cpp=True)["thinking_budget_tokens"] == written
    assert chat_json(request)["thinking_budget_tokens"] == budget


@pytest.mark.parametrize(("others", "written"), [(None, {}), (0, {"logprobs": 1}), (5, {"logprobs": 5})])
def test_a_raw_prompt(others: int | None, written: dict[str, int]) -> None:
    request = CompletionRequest(model="m", prompt="Once", limits=Limits(stop=("x",)), logprobs=others)
    assert completion_json(request) == {"prompt": "Once", "stop": ["x"], **written}
