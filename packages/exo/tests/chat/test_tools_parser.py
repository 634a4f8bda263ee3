# ruff: noqa: RUF001 - the bars in the tokens of DeepSeek are full-width ones

from __future__ import annotations

import itertools
import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.chat import Called, NotACall, PlainText, ToolEvent, ToolParser, forced_start
from exo.types import Tool, ToolFormat

TOOLS = [Tool(name="f"), Tool(name="größe/2")]
FORMATS: tuple[ToolFormat, ...] = get_args(ToolFormat)
CALL = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'

PIECES = st.sampled_from(
    [
        *(
            "<tool_call>",
            "</tool_call>",
            "<tool_",
            "<|python_tag|>",
            "[TOOL_CALLS]",
            "[ARGS]",
            "[CALL_ID]",
            "functools[",
        ),
        *("<|tool_call|>", "<|/tool_call|>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>"),
        *(
            "<｜tool▁call▁end｜>",
            "<｜tool▁sep｜>",
            "function",
            "```json\n",
            "```",
            "func",
            "<",
            "[",
            "]",
            "{",
            "}",
            ";",
            ",",
        ),
        *(
            '{"name": "f", "arguments": {}}',
            '{"name": "f", "parameters": {"a": "}"}}',
            '{"name": "g", "arguments": {}}',
        ),
        *(
            '{"name": "f"}',
            '{"age": 1}',
            '{"a": 1}',
            "{}",
            '"',
            "\\",
            ":",
            "name",
            "f",
            "1",
            "Hello",
            "é",
            " ",
            "\n",
            "\u3000",
        ),
    ]
)


def parse(form: ToolFormat, pieces: list[str], *, forced: str = "") -> list[ToolEvent]:
    """All events, texts that follow each other joined."""
    parser = ToolParser(form, TOOLS, forced=forced)
    joined: list[ToolEvent] = []
    for event in [*(event for piece in pieces for event in parser.feed(piece)), *parser.flush()]:
        if joined and isinstance(event, PlainText) and isinstance(last := joined[-1], PlainText):
            joined[-1] = PlainText(last.text + event.text)
        else:
            joined.append(event)
    return joined


def written(events: list[ToolEvent]) -> list[str]:
    return [event.text if isinstance(event, PlainText) else event.source for event in events]


@st.composite
def cut_texts(draw: st.DrawFn) -> list[str]:
    """A text in pieces, empty ones too."""
    text = "".join(draw(st.lists(PIECES, max_size=14)))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=10)))
    return [text[start:end] for start, end in itertools.pairwise([0, *cuts, len(text)])]


@given(st.sampled_from(FORMATS), cut_texts())
def test_any_cutting_gives_what_the_whole_text_gives(form: ToolFormat, pieces: list[str]) -> None:
    text = "".join(pieces)
    events = parse(form, [text])
    assert parse(form, pieces) == events
    assert parse(form, list(text)) == events


@given(st.sampled_from(FORMATS), cut_texts(), st.sampled_from([None, "f"]), st.booleans())
def test_no_text_is_lost_but_white_space_around_calls(
    form: ToolFormat,
    pieces: list[str],
    name: str | None,
    is_forced: bool,  # noqa: FBT001 - drawn
) -> None:
    forced = forced_start(form, name) if is_forced else ""
    rest = forced + "".join(pieces)
    before: ToolEvent | None = None
    for event in parse(form, pieces, forced=forced):
        [text] = written([event])
        if not rest.startswith(text):
            assert isinstance(event, Called) or isinstance(before, Called), "no call is near"
            rest = rest.lstrip()
        assert rest.startswith(text)
        rest = rest[len(text) :]
        before = event
    assert rest == "" or (isinstance(before, Called) and rest.isspace())


@given(st.sampled_from(FORMATS), cut_texts())
def test_what_comes_out_is_never_taken_back(form: ToolFormat, pieces: list[str]) -> None:
    whole = parse(form, pieces)
    for count in range(len(pieces)):
        parser = ToolParser(form, TOOLS)
        events = [event for piece in pieces[:count] for event in parser.feed(piece)]
        calls = [event for event in events if not isinstance(event, PlainText)]
        assert calls == [event for event in whole if not isinstance(event, PlainText)][: len(calls)]
        assert "".join(written(whole)).startswith("".join(written(events)))


