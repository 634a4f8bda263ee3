from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from exo.inference.openai_wire import (
    AnswerReader,
    Choice,
    Chunk,
    ToolCallReader,
    WireTimings,
    WireUsage,
    logprobs_of,
    timings_of,
    usage_of,
)
from exo.types import (
    Delta,
    FinishReason,
    Timings,
    TokenChance,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)


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


# answers


def chunk(**fields: Any) -> Chunk:
    return msgspec.convert(fields, Chunk)


def said(finish: str | None = None, **delta: Any) -> Chunk:
    return chunk(choices=[{"delta": delta, "finish_reason": finish}])


def test_an_answer_in_chunks() -> None:
    reader = AnswerReader(None)
    chunks = (
        said(role="assistant"),
        said(reasoning_content="hm"),
        said("stop", content="a"),
        chunk(usage={"prompt_tokens": 3}),
    )
    assert [delta for one in chunks for delta in reader.read(one)] == [Delta(reasoning="hm"), Delta(text="a")]
    assert reader.last() == Delta(finish_reason="stop", usage=Usage(prompt_tokens=3))


@pytest.mark.parametrize(("kind", "stop"), [("word", "x"), ("eos", None), ("limit", None)])
def test_the_stop_string_that_ended_an_answer(kind: str, stop: str | None) -> None:
    reader = AnswerReader(None)
    told = {"stop_type": kind, "stopping_word": "x" if stop else ""}
    assert list(reader.read(chunk(choices=[{"delta": {}, "finish_reason": "stop"}], __verbose=told))) == []
    assert reader.last().stop == stop


@pytest.mark.parametrize(("written", "finish"), [("stop", "tool_calls"), ("length", "length")])
def test_an_answer_with_a_call_says_so(written: str, finish: FinishReason) -> None:
    reader = AnswerReader(None)
    list(reader.read(said(written, tool_calls=[{"function": {"name": "f", "arguments": "{}"}}])))
    assert reader.last().finish_reason == finish


def test_a_probability_without_a_text_is_handed_on() -> None:
    told = {"content": [{"token": "", "logprob": -1.0, "bytes": [0xE2]}]}
    (delta,) = AnswerReader(0).read(chunk(choices=[{"delta": {"content": ""}, "logprobs": told}]))
    assert [one.chosen.raw for one in delta.logprobs] == [b"\xe2"]


def test_probabilities_that_never_come() -> None:
    told = {"content": [{"token": "a", "logprob": -1.0}]}
    for asked, logprobs, lacking in ((0, None, True), (0, told, False), (None, None, False)):
        reader = AnswerReader(asked)
        list(reader.read(said(content="a")))
        list(reader.read(chunk(choices=[{"delta": {"content": "b"}, "logprobs": logprobs}])))
        assert reader.lacks_logprobs is lacking
    assert AnswerReader(0).lacks_logprobs is False


@pytest.mark.parametrize(
    ("chunks", "tokens"),
    [
        ([(said(reasoning_content="hm"), 1), (said(reasoning_content="m"), 3), (said(content="a"), 6)], 3),
        ([(said(content="a"), 1)], 0),
        ([(said(reasoning_content="hm"), None)], 0),
        ([(said(reasoning_content="hm"), 9)], 7),
    ],
)
def test_the_tokens_of_reasoning_are_those_up_to_its_last_piece(
    chunks: list[tuple[Chunk, int | None]], tokens: int
) -> None:
    """Where a server tells with each piece how many there have been."""
    reader = AnswerReader(None)
    for one, count in chunks:
        list(reader.read(msgspec.structs.replace(one, timings=count and WireTimings(predicted_n=count))))
    list(reader.read(chunk(usage={"completion_tokens": 7})))
    assert reader.last().usage == Usage(completion_tokens=7, reasoning_tokens=tokens)


def test_a_server_that_counts_the_tokens_of_reasoning_is_believed() -> None:
    reader = AnswerReader(None)
    list(reader.read(msgspec.structs.replace(said(reasoning_content="hm"), timings=WireTimings(predicted_n=3))))
    details = {"completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 4}}
    list(reader.read(chunk(usage=details)))
    assert reader.last().usage == Usage(completion_tokens=7, reasoning_tokens=4)
