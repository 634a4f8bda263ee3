"""Every format: whole and streamed, alone and several, and cut off at each place."""

# ruff: noqa: RUF001 - the bars in the tokens of DeepSeek are full-width ones

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from exo.chat import Called, NotACall, PlainText, ToolEvent, ToolParser
from exo.types import Tool, ToolFormat

TOOLS = [Tool(name="weather"), Tool(name="add")]
ROME = '{"city": "Rome"}'
SUM = '{"a": 1,  "b": [2.50]}'
BEGIN, END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, DONE, SEP = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"

WEATHER = Called("weather", ROME, "")
ADD = Called("add", SUM, "")

ROME_CALL, SUM_CALL = f'{{"name": "weather", "arguments": {ROME}}}', f'{{"name": "add", "arguments": {SUM}}}'
ROME_LLAMA, SUM_LLAMA = f'{{"name": "weather", "parameters": {ROME}}}', f'{{"name": "add", "parameters": {SUM}}}'
V3_ROME = f"{CALL}function{SEP}weather\n```json\n{ROME}\n```{DONE}"
V3_SUM = f"{CALL}function{SEP}add\n```json\n{SUM}\n```{DONE}"

SAMPLES: list[tuple[ToolFormat, str, list[Called]]] = [
    ("hermes", f"<tool_call>\n{ROME_CALL}\n</tool_call>", [WEATHER]),
    ("hermes", f'<tool_call>{{"arguments":{ROME},"id":7,"name":"weather"}}</tool_call>', [WEATHER]),
    ("hermes", f"<tool_call>\n{ROME_LLAMA}\n</tool_call>", [WEATHER]),
    ("hermes", f"<tool_call>\n{ROME_CALL}\n</tool_call>\n<tool_call>\n{SUM_CALL}\n</tool_call>", [WEATHER, ADD]),
    ("hermes", f"<tool_call>\n{ROME_CALL}\n<tool_call>{SUM_CALL}", [WEATHER, ADD]),
    ("llama3", ROME_LLAMA, [WEATHER]),
    ("llama3", f'\n{{"type": "function", "name": "weather", "parameters": {ROME}}}', [WEATHER]),
    ("llama3", ROME_CALL, [WEATHER]),
    ("llama3", f"<|python_tag|>{ROME_LLAMA}", [WEATHER]),
    ("llama3", f"{ROME_LLAMA}; {SUM_LLAMA}", [WEATHER, ADD]),
    ("llama3", f"<|python_tag|>{ROME_LLAMA}\n{SUM_LLAMA}", [WEATHER, ADD]),
    ("llama3", f"{SUM_LLAMA} ;<|python_tag|>{ROME_LLAMA}", [ADD, WEATHER]),
    ("mistral", f'[TOOL_CALLS] [{{"name": "weather", "arguments": {ROME}, "id": "a1b2c3d4e"}}]', [WEATHER]),
    ("mistral", f"[TOOL_CALLS][{ROME_CALL}, {SUM_CALL}]", [WEATHER, ADD]),
    ("mistral", f"[TOOL_CALLS] [{ROME_CALL}{SUM_CALL}]", [WEATHER, ADD]),
    ("mistral", f"[TOOL_CALLS] {ROME_CALL}", [WEATHER]),
    ("mistral", f"[TOOL_CALLS]weather{ROME}", [WEATHER]),
    ("mistral", f"[TOOL_CALLS]weather[ARGS]{ROME}[TOOL_CALLS]add[ARGS]{SUM}", [WEATHER, ADD]),
    ("mistral", f"[TOOL_CALLS]weather[CALL_ID]a1b2c3d4e[ARGS]{ROME}", [WEATHER]),
    ("deepseek", f"{BEGIN}{V3_ROME}{END}", [WEATHER]),
    ("deepseek", f"{BEGIN}{V3_ROME}\n{V3_SUM}{END}", [WEATHER, ADD]),
    ("deepseek", f"{BEGIN}{CALL}weather{SEP}{ROME}{DONE}{CALL}add{SEP}{SUM}{DONE}{END}", [WEATHER, ADD]),
    ("deepseek", f"{CALL}weather{SEP}{ROME}{DONE}", [WEATHER]),
    ("deepseek", f"{BEGIN}{CALL}weather{SEP}{ROME}{CALL}add{SEP}{SUM}{END}", [WEATHER, ADD]),
    ("phi", f"<|tool_call|>[{ROME_CALL}]<|/tool_call|>", [WEATHER]),
    ("phi", f"<|tool_call|>[{ROME_CALL}, {SUM_CALL}]<|/tool_call|>", [WEATHER, ADD]),
    ("phi", f"<|tool_call|>{ROME_CALL}<|/tool_call|>", [WEATHER]),
    ("phi", f"functools[{ROME_CALL}, {SUM_CALL}]", [WEATHER, ADD]),
]
MARKED = [sample for sample in SAMPLES if sample[0] != "llama3" or sample[1].startswith("<")]


