"""Which format a template's model knows. The templates are short ones, made as those of the models are."""

# ruff: noqa: RUF001 - the bars in the tokens of DeepSeek are full-width ones

from __future__ import annotations

from typing import get_args

import pytest

from exo.chat import ChatTemplate, GoTemplate, special_texts, tool_format_of, tools_as_json
from exo.types import Message, Tool, ToolFormat

QWEN = """
{%- if tools %}
    {{- '<|im_start|>system\\n# Tools\\n\\n<tools>' }}
    {%- for tool in tools %}{{- tool | tojson }}{%- endfor %}
    {{- '</tools>\\nAnswer <tool_call>\\n{"name": <function-name>, "arguments": <args>}\\n</tool_call><|im_end|>' }}
{%- endif %}
{%- for message in messages %}{{- message.content }}{%- endfor %}"""
LLAMA = """
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if tools is not none %}
    {{- 'Answer in the format {"name": function name, "parameters": dictionary of argument name and its value}.' }}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{%- endfor %}
{%- endif %}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] + '<|eot_id|>' }}
{%- endfor %}"""
MISTRAL = """
{%- for message in messages %}
    {%- if tools is not none %}{{- "[AVAILABLE_TOOLS] " + tools | tojson + "[/AVAILABLE_TOOLS]" }}{%- endif %}
    {%- if message.tool_calls is defined %}{{- "[TOOL_CALLS] [" }}{%- endif %}
    {{- "[INST]" + message.content + "[/INST]" }}
{%- endfor %}"""
PHI = """
{%- for message in messages %}
    {{- '<|' + message.role + '|>' + message.content }}
    {%- if tools and message.role == 'system' %}
        {{- 'Calls are one list: functools[{"name": ..., "arguments": ...}]' }}
        {%- for tool in tools %}{{- '<|tool|>' + tool.function | tojson + '<|/tool|>' }}{%- endfor %}
    {%- endif %}
{%- endfor %}"""
DEEPSEEK = """
{%- if tools %}{{- tools | tojson }}{%- endif %}
{%- for message in messages %}
    {{- '<｜User｜>' + message.content }}
    {%- for call in message.tool_calls or [] %}
        {{- '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + call.function.name + '<｜tool▁sep｜>' }}
    {%- endfor %}
{%- endfor %}"""
GO_QWEN = """{{ if .Tools }}<tools>{{ range $.Tools }}{{ . }}{{ end }}</tools>
For each call: <tool_call>{"name": <function-name>, "arguments": <args-json-object>}</tool_call>{{ end }}
{{- range .Messages }}{{ .Content }}{{ end }}"""
GO_LLAMA = """{{ range .Messages }}{{ if $.Tools }}{{ $.Tools }}{{ end }}{{ .Content }}
{{- range .ToolCalls }}{"name": "{{ .Function.Name }}", "parameters": {{ .Function.Arguments }}}{{ end }}{{ end }}"""
GO_MISTRAL = """{{ range .Messages }}[AVAILABLE_TOOLS] {{ $.Tools }}[/AVAILABLE_TOOLS][INST] {{ .Content }}[/INST]
{{- range .ToolCalls }}[TOOL_CALLS] [{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}]{{ end }}
{{- end }}"""
GO_PHI = """{{ if .Tools }}<|tool|>{{ .Tools }}<|/tool|>{{ end }}
{{- range .Messages }}{{ .Content }}{{ if .ToolCalls }}<|tool_call|>[]<|/tool_call|>{{ end }}{{ end }}"""


@pytest.mark.parametrize(
    ("form", "source"),
    [("hermes", QWEN), ("llama3", LLAMA), ("mistral", MISTRAL), ("phi", PHI), ("deepseek", DEEPSEEK)],
)
def test_the_format_of_a_template_in_jinja(form: ToolFormat, source: str) -> None:
    assert tool_format_of(source) == form
    tools = tools_as_json([Tool(name="weather")])
    prompt = ChatTemplate(source).render([Message(role="system", content="Hi")], tools=tools)
    assert '"weather"' in prompt, "it is a template that tells of tools"


