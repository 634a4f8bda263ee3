from __future__ import annotations

import json
import re
import subprocess
import sys

import msgspec
import pytest

from exo.chat import ChatTemplate
from exo.types import InvalidRequest, Message, ModelLoadError, RunFailed, ToolCall

CHATML = """
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
HELLO = (Message(role="system", content="Be brief."), Message(role="user", content=" Hi <b> & 'you' \n"))
CALLS = (
    Message(role="user", content="Weather?"),
    Message(
        role="assistant",
        content="",
        reasoning="I look.",
        tool_calls=(ToolCall(id="c1", name="weather", arguments='{"city": "Köln <b>", "days": 2}'),),
    ),
    Message(role="tool", content="rain", tool_call_id="c1"),
)


def show(expression: str, messages: tuple[Message, ...] = HELLO) -> str:
    return ChatTemplate("{{ " + expression + " }}").render(messages)


def test_a_conversation_is_rendered() -> None:
    template = ChatTemplate(CHATML)
    expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi <b> & 'you'<|im_end|>\n"
    assert template.render(HELLO) == expected + "<|im_start|>assistant\n"
    assert template.render(HELLO, add_generation_prompt=False) == expected


def test_blanks_around_blocks_go_as_everywhere_in_the_field() -> None:
    assert ChatTemplate("a\n  {% if true %}\nb\n  {% endif %}\nc").render(()) == "a\nb\nc"


def test_special_texts_and_extra_variables_have_names() -> None:
    template = ChatTemplate(
        "{{ bos_token }}{{ enable_thinking }}{{ eos_token is defined }}", special={"bos_token": "<s>"}
    )
    assert template.render((), enable_thinking=False) == "<s>FalseFalse"


def test_what_a_message_is_for_a_template() -> None:
    messages = [json.loads(line) for line in show("messages | map('tojson') | join('\\n')", CALLS).splitlines()]
    arguments = {"city": "Köln <b>", "days": 2}
    assert messages == [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "I look.",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": arguments}}],
        },
        {"role": "tool", "content": "rain", "tool_call_id": "c1", "name": "weather"},
    ]


@pytest.mark.parametrize(
    "arguments", ["[1]", "not json", "", '"text"', '{"a": "\\ud800"}', "{" * 10_000, '{"a":' * 10_000]
)
def test_arguments_that_are_no_object_stay_text(arguments: str) -> None:
    calls = (ToolCall(id="c", name="f", arguments=arguments),)
    messages = (Message(role="assistant", content="", tool_calls=calls),)
    text = show("messages[0].tool_calls[0].function.name + messages[0].tool_calls[0].function.arguments", messages)
    assert text == "f" + arguments


def test_json_is_not_escaped_for_html() -> None:
    assert show("messages[1].content | tojson") == "\" Hi <b> & 'you' \\n\""
    assert show("{'ä': [1]} | tojson(indent=1)") == '{\n "ä": [\n  1\n ]\n}'


@pytest.mark.parametrize(
    "source",
    [  # arguments as text; content that has to be none beside calls; both; content that has to be there
        "{% for call in messages[1].tool_calls %}{{ call.function.name + ' ' + call.function.arguments }}{% endfor %}",
        "{% if messages[1].content is none %}{{ messages[1].tool_calls[0].function.name }}{% endif %}",
        "{% set f = messages[1].tool_calls[0].function %}{{ f.name + f.arguments if messages[1].content is none }}",
        "{{ messages[1].content + messages[1].tool_calls[0].function.name }}",
    ],
)
def test_templates_get_tool_calls_in_the_shape_that_they_take(source: str) -> None:
    assert "weather" in ChatTemplate(source).render(CALLS)


CALLS_WITHOUT_CONTENT = """
{%- for message in messages %}
    {%- if message.content is not none %}
        {{- message.role + ': ' + message.content + '\\n' }}
    {%- else %}
        {%- for call in message.tool_calls %}
            {{- call.function.name + ' ' + call.function.arguments + '\\n' }}
        {%- endfor %}
    {%- endif %}
{%- endfor %}"""
CALLS_WITH_BARE_ARGUMENTS = (
    "{% for m in messages %}{% for call in m.tool_calls or [] %}"
    "{{ call.function.name }} {{ call.function.arguments }}{% endfor %}{% endfor %}"
)


def test_a_call_is_not_left_out_because_the_question_names_the_function() -> None:
    question, *others = CALLS
    named = (msgspec.structs.replace(question, content="Call weather."), *others)
    text = ChatTemplate(CALLS_WITHOUT_CONTENT).render(named)
    assert text == 'user: Call weather.\nweather {"city": "Köln <b>", "days": 2}\ntool: rain\n'


def test_arguments_are_json_for_a_template_that_writes_them_as_they_are() -> None:
    assert ChatTemplate(CALLS_WITH_BARE_ARGUMENTS).render(CALLS) == 'weather {"city": "Köln <b>", "days": 2}'


def test_a_template_that_knows_no_tool_calls_renders_all_the_same() -> None:
    assert ChatTemplate("{{ messages[0].content }}").render(CALLS) == "Weather?"


def test_loops_can_be_left_and_training_marks_have_no_effect() -> None:
    shown = "{% generation %}{{ i }}{% endgeneration %}"
    source = "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}" + shown + "{% endfor %}"
    assert ChatTemplate(source).render(()) == "01"


def test_the_date() -> None:
    assert re.fullmatch(r"20\d\d-\d\d", show("strftime_now('%Y-%m')"))


def test_a_template_may_refuse_the_messages() -> None:
    with pytest.raises(InvalidRequest, match=r"refuses these messages: roles must alternate") as caught:
        show("raise_exception('roles must alternate')")
    assert caught.value.param == "messages"


def test_a_source_that_is_no_template_says_where_it_is_broken() -> None:
    with pytest.raises(ModelLoadError, match=r"^model/x is not one .*line 2.*endif"):
        ChatTemplate("{% if a %}\n{% endfor %}", name="model/x")
    with pytest.raises(ModelLoadError, match="nofilter"):
        ChatTemplate("{{ a | nofilter }}")
    with pytest.raises(ModelLoadError, match="nested"):
        ChatTemplate("{% for i in a %}" * 30 + "{% endfor %}" * 30)


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("messages[0].nothing.more", "nothing"),
        ("1 // 0", "ZeroDivisionError"),
        ("'' + 1", "TypeError"),
        ("''.__class__.__mro__", "unsafe"),
        ("messages.append(1)", "unsafe|not safely callable"),
        ("[].__class__.__base__.__subclasses__()", "unsafe"),
        ("range(10000000)", "counts to more than"),
        ("'x' * 100000000", "100000000 characters"),
        ("100000000 * [1]", "100000000 characters"),
        ("(('x' * 10000000) + ('x' * 10000000)) | length", "20000000 characters"),
        ("9 ** 99999", "4096 bits"),
        ("'x'.ljust(1000000000)", "width"),
        ("'x' | center(1000000000)", "width"),
        ("'x' | center(width=1000000000)", "width"),
        ("lipsum(n=1000000)", "lipsum"),
    ],
)
def test_what_a_template_may_not_do_is_named(expression: str, problem: str) -> None:
    with pytest.raises(RunFailed, match=problem):
        show(expression)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
        "{% for a in range(20) %}{{ 'x' * 1000000 }}{% endfor %}",
        "{% macro f(s) %}{{ f(s) }}{% endmacro %}{{ f('x') }}",
    ],
)
def test_endless_work_ends_with_an_error(source: str) -> None:
    with pytest.raises(RunFailed):
        ChatTemplate(source).render(HELLO)


def test_a_message_cannot_be_a_template() -> None:
    assert show("messages[0].content", (Message(role="user", content="{{ 1 + 1 }}"),)) == "{{ 1 + 1 }}"


def test_jinja2_is_not_loaded_before_a_template_is() -> None:
    program = "import sys, exo.chat; assert 'jinja2' not in sys.modules; exo.chat.ChatTemplate(''); import jinja2"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
