# ruff: noqa: RUF001 - the bars in the tokens of DeepSeek are full-width ones

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest

from exo.chat import GoTemplate, Template
from exo.chat import go_run as run_module
from exo.types import Message, ModelLoadError, Role, RunFailed, ToolCall


def said(role: Role, content: str, *, tool_call_id: str | None = None) -> Message:
    return Message(role=role, content=content, tool_call_id=tool_call_id)


CHAT = (
    said("system", "Be brief."),
    said("user", "Hi"),
    said("assistant", "Hello"),
    said("user", "Bye"),
)
CALLS = (
    said("user", "Weather?"),
    Message(
        role="assistant",
        content="",
        reasoning="I look.",
        tool_calls=(
            ToolCall(id="c1", name="weather", arguments='{"city": "Köln <b>", "days": 2}'),
            ToolCall(id="c2", name="time", arguments="not json"),
        ),
    ),
    said("tool", "rain", tool_call_id="c1"),
    said("tool", "noon", tool_call_id="c2"),
)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tells it",
            "parameters": {
                "type": "object",
                "required": ["city"],
                "properties": {"days": {"type": "integer"}, "city": {"type": "string", "description": "where"}},
            },
        },
    }
]

CHATML = """{{ if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}{{ if .Prompt }}<|im_start|>user
{{ .Prompt }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ .Response }}<|im_end|>
"""
LLAMA2 = "[INST] {{ if .System }}<<SYS>>{{ .System }}<</SYS>>\n\n{{ end }}{{ .Prompt }} [/INST] {{ .Response }}</s>"
LLAMA3 = """
{{- range $i, $message := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 }}
{{- "" }}<|start_header_id|>{{ .Role }}<|end_header_id|>

{{ .Content }}
{{- if not (and $last (eq .Role "assistant")) }}<|eot_id|>{{ end }}
{{- if and $last (ne .Role "assistant") }}<|start_header_id|>assistant<|end_header_id|>

{{ end }}
{{- end }}"""
QWEN = """{{- if or .System .Tools }}<|im_start|>system
{{- if .System }}
{{ .System }}
{{- end }}
{{- if .Tools }}
<tools>
{{- range .Tools }}
{"type": "function", "function": {{ .Function }}}
{{- end }}
</tools>
{{- end }}<|im_end|>
{{ end }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
{{- if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ else if eq .Role "assistant" }}<|im_start|>assistant
{{ if .Content }}{{ .Content }}
{{- else if .ToolCalls }}<tool_call>
{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
{{ end }}</tool_call>
{{- end }}{{ if not $last }}<|im_end|>
{{ end }}
{{- else if eq .Role "tool" }}<|im_start|>user
<tool_response>
{{ .Content }}
</tool_response><|im_end|>
{{ end }}
{{- if and (ne .Role "assistant") $last }}<|im_start|>assistant
{{ if and $.IsThinkSet (not $.Think) }}<think>

</think>

{{ end }}{{ end }}
{{- end }}"""
DEEPSEEK = """{{- if .System }}{{ .System }}{{ end }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 }}
{{- if eq .Role "user" }}<｜User｜>{{ .Content }}
{{- else if eq .Role "assistant" }}<｜Assistant｜>{{ .Content }}{{ if not $last }}<｜end▁of▁sentence｜>{{ end }}
{{- end }}
{{- if and $last (ne .Role "assistant") }}<｜Assistant｜>{{ end }}
{{- end -}}
"""


def render(source: str, messages: Sequence[Message] = CHAT, **extra: Any) -> str:
    return GoTemplate(source).render(messages, **extra)


def show(action: str, messages: Sequence[Message] = CHAT, **extra: Any) -> str:
    """What an action gives in a template that is rendered once."""
    return render("{{ if .Messages }}{{ end }}" + action, messages, **extra)


def test_chatml_in_pairs_ends_where_the_answer_begins() -> None:
    turns = (("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"))
    answered = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    asked = "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    assert render(CHATML) == answered + asked
    assert GoTemplate(CHATML).render(CHAT, add_generation_prompt=False) == answered + asked + "<|im_end|>\n"
    assert GoTemplate(CHATML).render(CHAT[:3], add_generation_prompt=False) == answered


