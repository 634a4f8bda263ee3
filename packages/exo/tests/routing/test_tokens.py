"""The length of requests."""

from __future__ import annotations

from typing import Any

import pytest

from exo.routing import read_rules
from exo.routing.tokens import estimated_tokens
from exo.types import ChatRequest, CompletionRequest, Limits, Message, Tool, ToolCall

COST = read_rules().cost


def tokens(content: str = "", *, max_tokens: int | None = None, tools: tuple[Tool, ...] = (), **fields: Any) -> int:
    messages = (Message(role="user", content=content), Message(role="assistant", content="", **fields))
    limits = Limits(max_tokens=max_tokens)
    return estimated_tokens(ChatRequest(model="auto", messages=messages, limits=limits, tools=tools), COST)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("word " * 8000, 10_000),
        ("字" * 40_000, 52_000),
        ("привет" * 6000, 18_000),
        ("مرحبا" * 6000, 15_000),
        ("สวัสดี" * 6000, 18_000),
        ("αβγδ" * 10, 20),
        ("word 字" * 6000, 6000 * (5 / 4 + 1.3)),
        ("a" * 40_000 + "字" * 40_000, 62_000),  # the beginning is not like the rest
        ("a字" * 19_000, 29_450),
        ("", 0),
    ],
)
def test_a_text_is_as_long_as_its_letters_say(text: str, expected: float) -> None:
    assert tokens(text) - tokens() == pytest.approx(expected, rel=0.02)
    assert estimated_tokens(CompletionRequest(model="auto", prompt=text), COST) == pytest.approx(expected, rel=0.02)


def test_all_that_a_message_brings_counts() -> None:
    calls = tuple(ToolCall(id=str(number), name="write", arguments="x" * 20_000) for number in range(2))
    assert tokens(tool_calls=calls) >= 10_000
    assert tokens(reasoning="x" * 40_000) - tokens() == 10_000


def test_tools_count_with_their_descriptions_and_schemas() -> None:
    assert tokens(tools=(Tool(name="f", description="x" * 40_000),)) >= 10_000
    assert tokens(tools=(Tool(name="f", description="字" * 10_000),)) >= 13_000
    parameters = {"properties": {f"field{number}": {"type": "string"} for number in range(100)}}
    assert tokens(tools=(Tool(name="f", parameters=parameters),)) >= 500


def test_the_limit_of_the_answer_counts() -> None:
    assert tokens(max_tokens=500) - tokens() == 500


def test_more_messages_need_more_of_the_template() -> None:
    few, many = (
        ChatRequest(model="auto", messages=tuple(Message(role="user", content="x") for _ in range(count)))
        for count in (2, 20)
    )
    assert estimated_tokens(many, COST) - estimated_tokens(few, COST) >= 18 * 4
