from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from exo.inference.openai_wire import (
    SEEDS,
    Choice,
    Chunk,
    ToolCallReader,
    WireTimings,
    WireUsage,
    calling_json,
    format_json,
    limits_json,
    logprobs_json,
    logprobs_of,
    messages_json,
    sampling_json,
    timings_of,
    tool_choice_json,
    tools_json,
    usage_of,
)
from exo.types import (
    AnswerFormat,
    ChatRequest,
    FinishReason,
    Limits,
    Message,
    Sampling,
    Timings,
    TokenChance,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    Usage,
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


# calls of functions


def test_functions_are_written_with_what_is_known_of_them() -> None:
    weather, time = tools_json([WEATHER, TIME])
    assert weather == {
        "type": "function",
        "function": {"name": "weather", "description": "Tells it.", "parameters": {"type": "object"}},
    }
    assert time == NAMED


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


def read(*pieces: dict[str, Any]) -> tuple[list[tuple[int, str, str]], list[ToolCallDelta]]:
    """The calls of pieces that come in a chunk each, as index, name and arguments; and all deltas."""
    reader = ToolCallReader()
    deltas: list[ToolCallDelta] = []
    for piece in pieces:
        deltas += reader.read(msgspec.convert({"delta": {"tool_calls": [piece]}}, Choice))
    names = {delta.index: delta.name for delta in deltas if delta.name}
    assert reader.count == len(names)
    written = {index: "".join(delta.arguments for delta in deltas if delta.index == index) for index in names}
    return [(index, name, written[index]) for index, name in names.items()], deltas


def test_a_call_in_fragments() -> None:
    begin = {"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    rest = [{"index": 0, "function": {"arguments": text}} for text in ('{"city"', ': "Paris"}')]
    _, deltas = read(begin, *rest)
    assert deltas == [
        ToolCallDelta(index=0, id="c1", name="weather"),
        ToolCallDelta(index=0, arguments='{"city"'),
        ToolCallDelta(index=0, arguments=': "Paris"}'),
    ]


def test_id_and_name_come_alone_also_for_a_whole_call() -> None:
    _, deltas = read({"index": 0, "id": "c1", "function": {"name": "time", "arguments": "{}"}})
    assert deltas == [ToolCallDelta(index=0, id="c1", name="time"), ToolCallDelta(index=0, arguments="{}")]


def test_a_call_without_an_id_gets_one_of_its_own() -> None:
    whole = [{"index": place, "id": gone, "function": {"name": "time"}} for place, gone in enumerate((None, "", None))]
    _, deltas = read(*whole)
    ids = {delta.id for delta in deltas}
    assert len(ids) == len(deltas) == 3
    assert all(ids)


TWO = [(0, "weather", '{"city": "Paris"}'), (1, "time", "{}")]


@pytest.mark.parametrize(
    "pieces",
    [
        [
            {"index": 0, "id": "a", "function": {"name": "weather", "arguments": '{"city": '}},
            {"index": 0, "function": {"arguments": '"Paris"}'}},
            {"index": 1, "id": "b", "function": {"name": "time", "arguments": "{}"}},
        ],
        [
            {"index": 0, "id": "a", "function": {"name": "weather", "arguments": '{"city": '}},
            {"index": 0, "id": "a", "function": {"name": "weather", "arguments": '"Paris"}'}},
            {"index": 0, "id": "b", "function": {"name": "time", "arguments": "{}"}},
        ],
        [
            {"id": "a", "function": {"name": "weather", "arguments": '{"city": '}},
            {"function": {"arguments": '"Paris"}'}},
            {"id": "b", "function": {"name": "time", "arguments": "{}"}},
        ],
        [
            {"index": 3, "function": {"name": "weather", "arguments": '{"city": '}},
            {"index": 3, "function": {"name": "weather", "arguments": '"Paris"}'}},
            {"index": 7, "function": {"name": "time", "arguments": {}}},
        ],
    ],
    ids=["as OpenAI", "always the same index", "no index", "no id"],
)
def test_two_calls_as_servers_write_them(pieces: list[dict[str, Any]]) -> None:
    calls, deltas = read(*pieces)
    assert calls == TWO
    assert [bool(delta.id) for delta in deltas] == [bool(delta.name) for delta in deltas]


def test_several_calls_in_a_message_that_is_not_streamed() -> None:
    calls = [{"id": "a", "function": {"name": "f", "arguments": '{"x":1}'}}, {"function": {"name": "g"}}]
    deltas = ToolCallReader().read(msgspec.convert({"message": {"tool_calls": calls}}, Choice))
    assert [(delta.index, delta.name, delta.arguments) for delta in deltas] == [
        (0, "f", ""),
        (0, None, '{"x":1}'),
        (1, "g", ""),
    ]


def test_arguments_that_are_an_object_become_text() -> None:
    _, deltas = read({"function": {"name": "f", "arguments": {"city": "Köln", "n": [1, 2.5]}}})
    assert json.loads(deltas[1].arguments) == {"city": "Köln", "n": [1, 2.5]}


@pytest.mark.parametrize(
    "choice", [{}, {"delta": {}}, {"delta": {"tool_calls": None}}, {"delta": {"tool_calls": []}}, {"text": "a"}]
)
def test_a_piece_without_calls(choice: dict[str, Any]) -> None:
    assert ToolCallReader().read(msgspec.convert(choice, Choice)) == ()


# probabilities


def test_one_other_is_asked_for_at_least() -> None:
    assert logprobs_json(0) == {"logprobs": True, "top_logprobs": 1}
    assert logprobs_json(7) == {"logprobs": True, "top_logprobs": 7}


SNOWMAN = "\N{SNOWMAN}"


def test_the_probabilities_of_a_chat() -> None:
    others = [{"token": text, "logprob": -1.0, "bytes": list(text.encode())} for text in ("a", SNOWMAN, "c")]
    told = {"content": [{"token": SNOWMAN, "logprob": -0.5, "bytes": list(SNOWMAN.encode()), "top_logprobs": others}]}
    (one,) = logprobs_of(msgspec.convert({"logprobs": told}, Choice), 2)
    assert one == TokenLogprob(
        chosen=TokenChance(text=SNOWMAN, logprob=-0.5, raw=SNOWMAN.encode()),
        top=(
            TokenChance(text="a", logprob=-1.0, raw=b"a"),
            TokenChance(text=SNOWMAN, logprob=-1.0, raw=SNOWMAN.encode()),
        ),
    )


@pytest.mark.parametrize(
    ("told", "chance"),
    [
        ({"token": "a", "logprob": -1}, TokenChance(text="a", logprob=-1.0, raw=b"a")),
        ({"token": "a", "logprob": -1, "bytes": None}, TokenChance(text="a", logprob=-1.0, raw=b"a")),
        ({"token": "<eos>", "logprob": -1, "bytes": []}, TokenChance(text="<eos>", logprob=-1.0, raw=b"<eos>")),
        ({"token": "\ufffd", "logprob": -1, "bytes": [226]}, TokenChance(text="", logprob=-1.0, raw=b"\xe2")),
        ({"token": "a", "logprob": None}, TokenChance(text="a", logprob=-9999.0, raw=b"a")),
        ({"token": None, "logprob": -1}, TokenChance(text="", logprob=-1.0)),
    ],
)
def test_tokens_as_servers_write_them(told: dict[str, Any], chance: TokenChance) -> None:
    choice = msgspec.convert({"logprobs": {"content": [told]}}, Choice)
    assert logprobs_of(choice, 0) == (TokenLogprob(chosen=chance),)


def test_the_probabilities_of_a_raw_completion() -> None:
    tops = [{"c": -3.0, "a": -0.5, "b": None}, None]
    told = {"tokens": ["a", "d"], "token_logprobs": [-0.5, None], "top_logprobs": tops, "text_offset": [0, 1]}
    first, second = logprobs_of(msgspec.convert({"logprobs": told}, Choice), 2)
    assert first.chosen == TokenChance(text="a", logprob=-0.5, raw=b"a")
    assert [other.text for other in first.top] == ["a", "c"]
    assert second == TokenLogprob(chosen=TokenChance(text="d", logprob=-9999.0, raw=b"d"))
    bare = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": None}
    assert [len(one.top) for one in logprobs_of(msgspec.convert({"logprobs": bare}, Choice), 2)] == [0]


@pytest.mark.parametrize(
    "told",
    [
        None,
        -0.5,
        [],
        {},
        {"content": None},
        {"content": []},
        {"tokens": None},
        {"content": [{"token": "a", "logprob": -1.0, "bytes": [256]}]},
    ],
)
def test_a_piece_without_probabilities(told: Any) -> None:
    assert logprobs_of(msgspec.convert({"text": "a", "logprobs": told}, Choice), 2) == ()