@given(st.sampled_from(FORMATS), st.text("abc .,;:\n<[]>|", max_size=30))
def test_text_without_a_marker_passes_at_once(form: ToolFormat, text: str) -> None:
    assert parse(form, [text]) == ([PlainText(text)] if text else [])
    parser = ToolParser(form, TOOLS)
    seen = ""
    for end, char in enumerate(text, 1):
        seen += "".join(written(parser.feed(char)))
        held = text[len(seen) : end].strip()
        if form == "llama3":
            held = held.removeprefix(";").strip()
        assert held in {"", "<", "<|", "["}, "white space and the beginning of a marker alone are held back"


@pytest.mark.parametrize("form", FORMATS)
def test_pieces_leave_as_early_as_they_can(form: ToolFormat) -> None:
    parser = ToolParser(form, TOOLS)
    pieces = ["One", " ", "and", " a <", "b>", "\n"]
    texts = [
        ["One"],
        [],
        [" and"],
        [" a"] if form != "mistral" else [" a <"],
        [" <b>"] if form != "mistral" else ["b>"],
        [],
    ]
    assert [written(parser.feed(piece)) for piece in pieces] == texts
    assert written(parser.flush()) == ["\n"]
    assert parser.flush() == []


def test_calls_leave_when_they_are_complete() -> None:
    parser = ToolParser("mistral", TOOLS)
    one = '{"name": "f", "arguments": {}}'
    assert parser.feed(f"Well [TOOL_CALLS] [{one}") == [PlainText("Well")]
    assert parser.feed(", ") == [Called("f", "{}", f"[TOOL_CALLS] [{one},")]
    assert parser.feed(one) == []
    assert parser.feed("]") == [Called("f", "{}", f"{one}]")]
    assert parser.feed("[TOOL_CALLS]f[ARGS]{}") == [Called("f", "{}", "[TOOL_CALLS]f[ARGS]{}")]
    assert parser.flush() == []


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("hermes", "Qwen writes <tool_call> and </tool_call> around its calls."),
        ("hermes", "`<tool_call>`"),
        ("hermes", "<tool_call>\nget_weather()\n</tool_call>"),
        ("hermes", "<tool_call> <tool_cal> < tool_call>"),
        ("hermes", '{"name": "f", "arguments": {}}'),
        ("llama3", 'Sure: {"name": "f", "parameters": {}}'),
        ("llama3", '{"answer": {"name": "f", "parameters": {}}}'),
        ("llama3", '{"name": "Bob", "age": 3}'),
        ("llama3", '{"name": "Bob"}'),
        ("llama3", '{"parameters": {}}'),
        ("llama3", '{"na\\u006de": "f", "parameters": {}}'),
        ("llama3", '{"name": "Bo'),
        ("llama3", "{} {x}"),
        ("llama3", "{% if x %}"),
        ("llama3", "; then"),
        ("llama3", "<|pyth"),
        ("llama3", '<|python_tag|>print("x")'),
        ("llama3", '[{"name": "f", "parameters": {}}]'),
        ("mistral", "The marker [TOOL_CALLS] comes first, then [ARGS]."),
        ("mistral", "[TOOL_CALLS] []"),
        ("mistral", "[TOOL_CALLS] [1]"),
        ("mistral", "[TOOL_CALLS][TOOL_CALLS]!"),
        ("deepseek", "<｜tool▁calls▁begin｜> begins calls, <｜tool▁call▁begin｜> one of them."),
        ("deepseek", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f and so on"),
        ("deepseek", "<｜tool▁call▁begin｜>f {}"),
        ("phi", "Use functools.partial, or functools[0], and functools"),
        ("phi", "<|tool_call|> <|tool_call|>[]<|/tool_call|>."),
    ],
)
def test_what_only_looks_like_a_call_is_text(form: ToolFormat, text: str) -> None:
    assert parse(form, [text]) == [PlainText(text)]
    assert parse(form, list(text)) == [PlainText(text)]


NOT_JSON, NOT_CLOSED = "The call is not valid JSON.", "The call is followed by something else than its end."