def test_an_unfinished_answer_is_gone_on_with() -> None:
    assert render("{{ .Prompt }}>{{ .Response }}</s>", CHAT[1:3]) == "Hi>Hello"


def test_llama_2() -> None:
    assert render(LLAMA2) == "[INST] <<SYS>>Be brief.<</SYS>>\n\nHi [/INST] Hello</s>[INST] Bye [/INST] "


def test_llama_3() -> None:
    def turn(role: str, content: str) -> str:
        return f"<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>"

    turns = [turn("system", "Be brief."), turn("user", "Hi"), turn("assistant", "Hello"), turn("user", "Bye")]
    assert render(LLAMA3) == "".join(turns) + "<|start_header_id|>assistant<|end_header_id|>\n\n"
    assert render(LLAMA3, CHAT[:3]) == "".join(turns[:3]).removesuffix("<|eot_id|>")


def test_qwen_with_tools() -> None:
    text = render(QWEN, (CHAT[0], *CALLS), tools=TOOLS)
    function = json.dumps(TOOLS[0]["function"], separators=(",", ":"))
    assert text == (
        "<|im_start|>system\nBe brief.\n<tools>\n"
        f'{{"type": "function", "function": {function}}}\n</tools><|im_end|>\n'
        "<|im_start|>user\nWeather?<|im_end|>\n<|im_start|>assistant\n<tool_call>\n"
        '{"name": "weather", "arguments": {"city":"Köln <b>","days":2}}\n'
        '{"name": "time", "arguments": not json}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\nrain\n</tool_response><|im_end|>\n"
        "<|im_start|>user\n<tool_response>\nnoon\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_whether_to_think_reaches_the_template() -> None:
    texts = [render(QWEN, CHAT[1:2], enable_thinking=wish) for wish in (None, True, False)]
    plain = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert texts == [plain, plain, plain + "<think>\n\n</think>\n\n"]


def test_deepseek() -> None:
    expected = "Be brief.<｜User｜>Hi<｜Assistant｜>Hello<｜end▁of▁sentence｜><｜User｜>Bye<｜Assistant｜>"
    assert render(DEEPSEEK) == expected


def test_a_template_without_response_gets_it_at_its_end() -> None:
    assert render("{{ .System }}|{{ .Prompt }}|") == "Be brief.|Hi|Hello|Bye|"
    assert GoTemplate("{{ .Prompt }}").source == "{{ .Prompt }}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ if .Response }}a{{ end }}b{{ .Response }}c", "b"),  # a condition is no output
        ("{{ if .Prompt }}{{ .Response }}x{{ else }}y{{ end }}z", ""),
        ("{{ if .System }}{{ .Response }}{{ else }}y{{ end }}z", ""),  # that branch is taken, and is behind it
        ("{{ if .System }}{{ .Response }}{{ else if .Prompt }}y{{ end }}z", ""),
        ("{{ with .Prompt }}{{ . }}{{ $.Response }}x{{ end }}z", "Bye"),
        ('{{ printf "%s." .Response }}x', "."),
        ("{{ range .Tools }}x{{ else }}{{ .Response }}y{{ end }}z", ""),
        ("a{{ if .Response }}b{{ end }}c", "ac"),
    ],
)
def test_what_stands_behind_the_response(source: str, expected: str) -> None:
    assert render(source, CHAT[3:]) == expected


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ((), "[||"),
        ((said("assistant", "a"), said("user", "b")), "[||a][|b|"),
        ((said("user", "a"), said("user", "b")), "[|a\n\nb|"),
        ((said("system", "s"), said("system", "t"), said("user", "a")), "[s\n\nt|a|"),
        ((said("user", "a"), said("system", "s"), said("user", "b")), "[|a|][s|b|"),
        ((said("user", "a"), said("assistant", "b"), said("system", "s")), "[|a|b][s||"),
        (CALLS, "[|Weather?|"),
    ],
)
def test_how_messages_become_pairs(messages: tuple[Message, ...], expected: str) -> None:
    assert render("[{{ .System }}|{{ .Prompt }}|{{ .Response }}]", messages) == expected


