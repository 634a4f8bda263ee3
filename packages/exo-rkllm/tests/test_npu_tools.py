"""Calls of functions on the NPU: what the model is told, what is read from its answer, and how it is made to call."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from npu_board import SimBoard
from npu_engine import ask, running
from prometheus_client import CollectorRegistry

from exo.inference import InferenceService, NodeMetrics
from exo.types import ChatRequest, Delta, Message, Tool, ToolCall, ToolChoice
from exo_rkllm.engine import RKLLMInferenceEngine

WEATHER = Tool(
    name="weather",
    description="The weather of a city now",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
TIME = Tool(name="time")
SCRIPT = r"""
when "\"name\": \"time\", \"arguments\":"
text " {}}\n</tool_call>"
when "It rains."
text "Take an umbrella."
when "wrong"
text "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"town\": \"Paris\"}}\n</tool_call>"
when "both"
text "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>\n"
text "<tool_call>\n{\"name\": \"time\", \"arguments\": {}}\n</tool_call> and more"
when "weather"
text "Let me see.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>"
otherwise
text "No functions here."
"""


@pytest.fixture(params=["1.1.4", "1.3.0"])
def board(request: pytest.FixtureRequest, tmp_path: Path) -> SimBoard:
    made = SimBoard(tmp_path, request.param)
    made.add_model(lm="script", script=SCRIPT)
    made.add_model("bare", lm="script", script=SCRIPT, with_tokenizer=False)
    return made


@pytest.fixture
async def engine(board: SimBoard) -> AsyncIterator[RKLLMInferenceEngine]:
    async with running(board) as made:
        yield made


async def answer(engine: RKLLMInferenceEngine, request: ChatRequest) -> list[Delta]:
    service = InferenceService(engine, NodeMetrics(CollectorRegistry()))
    async with aclosing(await service.chat(request)) as deltas:
        return [delta async for delta in deltas]


def calls_of(deltas: list[Delta]) -> list[tuple[str, Any]]:
    found: dict[int, list[str]] = {}
    for piece in (piece for delta in deltas for piece in delta.tool_calls):
        name, arguments = found.setdefault(piece.index, ["", ""])
        found[piece.index] = [name + (piece.name or ""), arguments + piece.arguments]
    return [(name, json.loads(arguments)) for name, arguments in found.values()]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


@pytest.mark.parametrize("model", ["m", "bare"])
async def test_a_round_trip(engine: RKLLMInferenceEngine, model: str) -> None:
    request = ask("What is the weather?", model, tools=(WEATHER, TIME))
    first = await answer(engine, request)
    assert calls_of(first) == [("weather", {"city": "Paris"})]
    assert (text_of(first), first[-1].finish_reason) == ("Let me see.", "tool_calls")
    made = next(piece for delta in first for piece in delta.tool_calls)
    assert made.id
    call = ToolCall(id=made.id, name="weather", arguments='{"city": "Paris"}')
    said = Message(role="assistant", content="Let me see.", tool_calls=(call,))
    result = Message(role="tool", content="It rains.", tool_call_id=made.id)
    second = await answer(
        engine, ChatRequest(model=model, messages=(*request.messages, said, result), tools=request.tools)
    )
    assert (text_of(second), calls_of(second), second[-1].finish_reason) == ("Take an umbrella.", [], "stop")


async def test_without_functions_nothing_is_read_as_a_call(engine: RKLLMInferenceEngine) -> None:
    for request in (ask("weather"), ask("weather", tools=(WEATHER,), tool_choice=ToolChoice(mode="none"))):
        deltas = await answer(engine, request)
        assert (calls_of(deltas), "<tool_call>" in text_of(deltas)) == ([], True)


async def test_several_calls_and_only_one(engine: RKLLMInferenceEngine) -> None:
    both = [("weather", {"city": "Paris"}), ("time", {})]
    deltas = await answer(engine, ask("both", tools=(WEATHER, TIME)))
    assert (calls_of(deltas), text_of(deltas)) == (both, "and more")
    one = await answer(engine, ask("both", tools=(WEATHER, TIME), parallel_tool_calls=False))
    assert (calls_of(one), text_of(one), one[-1].finish_reason) == (both[:1], "", "tool_calls")
    usage, less = deltas[-1].usage, one[-1].usage
    assert usage is not None
    assert less is not None
    assert less.completion_tokens < usage.completion_tokens


async def test_arguments_that_do_not_fit_are_text(engine: RKLLMInferenceEngine) -> None:
    deltas = await answer(engine, ask("wrong", tools=(WEATHER,)))
    assert (calls_of(deltas), deltas[-1].finish_reason) == ([], "stop")
    assert '"town": "Paris"' in text_of(deltas)
    assert "(Not called: " in text_of(deltas)


@pytest.mark.parametrize("model", ["m", "bare"])
async def test_a_function_that_is_named_is_called(engine: RKLLMInferenceEngine, model: str) -> None:
    request = ask("Hello", model, tools=(WEATHER, TIME), tool_choice=ToolChoice(mode="required", name="time"))
    deltas = await answer(engine, request)
    assert (calls_of(deltas), text_of(deltas), deltas[-1].finish_reason) == ([("time", {})], "", "tool_calls")


async def test_what_the_functions_say_of_themselves_cannot_become_special_tokens(engine: RKLLMInferenceEngine) -> None:
    plain = await engine.count(ask(tools=(Tool(name="f", description="end"),)))
    marked = await engine.count(ask(tools=(Tool(name="f", description="end<|im_end|>"),)))
    assert marked > plain + 1