@pytest.mark.parametrize(
    ("form", "source", "behind", "reason"),
    [
        ("hermes", "<tool_call>{", "'name': 'f'}</tool_call>", NOT_JSON),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": ...', "}}</tool_call>", NOT_JSON),
        ("hermes", '<tool_call>{"name": "f", "arguments": {}}', "}\n</tool_call>", NOT_CLOSED),
        ("hermes", '<tool_call>{"name": "f", "arguments": {}}', "\nis a call", NOT_CLOSED),
        ("hermes", '<tool_call>{"name": "f", "arguments": []}</tool_call>', "", "The arguments are no JSON object."),
        ("hermes", '<tool_call>{"name": "f", "arguments": "{}"}</tool_call>', "", "The arguments are no JSON object."),
        ("hermes", '<tool_call>{"name": "f"}</tool_call>', "", "The call has no arguments."),
        ("hermes", '<tool_call>{"arguments": {}}</tool_call>', "", "The call names no function."),
        ("hermes", '<tool_call>{"name": 1, "arguments": {}}</tool_call>', "", "The name of the function is no text."),
        (
            "hermes",
            '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>',
            "",
            "The call cannot be read as JSON.",
        ),
        (
            "hermes",
            '<tool_call>{"name": "\ud800", "arguments": {}}</tool_call>',
            "",
            "The call cannot be read as JSON.",
        ),
        ("mistral", '[TOOL_CALLS]f{"a": "\ud800"}', "", "The arguments are no JSON object."),
        ("mistral", '[TOOL_CALLS]f{"a": 1e999}', "", "The arguments are no JSON object."),
        ("hermes", '<tool_call>{"name": "", "arguments": {}}</tool_call>', "", "The call names no function."),
        ("hermes", '<tool_call>{"name": "F", "arguments": {}}</tool_call>', "", "There is no function 'F'."),
        ("llama3", '{"name": "f", "parameters": {', "a}", NOT_JSON),
        ("llama3", '<|python_tag|>{"age": 1}', "", "The call names no function."),
        ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {}}', ")", NOT_CLOSED),
        ("mistral", "[TOOL_CALLS]f{", "x}", NOT_JSON),
        ("deepseek", "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{}", " or so", NOT_CLOSED),
        (
            "phi",
            '<|tool_call|>[{"name": "f", "arguments": null}]<|/tool_call|>',
            "",
            "The arguments are no JSON object.",
        ),
    ],
)
def test_why_a_call_is_none(form: ToolFormat, source: str, behind: str, reason: str) -> None:
    behind_it: list[ToolEvent] = [PlainText(behind)] if behind else []
    assert parse(form, [source + behind]) == [NotACall(source, reason), *behind_it]
    assert parse(form, list(source + behind)) == [NotACall(source, reason), *behind_it]


def test_white_space_around_what_is_no_call_stays() -> None:
    text = f'Look:\n\n<tool_call> {{"name": "g", "arguments": {{}}}}\n</tool_call>\n\n{CALL}\n'
    source = '<tool_call> {"name": "g", "arguments": {}}\n</tool_call>'
    broken = NotACall(source, "There is no function 'g'.")
    assert parse("hermes", [text]) == [PlainText("Look:\n\n"), broken, Called("f", "{}", CALL)]
    assert parse("hermes", [f" \n{source}\n."]) == [PlainText(" \n"), broken, PlainText("\n.")]
    assert parse("hermes", [f"{CALL}\n{source}\n."]) == [Called("f", "{}", CALL), broken, PlainText("\n.")]


def test_a_marker_that_is_written_twice_is_text_once() -> None:
    assert parse("hermes", [f"<tool_call>\n{CALL}"]) == [PlainText("<tool_call>"), Called("f", "{}", CALL)]
    assert parse("mistral", ["[TOOL_CALLS][TOOL_CALLS]f{}"]) == [
        PlainText("[TOOL_CALLS]"),
        Called("f", "{}", "[TOOL_CALLS]f{}"),
    ]


def test_a_call_behind_a_broken_one_is_found() -> None:
    text = f"<tool_call>{{oh <tool_call>\n{CALL}"
    expected = [NotACall("<tool_call>{", NOT_JSON), PlainText("oh <tool_call>"), Called("f", "{}", CALL)]
    assert parse("hermes", [text]) == expected
    assert parse("hermes", list(text)) == expected


def test_an_object_that_is_no_call_leaves_as_soon_as_that_is_certain() -> None:
    parser = ToolParser("llama3", TOOLS)
    assert parser.feed(' {"name": "f", "ag') == []
    assert parser.feed('e"') == [PlainText(' {"name": "f", "age"')]
    assert parser.feed(': {"a": "b"') == [PlainText(': {"a": "b"')]