@pytest.mark.parametrize(
    ("form", "source"), [("hermes", GO_QWEN), ("llama3", GO_LLAMA), ("mistral", GO_MISTRAL), ("phi", GO_PHI)]
)
def test_the_format_of_a_template_in_go(form: ToolFormat, source: str) -> None:
    assert tool_format_of(source) == form
    tools = tools_as_json([Tool(name="weather")])
    assert '"weather"' in GoTemplate(source).render([Message(role="user", content="Hi")], tools=tools)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "{% for message in messages %}{{ message.content }}{% endfor %}",
        "{{ .System }}{{ .Prompt }}",
        "<tool_call> tools {{ messages }}",
        "{{ '<tool_call> for the tools' + messages[0].content }}",
        '{{ "a \\" tools <tool_call>" }}',
        "{# tools #}{{ '<tool_call>' }}",
        "{{/* .Tools */}}<tool_call>{{ .Prompt }}",
        "{{- `.Tools` }}<tool_call>",
        # these write calls that are in history, and tools that are in messages, but nothing of the variable
        "{% for call in message.tool_calls %}<tool_call>{% endfor %}",
        "{{ '<|tool|>' + message['tools'] + '<|/tool|><|tool_call|>' }}",
        "{% if message.tools %}[TOOL_CALLS]{% endif %}",
        DEEPSEEK.replace("{%- if tools %}{{- tools | tojson }}{%- endif %}", ""),
        "{{ range .ToolCalls }}<tool_call>{{ end }}",
        "{{ 'an action that never ends: <tool_call>",
        "{% set custom_tools = [] %}<tool_call>",
    ],
)
def test_a_template_that_knows_no_tools_has_no_format(source: str) -> None:
    assert tool_format_of(source) is None


@pytest.mark.parametrize(
    "source",
    [
        "{{ tools | tojson }}",
        "{% if tools %}<tool_call>\n<function=name>\n<parameter=city>\nRome\n</parameter></tool_call>{% endif %}",
        "{% if tools %}<tool_call>name\n<arg_key>city</arg_key></tool_call>{% endif %}",
        '{% for tool in tools %}{"name": "x", "description": "y", "parameters": {}}{% endfor %}',
        "{{ .Tools }}<|tool_calls_section_begin|>",
    ],
)
def test_a_template_whose_calls_cannot_be_read_has_no_format(source: str) -> None:
    assert tool_format_of(source) is None


def test_a_format_is_known_by_its_own_markers_where_others_are_in_the_template_too() -> None:
    assert tool_format_of(QWEN + '{{ \'schemas: {"name": 1, "parameters": 2}\' }}') == "hermes"
    assert tool_format_of(LLAMA.replace("Answer", "<|python_tag|>")) == "llama3"
    assert tool_format_of(LLAMA.replace('"parameters"', '\\"parameters\\"').replace('"name"', '\\"name\\"')) == "llama3"


@pytest.mark.parametrize("piece", ["{{", "{%", "{#", "{", "{{'", "{{\\'", '{{"\\', "{{`", '{{"}}', '{"name": '])
def test_no_source_takes_long(piece: str) -> None:
    """One that has much of it looked at again and again would need hours."""
    assert tool_format_of(piece * 100_000) is None
    assert tool_format_of(f"{{{{ {piece * 100_000} }}}}") is None


def test_special_texts_are_the_markers() -> None:
    assert {form: special_texts(form) for form in get_args(ToolFormat)} == {
        "hermes": ("<tool_call>", "</tool_call>"),
        "llama3": ("<|python_tag|>",),
        "mistral": ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
        "deepseek": (
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁calls▁end｜>",
            "<｜tool▁call▁begin｜>",
            "<｜tool▁call▁end｜>",
            "<｜tool▁sep｜>",
        ),
        "phi": ("<|tool_call|>", "<|/tool_call|>"),
    }