def test_messages_of_the_same_role_are_joined_but_not_those_of_tools() -> None:
    each = "{{ range .Messages }}({{ .Role }} {{ .Content }}){{ end }}"
    assert render(each, (said("user", "a"), said("user", "b"))) == "(user a\n\nb)"
    assert render(each, CALLS[2:]) == "(tool rain)(tool noon)"


def test_what_a_message_has() -> None:
    lines = render("{{ range .Messages }}{{ json . }}\n{{ end }}", CALLS).splitlines()
    arguments = {"city": "Köln <b>", "days": 2}
    weather = {"id": "c1", "function": {"index": 0, "name": "weather", "arguments": arguments}}
    clock = {"id": "c2", "function": {"index": 1, "name": "time", "arguments": "not json"}}
    assert list(map(json.loads, lines)) == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "thinking": "I look.", "tool_calls": [weather, clock]},
        {"role": "tool", "content": "rain", "tool_name": "weather", "tool_call_id": "c1"},
        {"role": "tool", "content": "noon", "tool_name": "time", "tool_call_id": "c2"},
    ]
    shown = "{{ .Thinking }}|{{ (index .ToolCalls 0).Function.Arguments }}|{{ .Images }}"
    assert (
        render(f"{{{{ with index .Messages 1 }}}}{shown}{{{{ end }}}}", CALLS)
        == 'I look.|{"city":"Köln <b>","days":2}|[]'
    )
    assert render("{{ with index .Messages 0 }}{{ .Thinking }}{{ len .ToolCalls }}{{ end }}", CALLS) == "0"