def events_of(form: ToolFormat, pieces: Iterable[str]) -> list[ToolEvent]:
    """All events, texts that follow each other joined."""
    parser = ToolParser(form, TOOLS)
    joined: list[ToolEvent] = []
    for event in [*(event for piece in pieces for event in parser.feed(piece)), *parser.flush()]:
        if joined and isinstance(event, PlainText) and isinstance(last := joined[-1], PlainText):
            joined[-1] = PlainText(last.text + event.text)
        else:
            joined.append(event)
    return joined


def bare(events: Iterable[ToolEvent]) -> list[ToolEvent]:
    """Calls without their sources."""
    return [Called(event.name, event.arguments, "") if isinstance(event, Called) else event for event in events]


def sources(events: Iterable[ToolEvent]) -> str:
    return "".join(event.text if isinstance(event, PlainText) else event.source for event in events)


def end_of(text: str, arguments: str) -> int:
    """Where the object of a call ends: the arguments, or the one that they are in."""
    start = text.index(arguments)
    end = start + len(arguments)
    return text.index("}", end) + 1 if ":" in text[start - 2 : start] else end


def unspaced(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize(("form", "text", "calls"), SAMPLES)
def test_calls_are_found_and_are_all_that_was_written(form: ToolFormat, text: str, calls: list[Called]) -> None:
    events = events_of(form, [text])
    assert bare(events) == calls
    assert unspaced(sources(events)) == unspaced(text)
    assert events_of(form, text) == events, "one character at a time"
    assert events_of(form, [text[:9], text[9:]]) == events


@pytest.mark.parametrize(("form", "text", "calls"), MARKED)
def test_text_before_calls_and_behind_them_is_text(form: ToolFormat, text: str, calls: list[Called]) -> None:
    whole = f"\n One moment: \n{text}\n\nDone. \n"
    events = events_of(form, [whole])
    if text.endswith("}") and form == "hermes":  # the end of the last call is missing, which is only so at the end
        assert bare(events[:-2]) == [PlainText("\n One moment:"), *calls[:-1]]
    else:
        assert bare(events) == [PlainText("\n One moment:"), *calls, PlainText("Done. \n")]
    assert events_of(form, whole) == events


@pytest.mark.parametrize(("form", "text", "calls"), MARKED)
def test_text_between_calls_is_text(form: ToolFormat, text: str, calls: list[Called]) -> None:
    if text.endswith("}") and form == "hermes":
        text += "</tool_call>"
    between = f"{text}\nAnd now: {text}"
    assert bare(events_of(form, [between])) == [*calls, PlainText("And now:"), *calls]
    assert events_of(form, between) == events_of(form, [between])


@pytest.mark.parametrize(("form", "text", "calls"), SAMPLES)
def test_a_call_that_is_cut_off_is_none_and_no_text_is_lost(form: ToolFormat, text: str, calls: list[Called]) -> None:
    ends = [end_of(text, call.arguments) for call in calls]
    for length in range(len(text)):
        cut = text[:length]
        events = events_of(form, [cut])
        assert events_of(form, cut) == events
        assert unspaced(sources(events)) == unspaced(cut)
        whole = [event for event in events if isinstance(event, Called)]
        assert bare(whole) == calls[: sum(end <= length for end in ends)], "those whose object is complete"
        for event in events:
            if isinstance(event, NotACall):
                assert event.reason == "The text ends inside the call."
                assert unspaced(cut).endswith(unspaced(event.source)), "it is what the text ends with"


@pytest.mark.parametrize(
    ("form", "begun"),
    [
        ("hermes", "<tool_call>"),
        ("hermes", '<tool_call>\n{"name": "weather", "arguments": {"city": "Ro'),
        ("llama3", "<|python_tag|>"),
        ("llama3", '{"name": "weather", "parameters": {"ci'),
        ("mistral", "[TOOL_CALLS]"),
        ("mistral", "[TOOL_CALLS] ["),
        ("mistral", "[TOOL_CALLS]wea"),
        ("mistral", "[TOOL_CALLS]weather[AR"),
        ("deepseek", BEGIN),
        ("deepseek", BEGIN + CALL[:5]),
        ("deepseek", f"{CALL}function"),
        ("deepseek", f"{CALL}function{SEP}weather\n``"),
        ("deepseek", f"{CALL}function{SEP}weather\n```js"),
        ("phi", "<|tool_call|>"),
        ("phi", "functools["),
        ("phi", 'functools[{"name": "wea'),
    ],
)
def test_what_begins_like_a_call_and_ends_there_is_told_as_cut_off(form: ToolFormat, begun: str) -> None:
    expected = [PlainText("Well: "), NotACall(begun, "The text ends inside the call.")]
    if not begun.startswith("{"):
        assert events_of(form, f"Well: {begun}") == expected
    assert events_of(form, begun) == expected[1:]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("hermes", "<tool_call>%s"),
        ("hermes", "<tool_call>%s</tool_c"),
        ("mistral", "[TOOL_CALLS] [%s"),
        ("mistral", "[TOOL_CALLS] [%s,"),
        ("phi", "functools[%s"),
        ("phi", "<|tool_call|>[%s"),
        ("phi", "<|tool_call|>[%s]"),
        ("phi", "<|tool_call|>[%s]<|/tool"),
        ("phi", "<|tool_call|>%s"),
    ],
)
def test_a_call_whose_object_is_complete_counts_without_its_end(form: ToolFormat, text: str) -> None:
    written = text % ROME_CALL
    assert events_of(form, written) == [Called("weather", ROME, written)]


