"""What a request says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from exo.routing import read_rules
from exo.routing.signals import leanings_of, signal_of
from exo.types import AnswerFormat, ChatRequest, CompletionRequest, Limits, Message, Tool
from exo.types.request import ToolChoice

RULES = read_rules().signals


def request(**fields: Any) -> ChatRequest:
    return ChatRequest(model="auto", messages=(Message(role="user", content="x"),), **fields)


@pytest.mark.parametrize(
    ("fields", "role", "rule"),
    [
        ({"effort": "low", "think": True}, "quick", "effort"),
        ({"effort": "none", "think": False}, "quick", "effort"),
        ({"effort": "high", "think": True}, "reasoning", "effort"),
        ({"think": True}, "reasoning", "think"),
        ({"think": False}, "quick", "think"),
        ({"think": True, "think_budget": 0}, "quick", "think-budget"),
        ({"think": True, "limits": Limits(max_tokens=5)}, "reasoning", "think"),
        ({"limits": Limits(max_tokens=5)}, "quick", "max-tokens"),
        ({"limits": Limits(deadline=5)}, "quick", "short-deadline"),
    ],
)
def test_an_explicit_signal(fields: dict[str, Any], role: str, rule: str) -> None:
    signal = signal_of(request(**fields), RULES)
    assert signal is not None
    assert (signal.role, signal.rule) == (role, rule)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"effort": "medium", "think": True},
        {"think_budget": 4000},
        {"limits": Limits(max_tokens=4000, deadline=3600)},
    ],
)
def test_no_signal(fields: dict[str, Any]) -> None:
    assert signal_of(request(**fields), RULES) is None


def test_a_completion_has_limits_only() -> None:
    short = CompletionRequest(model="auto", prompt="x", limits=Limits(max_tokens=1))
    signal = signal_of(short, RULES)
    assert signal is not None
    assert signal.rule == "max-tokens"
    assert leanings_of(short, RULES) == []


def test_tools_and_a_format_lean_to_quick() -> None:
    both = request(tools=(Tool(name="f"),), format=AnswerFormat())
    assert [leaning.rule for leaning in leanings_of(both, RULES)] == ["tools", "format"]
    assert leanings_of(request(tools=(Tool(name="f"),), tool_choice=ToolChoice(mode="none")), RULES) == []
