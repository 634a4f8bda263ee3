from __future__ import annotations

import json

import pytest

from exo.chat import Called, ToolParser, tools_as_json, with_tools_in_prompt
from exo.types import Message, Tool, ToolCall, ToolChoice

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = Tool(name="weather", description="The weather in a {city}", parameters=SCHEMA)
CLOCK = Tool(name="clock")
AUTO = ToolChoice()

QUESTION = Message(role="user", content="How is the weather?")
CALLS = Message(
    role="assistant",
    content="One moment.",
    reasoning="Rome, then.",
    tool_calls=(
        ToolCall(id="1", name="weather", arguments='{"city":  "Rom\\u00e9"}'),
        ToolCall(id="2", name="clock", arguments="{}"),
    ),
)
RESULTS = (
    Message(role="tool", content="sunny", tool_call_id="1"),
    Message(role="tool", content="noon", tool_call_id="2"),
)


def test_tools_have_the_shape_that_templates_take() -> None:
    assert tools_as_json([WEATHER, CLOCK]) == [
        {
            "type": "function",
            "function": {"name": "weather", "description": "The weather in a {city}", "parameters": SCHEMA},
        },
        {
            "type": "function",
            "function": {"name": "clock", "description": "", "parameters": {"type": "object", "properties": {}}},
        },
    ]


def test_the_tools_become_a_system_message() -> None:
    told, *rest = with_tools_in_prompt([QUESTION], [WEATHER, CLOCK], AUTO)
    assert rest == [QUESTION]
    assert told.role == "system"
    lines = told.content.partition("\n<tools>\n")[2].partition("\n</tools>\n")[0].splitlines()
    assert [json.loads(line) for line in lines] == tools_as_json([WEATHER, CLOCK])
    assert '<tool_call>\n{"name": "NAME", "arguments": {...}}\n</tool_call>' in told.content
    assert told.content.endswith("If no function helps, answer in words.")


def test_the_tools_stand_before_the_text_of_the_system_message() -> None:
    system = Message(role="system", content="You are terse.")
    [alone] = with_tools_in_prompt([], [WEATHER], AUTO)
    told, *rest = with_tools_in_prompt([system, QUESTION, system], [WEATHER], AUTO)
    assert told == Message(role="system", content=f"{alone.content}\n\nYou are terse.")
    assert rest == [QUESTION, system]


@pytest.mark.parametrize(
    ("choice", "order"),
    [
        (AUTO, "If no function helps, answer in words."),
        (ToolChoice(mode="required"), "Your answer has to be a call."),
        (ToolChoice(mode="required", name="clock"), "Your answer has to be a call of clock."),
    ],
)
def test_the_choice_is_told(choice: ToolChoice, order: str) -> None:
    told, _ = with_tools_in_prompt([QUESTION], [WEATHER, CLOCK], choice)
    assert told.content.endswith(f"</tool_response>. {order}")


@pytest.mark.parametrize(("tools", "choice"), [([], AUTO), ([WEATHER], ToolChoice(mode="none"))])
def test_without_tools_to_call_only_the_history_is_written_as_text(tools: list[Tool], choice: ToolChoice) -> None:
    assert with_tools_in_prompt([QUESTION], tools, choice) == (QUESTION,)
    made = with_tools_in_prompt([QUESTION, CALLS, *RESULTS], tools, choice)
    assert [message.role for message in made] == ["user", "assistant", "user"]
    assert "<tool_call>" in made[1].content


def test_calls_and_results_become_text() -> None:
    thanks = Message(role="user", content="<tool_response>Thanks</tool_response>")
    made = with_tools_in_prompt([QUESTION, CALLS, *RESULTS, thanks], [WEATHER], AUTO)
    assert made[1:] == (
        QUESTION,
        Message(
            role="assistant",
            reasoning="Rome, then.",
            content="One moment.\n"
            '<tool_call>\n{"name": "weather", "arguments": {"city":  "Rom\\u00e9"}}\n</tool_call>\n'
            '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>',
        ),
        Message(
            role="user",
            content="<tool_response>\nsunny\n</tool_response>\n<tool_response>\nnoon\n</tool_response>",
        ),
        thanks,
    )


def test_results_that_something_stands_between_stay_apart() -> None:
    one, other = RESULTS
    made = with_tools_in_prompt([one, CALLS, other], [], AUTO)
    assert [message.content.count("<tool_response>") for message in made] == [1, 0, 1]


@pytest.mark.parametrize(
    ("arguments", "written"), [("", "{}"), (" \n", "{}"), ("[1]", '"[1]"'), ('oh "no', '"oh \\"no"'), ("é", '"é"')]
)
def test_arguments_that_are_no_object_do_not_break_the_history(arguments: str, written: str) -> None:
    message = Message(role="assistant", content="", tool_calls=(ToolCall(id="1", name='a"b', arguments=arguments),))
    [made] = with_tools_in_prompt([message], [], AUTO)
    assert made.content == f'<tool_call>\n{{"name": "a\\"b", "arguments": {written}}}\n</tool_call>'


def test_what_stands_in_the_history_is_what_the_parser_reads() -> None:
    [made] = with_tools_in_prompt([CALLS], [], AUTO)
    parser = ToolParser("hermes", [WEATHER, CLOCK])
    calls = [event for event in [*parser.feed(made.content), *parser.flush()] if isinstance(event, Called)]
    assert [(call.name, call.arguments) for call in calls] == [(one.name, one.arguments) for one in CALLS.tool_calls]