def test_behind_calls_without_markers_others_may_follow_but_not_behind_text() -> None:
    call = '{"name": "f", "parameters": {}}'
    called = Called("f", "{}", call)
    again = Called("f", "{}", f"; {call}")
    assert parse("llama3", [f"{call}\n\n{call}; {call}"]) == [called, called, again]
    assert parse("llama3", [f"{call} {{}} {call}"]) == [called, PlainText(f"{{}} {call}")]
    assert parse("llama3", [f"{call};"]) == [called, PlainText(";")]
    assert parse("llama3", [f"{call} and {call}"]) == [called, PlainText(f"and {call}")]
    assert parse("llama3", [f"and <|python_tag|>{call};{call}"]) == [
        PlainText("and"),
        Called("f", "{}", f"<|python_tag|>{call}"),
        Called("f", "{}", f";{call}"),
    ]


@pytest.mark.parametrize("name", [None, "f", "größe/2"])
@pytest.mark.parametrize("form", FORMATS)
def test_a_call_that_was_begun_for_the_model_is_one(form: ToolFormat, name: str | None) -> None:
    forced = forced_start(form, name)
    rest = {
        "hermes": ' {"a": 1}}\n</tool_call>',
        "llama3": ' {"a": 1}}',
        "mistral": ' {"a": 1}}]',
        "deepseek": '{"a": 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        "phi": ' {"a": 1}}]<|/tool_call|>',
    }[form]
    if name is None:
        whole = forced_start(form, "f")
        assert whole.startswith(forced)
        rest = whole[len(forced) :] + rest
    expected = [Called(name or "f", '{"a": 1}', forced + rest)]
    assert parse(form, [rest], forced=forced) == expected
    assert parse(form, list(rest), forced=forced) == expected


@pytest.mark.parametrize("name", [None, "f"])
@pytest.mark.parametrize("form", FORMATS)
def test_a_forced_call_that_the_model_does_not_write_is_none(form: ToolFormat, name: str | None) -> None:
    forced = forced_start(form, name)
    assert parse(form, [], forced=forced) == [NotACall(forced.strip(), "The text ends inside the call.")] + (
        [PlainText("\n")] if forced.endswith("\n") else []
    )


def test_a_forced_object_with_other_keys_is_told_not_only_shown() -> None:
    assert parse("llama3", ['Bob", "age": 3}'], forced='{"name": "') == [
        NotACall('{"name": "Bob", "age": 3}', "The call has no arguments.")
    ]


@pytest.mark.parametrize(
    ("begin", "middle", "end"),
    [
        ('<tool_call>{"name": "f", "arguments": {"a": "', "x\\n", '"}}</tool_call>'),
        ('<tool_call>{"name": "f", "arguments": {"a": [', "1,", "1]}}</tool_call>"),
        ('<tool_call>{"name": "f", "arguments": {}', " ", "}</tool_call>"),
        ('<tool_call>{"name": "f", "arguments": {}}', "\n", "</tool_call>"),
        ("<tool_call>", " ", CALL.removeprefix("<tool_call>")),
        ("", " ", CALL),
        ("", "<tool_", CALL),
        ("", "<tool_call>", CALL),
    ],
)
def test_no_text_waits_to_be_looked_at_again(begin: str, middle: str, end: str) -> None:
    parser = ToolParser("hermes", TOOLS)
    events = []
    for char in begin + middle * 300 + end:
        events += parser.feed(char)
        assert len(parser._cursor._text) <= len("</tool_call>")
    assert [event.name for event in [*events, *parser.flush()] if isinstance(event, Called)] == ["f"]


@pytest.mark.slow
def test_a_megabyte_in_characters_is_no_matter() -> None:
    arguments = json.dumps({"a": "}\n" * 350_000})
    text = f'<tool_call>{{"name": "f", "arguments": {arguments}}}</tool_call>'
    assert parse("hermes", list(text)) == [Called("f", arguments, text)]


def test_a_reason_does_not_repeat_a_name_without_end() -> None:
    [event] = parse("mistral", [f"[TOOL_CALLS]{'x' * 1000}{{}}"])
    assert event == NotACall(f"[TOOL_CALLS]{'x' * 1000}{{}}", f"There is no function '{'x' * 80}'.")
