"""No template in Go's language, and no messages, bring anything but a text or one of our errors."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from exo.chat import GoTemplate
from exo.types import Message, ModelLoadError, RunFailed

WORDS = (
    "{{ {{- }} -}} /* */ if else end range with break continue := = | ( ) , $ $x $i . .System .Prompt .Response .Role"
    " .Messages .Content .Tools .ToolCalls .Function .Name .Arguments .Nothing eq ne lt and or not len index slice json"
    ' print printf currentDate nothing "a" "%s" "%d" `b` \'c\' 0 1 -1 2.5 true nil define template'
)
PIECES = st.sampled_from(WORDS.split()) | st.sampled_from(
    [
        "{{ range $i, $x := .Messages }}",
        "{{ range .Messages }}",
        "{{ if .System }}",
        "{{ with .Prompt }}",
        "{{ else }}",
        "{{ end }}",
        "{{ .Response }}",
        "{{ $x := . }}",
        "{{ $x = 1 }}",
        "{{ $x }}",
        "{{ . }}",
        "text\n",
    ]
)
EXPRESSIONS = st.recursive(
    st.sampled_from([".", "$", ".Messages", ".System", ".Tools", "0", "1", "`a`", "nil", "true", "2.5", "print"]),
    lambda inner: st.builds(
        lambda name, values: f"({name} {' '.join(values)})",
        st.sampled_from(["eq", "lt", "ge", "and", "or", "not", "len", "index", "slice", "json", "print", "printf"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)
MESSAGES = st.lists(
    st.builds(Message, role=st.sampled_from(["system", "user", "assistant", "tool"]), content=st.text(max_size=5)),
    max_size=4,
)


def check(source: str, messages: Sequence[Message], tools: object) -> None:
    try:
        template = GoTemplate(source)
    except ModelLoadError:
        return
    for wish in (True, False):
        with contextlib.suppress(RunFailed):
            assert isinstance(template.render(messages, add_generation_prompt=wish, tools=tools), str)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(pieces=st.lists(PIECES, max_size=12), messages=MESSAGES, tools=ANYTHING)
@settings(max_examples=300)
def test_no_source_brings_another_error_than_ours(pieces: list[str], messages: list[Message], tools: object) -> None:
    check(" ".join(pieces), messages, tools)


@given(expression=EXPRESSIONS, messages=MESSAGES, tools=st.lists(ANYTHING, max_size=2))
@settings(max_examples=300)
def test_no_expression_brings_another_error_than_ours(expression: str, messages: list[Message], tools: object) -> None:
    check(f"{{{{ range $i, $x := .Messages }}}}{{{{ end }}}}{{{{ {expression} }}}}", messages, tools)


@given(text=st.text(max_size=40))
def test_text_without_actions_is_put_out_as_it_is(text: str) -> None:
    if "{{" not in text:
        assert GoTemplate(text).render(()) == text