@pytest.mark.parametrize(
    "end", [f"\n```{DONE[:4]}", "\n``", "", f"\n```{DONE}", f"\n```{DONE}{END[:8]}", f"\n```{END}"]
)
def test_a_call_of_deepseek_counts_without_its_end(end: str) -> None:
    written = f"{BEGIN}{CALL}function{SEP}weather\n```json\n{ROME}{end}"
    assert events_of("deepseek", written) == [Called("weather", ROME, written)]


STRINGS = [
    "}",
    "{[",
    '"',
    "\\",
    '\\"}',
    "</tool_call>",
    "<tool_call>{",
    "é\U0001f600",
    "]",
    "```",
    "\n",
    DONE,
    "; {",
    "\u2028",
]


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize(("form", "text", "calls"), SAMPLES)
def test_strings_may_hold_anything(form: ToolFormat, text: str, calls: list[Called], ascii_only: bool) -> None:  # noqa: FBT001 - parametrized
    arguments = json.dumps({string: [string, {"deep": STRINGS}] for string in STRINGS}, ensure_ascii=ascii_only)
    written = text.replace(ROME, arguments)
    events = events_of(form, [written])
    assert bare(events) == [Called("weather", arguments, "") if call == WEATHER else call for call in calls]
    assert events_of(form, written) == events


@pytest.mark.parametrize(("form", "text", "calls"), SAMPLES)
def test_an_unknown_function_is_not_called_but_others_are(form: ToolFormat, text: str, calls: list[Called]) -> None:
    written = text.replace("weather", "wether")
    events = events_of(form, [written])
    assert [event for event in bare(events) if isinstance(event, Called)] == [call for call in calls if call == ADD]
    reasons = [event.reason for event in events if isinstance(event, NotACall)]
    assert reasons == ["There is no function 'wether'."]
    assert unspaced(sources(events)) == unspaced(written)
    assert events_of(form, written) == events