def test_what_a_tool_has() -> None:
    source = (
        "{{ range .Tools }}{{ .Type }} {{ .Function.Name }}: {{ .Function.Description }}{{ with .Function.Parameters }}"
        "{{ range $name, $one := .Properties }} {{ $name }}={{ $one.Type }}({{ $one.Description }}){{ end }}"
        " {{ .Required }}{{ end }}{{ end }}"
    )
    assert show(source, tools=TOOLS) == "function weather: Tells it city=string(where) days=integer() [city]"
    assert json.loads(show("{{ .Tools }}", tools=TOOLS)) == TOOLS
    assert show("{{ .Tools }}{{ if .Tools }}x{{ end }}") == "[]"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a \n{{- 1 -}}\n b", "a1b"),
        ("a {{ 1 }} b", "a 1 b"),
        ("a {{-1}} b", "a -1 b"),
        ("a{{/* no }} {{ */}}b {{- /* \n */ -}} c", "abc"),
        ('{{ `raw \\n "}}"` }}', 'raw \\n "}}"'),
        ('{{ "a\\tb\\"\\\\\\u00e4\\x41\\101}}" }}', 'a\tb"\\äAA}}'),
        ("{{ 'a' }}{{ '\\n' }}{{ 0x1F }}{{ 1_000 }}{{ 1.50 }}{{ 2.0 }}{{ 1e-7 }}{{ .5 }}", "97103110001.521e-070.5"),
        ("{{ true }}{{ false }}{{ +3 }}", "truefalse3"),
        ("{{ print nil }}", "<nil>"),
        ("{{\n.System\n}}", "Be brief."),
        ("{{ $.System }}{{ $x := .System }}{{ $x }}{{ (.System) }}", "Be brief." * 3),
        ("{{ if .Suffix }}a{{ else if .Prompt }}b{{ else if .System }}c{{ else }}d{{ end }}", "c"),
        ("{{ if 0 }}{{ else }}{{ if 0.0 }}{{ else }}{{ if .Tools }}{{ else }}x{{ end }}{{ end }}{{ end }}", "x"),
        (
            "{{ with .System }}{{ . }}{{ else }}b{{ end }}{{ with .Suffix }}a{{ else }}{{ .System }}{{ end }}",
            "Be brief." * 2,
        ),
        ("{{ with $s := .System }}{{ $s }}{{ end }}{{ if $s := .Suffix }}{{ else }}[{{ $s }}]{{ end }}", "Be brief.[]"),
        ("{{ with .Suffix }}a{{ else with .System }}{{ . }}{{ end }}", "Be brief."),
        ("{{ range .Messages }}{{ .Content }},{{ else }}none{{ end }}", "Be brief.,Hi,Hello,Bye,"),
        ("{{ range .Tools }}a{{ else }}none{{ end }}", "none"),
        ("{{ range $m := .Messages }}{{ $m.Role }} {{ end }}", "system user assistant user "),
        ("{{ range $i, $m := .Messages }}{{ $i }}{{ if eq $i 1 }}{{ break }}{{ end }},{{ end }}", "0,1"),
        ("{{ range $i, $_ := .Messages }}{{ if eq $i 1 }}{{ continue }}{{ end }}{{ $i }}{{ end }}", "023"),
        ("{{ $n := 0 }}{{ range $i, $_ := .Messages }}{{ $n = $i }}{{ end }}{{ $n }}", "3"),
        ("{{ $n := 0 }}{{ range .Messages }}{{ $n := 7 }}{{ end }}{{ $n }}", "0"),
        ("{{ $i := 9 }}{{ range $i, $_ = .Messages }}{{ end }}", None),
        ("{{ $i := 9 }}{{ $m := 9 }}{{ range $i, $m = .Messages }}{{ end }}{{ $i }}{{ $m.Role }}", "3user"),
        ("{{ range .Messages }}{{ range $.Messages }}{{ break }}{{ end }}x{{ end }}", "xxxx"),
        ("{{ eq .System `Be brief.` }}{{ eq 3 1 2 3 }}{{ ne 1 2 }}{{ eq true false }}", "truetruetruefalse"),
        ("{{ lt 1 2 }}{{ le 2 2 }}{{ gt 1 2 }}{{ ge 2 2 }}{{ lt `a` `b` }}", "truetruefalsetruetrue"),
        ("{{ and 1 0 2 }}{{ or 0 `` 3 }}{{ not 0 }}{{ and 1 2 }}{{ or 0 `` }}", "03true2"),
        ("{{ and 0 (index .Tools 5) }}{{ or 1 (index .Tools 5) }}", "01"),
        ("{{ len .Messages }}{{ len `äb` }}{{ .System | len }}", "439"),
        ("{{ (index .Messages 1).Content }}{{ index `a` 0 }}", "Hi97"),
        ("{{ slice .System 3 5 }}{{ slice .System 5 }}{{ len (slice .Messages 1 3) }}{{ slice `a` }}", "brief.2a"),
        ('{{ print "a" 1 2 "b" 3 true }}', "a1 2b3 true"),
        ('{{ printf "%s-%v-%d-%q-%%" "a" 1.5 2 "b\\"\\n" }}', 'a-1.5-2-"b\\"\\n"-%'),
        ('{{ .System | printf "%s%s" "x" | print 1 }}', "1xBe brief."),
        ("{{ json .System }}{{ json (slice .Messages 1 2) }}", '"Be brief."[{"role":"user","content":"Hi"}]'),
        ("{{ print print }}", ""),
        ("{{ . | len }}", "5"),
    ],
)
def test_constructs(source: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(ModelLoadError):
            GoTemplate(source)
    else:
        assert show(source) == expected


def test_a_newline_in_a_text_of_an_action_and_in_texts_counts_for_lines() -> None:
    with pytest.raises(ModelLoadError, match="line 7:"):
        GoTemplate("a\n{{ `\n`\n }}\n{{/*\n*/}}\n{{ nothing }}")


def test_the_date() -> None:
    assert re.fullmatch(r"20\d\d-\d\d-\d\d/20\d\d-\d\d-\d\d", show('{{ currentDate "x" }}/{{ yesterdayDate }}'))


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("a\n{{ .Nothing }}", r"line 2: there is no field \.Nothing"),
        ("{{ .system }}", r"no field \.system"),
        ("{{ range .Messages }}{{ .Function.Title }}{{ end }}", r"no field \.Title"),
        ("{{ nothing .System }}", r"line 1: there is no function nothing; there are and, currentDate, eq"),
        ("{{ $x }}", r"no variable \$x"),
        ("{{ if true }}{{ $x := 1 }}{{ end }}{{ $x }}", r"no variable \$x"),
        ("{{ $x = 1 }}", r"no variable \$x"),
        ("{{ $ = 1 }}", r"\$ cannot stand before ="),
        ("{{ $a, $b := 1 }}", r"\$b cannot stand before :="),
        ("{{ .System := 1 }}", r"\.System cannot stand before :="),
        ("{{ $a | $b := 1 }}", r"\| cannot stand before :="),
        ("a\n{{ if .System }}\nx", r"line 2: the \{\{if\}\} of this line is not closed"),
        ("{{ range .Messages }}{{ else }}{{ else }}{{ end }}", "behind its"),
        ("{{ if 1 }}{{ else with 1 }}{{ end }}", "with cannot stand here"),
        ("{{ end }}", "closes nothing"),
        ("{{ else }}", "closes nothing"),
        ("{{ if 1 }}{{ end 2 }}", "2 cannot stand here"),
        ("{{ if }}{{ end }}", "a value is missing"),
        ("{{ }}", "nothing between"),
        ("{{ break }}", "not within a range"),
        ("{{ range .Tools }}{{ else }}{{ continue }}{{ end }}", "not within a range"),
        ("{{ range .Tools }}{{ break 1 }}{{ end }}", "1 cannot stand here"),
        ('{{ template "x" }}', "not supported"),
        ('{{ define "x" }}{{ end }}', "not supported"),
        ("{{ .System", "not closed"),
        ("{{ .System }", "'}' is not understood"),
        ("{{ .System-}}", "'-}}' is not understood"),
        ("{{ 'ab' }}", "one character"),
        ('{{ "\\k" }}', "no escape"),
        ('{{ "\\xff" }}', "is no character"),
        ('{{ "\\ud800" }}', "is no character"),
        ('{{ "a\nb" }}', "is not understood"),
        ("{{ 99999999999999999999 }}", "64 bits"),
        ("{{ 0x }}", "blank is missing"),
        ("{{ 1e999 }}", "too large"),
        ("{{ 1__0 }}", "is not understood"),
        ("{{/* a }}", "comment"),
        ("{{ .System .Prompt }}", "no function"),
        ("{{ 1 | 2 }}", "nothing can be piped"),
        ("{{ (1 }}", "parenthesis is not closed"),
        ("{{ 1 ) }}", "cannot stand here|no function"),
        ("{{ print(1) }}", r"blank is missing before \("),
        ('{{ "a".Role }}', r"blank is missing before \.Role"),
        ("{{ not 1 2 }}", "not takes 1 values, not 2"),
        ("{{ eq 1 }}", "eq takes 2 values"),
        ("{{ print , }}", ", cannot stand here"),
        ('{{ printf "%5d" 1 }}', "'%5'"),
        ('{{ printf "%" 1 }}', "the format has '%'"),
        ("{{ if 1 }}" * 60 + "{{ end }}" * 60, "more than 50 blocks"),
        ("{{ " + "(" * 101 + "1" + ")" * 101 + " }}", "more than 100 parentheses"),
        ("{{ 1" + " | print" * 5000 + " }}", "more than 100 parentheses and pipes"),
    ],
)
def test_a_source_that_is_no_template_says_where_it_is_broken(source: str, problem: str) -> None:
    with pytest.raises(ModelLoadError, match=problem) as caught:
        GoTemplate(source, name="m/Modelfile")
    assert caught.value.message.startswith("m/Modelfile is not one that Go's text/template understands (line ")


