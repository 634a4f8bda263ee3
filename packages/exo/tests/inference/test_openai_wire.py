from __future__ import annotations

from typing import Any

import msgspec
import pytest

from exo.inference.openai_wire import (
    SEEDS,
    Choice,
    Chunk,
    WireTimings,
    WireUsage,
    format_json,
    limits_json,
    messages_json,
    sampling_json,
    timings_of,
    usage_of,
)
from exo.types import AnswerFormat, FinishReason, Limits, Message, Sampling, Timings, ToolCall, Usage


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
    ("choice", "said"),
    [
        ({}, ("", "")),
        ({"text": "a"}, ("a", "")),
        ({"delta": None, "text": None}, ("", "")),
        ({"delta": {"content": "a"}}, ("a", "")),
        ({"delta": {}, "text": "a"}, ("a", "")),
        ({"message": {"content": "a", "reasoning": "b"}}, ("a", "b")),
        ({"delta": {"content": None, "reasoning_content": "b"}}, ("", "b")),
    ],
)
def test_what_a_choice_says(choice: dict[str, Any], said: tuple[str, str]) -> None:
    assert msgspec.convert(choice, Choice).said == said


@pytest.mark.parametrize(
    ("written", "finish"),
    [
        (None, None),
        ("", None),
        ("stop", "stop"),
        ("length", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "stop"),
    ],
)
def test_why_an_answer_ends(written: str | None, finish: FinishReason | None) -> None:
    assert Choice(finish_reason=written).finish == finish


def test_counts_and_times() -> None:
    text = b"""{"choices": null, "usage": {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": null,
        "completion_tokens_details": {"reasoning_tokens": 2}}, "timings": {"prompt_ms": 1500, "predicted_ms": 250}}"""
    chunk = msgspec.json.decode(text, type=Chunk)
    assert usage_of(chunk.usage) == Usage(prompt_tokens=9, completion_tokens=3, reasoning_tokens=2)
    assert timings_of(chunk.timings) == Timings(prefill=1.5, decode=0.25)
    assert (usage_of(None), usage_of(WireUsage())) == (Usage(), Usage())
    assert (timings_of(None), timings_of(WireTimings())) == (None, Timings())