@pytest.mark.parametrize(
    ("action", "problem"),
    [
        ("{{ .Role }}", r"line 2: a conversation has no field \.Role"),
        ("{{ range .Messages }}{{ .Messages }}{{ end }}", r"a message has no field \.Messages"),
        ("{{ .System.Name }}", r"\.Name is asked of a value of type string"),
        ("{{ range .System }}{{ end }}", "range goes over a value of type string"),
        ("{{ index .Tools 0 }}", "no place 0"),
        ("{{ index .Messages -1 }}", "no place -1"),
        ("{{ index .Messages true }}", "whole number, not a value of type bool"),
        ("{{ index . 1 }}", "no key of type int"),
        ("{{ index 1 1 }}", "index is asked of a value of type int"),
        ("{{ index . `x` | print }}{{ (index . `x`).Role }}", "value of type nil"),
        ("{{ slice .Messages 2 1 }}", "from 2 to 1"),
        ("{{ slice .Messages 9 }}", "no place 9"),
        ("{{ slice 1 }}", "slice is asked"),
        ("{{ len 1 }}", "len is asked"),
        ("{{ eq 1 `1` }}", "type int is compared with one of type string"),
        ("{{ eq 1 1 `1` }}", "type int is compared"),
        ("{{ lt true false }}", "type bool is compared"),
        ("{{ eq .Messages .Messages }}", "type list is compared"),
        ("{{ printf `%d` `a` }}", "%d takes a whole number"),
        ("{{ printf `%d` }}", "0 values for the 1 verbs"),
        ("{{ printf `a` 1 }}", "1 values for the 0 verbs"),
        ("{{ printf 1 1 }}", "a format first"),
        ("{{ printf .System 1 }}", "1 values for the 0 verbs"),
        ("{{ json .Tools }}", "not JSON serializable"),
    ],
)
def test_what_fails_with_these_messages_is_named(action: str, problem: str) -> None:
    with pytest.raises(RunFailed, match=problem) as caught:
        GoTemplate("{{ if .Messages }}\n" + action + "{{ end }}", name="m/Modelfile").render(
            CHAT, tools=[{"bad": {1, 2}}] if "json" in action else None
        )
    if "index .Tools" not in action:
        assert caught.value.message.startswith("m/Modelfile does not work with these messages (line 2: ")


EACH = "{{ range .Messages }}"
MANY = tuple(said("user" if index % 2 else "assistant", "x" * 1000) for index in range(300))


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (EACH + (EACH.replace(" .", " $.") * 4) + "{{ end }}" * 5, "2000000 steps"),
        (EACH + EACH.replace(" .", " $.") + "{{ .Content }}" + "{{ end }}" * 2, "writes more than 16777216"),
        ("{{ $x := `a` }}" + EACH + "{{ $x = print $x $x }}{{ end }}", "builds a text of more"),
        (
            "{{ $x := json .Messages }}"
            + EACH
            + EACH.replace(" .", " $.")
            + "{{ $y := len (print $x $x) }}"
            + "{{ end }}" * 2,
            "2000000 steps",
        ),
    ],
)
def test_endless_work_ends_with_an_error(source: str, problem: str) -> None:
    with pytest.raises(RunFailed, match=problem):
        render(source, MANY)


def test_long_conversations_are_within_the_bound() -> None:
    messages = tuple(said("user" if index % 2 else "assistant", "x") for index in range(4096))
    assert render(QWEN, messages).count("<|im_start|>") == 4097


def test_all_pairs_of_a_conversation_share_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "LONGEST", 100)
    source = "{{ .Prompt }}{{ .Response }}"
    assert len(render(source, [said("user", "x" * 50), said("assistant", "x" * 50)])) == 100
    with pytest.raises(RunFailed, match="more than 100"):
        render(source, [said("user", "x" * 50), said("assistant", "x" * 50), said("user", "x")])


def test_a_message_cannot_be_a_template() -> None:
    assert show("{{ (index .Messages 0).Content }}", (said("user", "{{ .System }}"),)) == "{{ .System }}"


def test_odd_text_passes_as_it_is() -> None:
    odd = "\uf8d0\ud800\u2028\u200b<&>\0"
    assert (
        show("{{ (index .Messages 0).Content }}{{ json (index .Messages 0).Content | len }}", [said("user", odd)])[
            : len(odd)
        ]
        == odd
    )
    assert show('{{ printf "%q" (index .Messages 0).Content }}', [said("user", odd)]) == f'"{odd[:-1]}\\x00"'


def test_both_languages_have_the_same_use() -> None:
    template: Template = GoTemplate("{{ .Prompt }}")
    assert template.render(CHAT[1:2], add_generation_prompt=True, anything=1) == "Hi"
