"""The formats in which models write calls, and how a chat template tells which one its model knows."""

# ruff: noqa: RUF001 - the bars in the tokens of DeepSeek are full-width ones

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping

import msgspec

from exo.chat.tools import grammars
from exo.chat.tools.cursor import Cursor
from exo.types import ToolFormat

__all__ = ["FORMATS", "forced_start", "special_texts", "tool_format_of"]


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """`markers` begin a call, and with `bare` so does a brace at the beginning of the answer or behind another call.

    A call of any function begins with `start`, that of a certain one with its name between the texts of `named`.
    `special` are markers that have tokens of their own. `sign` finds the format in the source of a template.
    """

    grammar: Callable[[Cursor, str], grammars.Reading]
    markers: tuple[str, ...]
    special: tuple[str, ...]
    start: str
    named: tuple[str, str]
    sign: re.Pattern[str]
    bare: bool = False


FORMATS: Mapping[ToolFormat, Format] = {
    "deepseek": Format(
        grammar=grammars.deepseek,
        markers=("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"),
        special=(
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁calls▁end｜>",
            "<｜tool▁call▁begin｜>",
            "<｜tool▁call▁end｜>",
            "<｜tool▁sep｜>",
        ),
        start="<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>",
        named=("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>", "\n```json\n"),
        sign=re.compile("<｜tool▁call▁begin｜>"),
    ),
    "mistral": Format(
        grammar=grammars.mistral,
        markers=("[TOOL_CALLS]",),
        special=("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
        start="[TOOL_CALLS]",
        named=('[TOOL_CALLS] [{"name": "', '", "arguments":'),
        sign=re.compile(r"\[TOOL_CALLS\]"),
    ),
    "phi": Format(
        grammar=grammars.phi,
        markers=("<|tool_call|>", "functools["),
        special=("<|tool_call|>", "<|/tool_call|>"),
        start='<|tool_call|>[{"name": "',
        named=('<|tool_call|>[{"name": "', '", "arguments":'),
        sign=re.compile(r"<\|tool_call\|>|functools\["),
    ),
    "hermes": Format(
        grammar=grammars.hermes,
        markers=("<tool_call>",),
        special=("<tool_call>", "</tool_call>"),
        start='<tool_call>\n{"name": "',
        named=('<tool_call>\n{"name": "', '", "arguments":'),
        sign=re.compile("<tool_call>"),
    ),
    "llama3": Format(
        grammar=grammars.llama3,
        markers=("<|python_tag|>",),
        special=("<|python_tag|>",),
        start='{"name": "',
        named=('{"name": "', '", "parameters":'),
        sign=re.compile(r'<\|python_tag\|>|\{\\?"name\\?": ?(?:(?!description).){1,80}?\\?"parameters\\?":', re.DOTALL),
        bare=True,
    ),
}
"""In the order in which a template is searched for their signs: templates with the first ones may have later ones too.
"""

_OTHER_CALLS = re.compile(r"<function=|<arg_key>|<parameter=")
"""With these a model writes arguments that are no JSON, between markers that may be those of hermes or llama3."""

_STRING = re.compile(r"""'(?:[^'\\]|\\.?)*'?|"(?:[^"\\]|\\.?)*"?|`[^`]*`?|/\*.*""", re.DOTALL)
"""A string, or a comment in Go, also where it is not closed: so no text is looked at twice."""
_TOOLS = re.compile(r"(?<![\w.])tools\b|\.Tools\b")


def tool_format_of(template_source: str) -> ToolFormat | None:
    """How the model of a chat template (Jinja, or Go's language) writes calls.

    None if the template knows no tools: it does nothing with the variable `tools` (`.Tools` in Go), whatever it knows
    of calls in history. None as well if it knows tools, but none of the formats here; then its model's calls cannot be
    read.
    """
    if not any(_TOOLS.search(_STRING.sub("''", code)) for code in _actions(template_source)):
        return None
    if _OTHER_CALLS.search(template_source):
        return None
    return next((name for name, form in FORMATS.items() if form.sign.search(template_source)), None)


def forced_start(format: ToolFormat, name: str | None) -> str:  # noqa: A002 - the word for it
    """The text with which an answer begins that has to be a call, of the function `name` or of any.

    It belongs at the end of the prompt, and into `ToolParser` as `forced`. It never ends with a blank, which would be
    part of the next token. The empty text would be that of a format in which this cannot be done; there is none.
    """
    form = FORMATS[format]
    return form.start if name is None else json.dumps(name, ensure_ascii=False)[1:-1].join(form.named)


def special_texts(format: ToolFormat) -> tuple[str, ...]:  # noqa: A002 - the word for it
    """The markers that may be special tokens of a vocabulary, whose text a runtime may hide."""
    return FORMATS[format].special


def _actions(source: str) -> Iterator[str]:
    """What stands between the braces of a template, Jinja's comments left out."""
    closing = {"{": "}}", "%": "%}", "#": "#}"}
    at = source.find("{")
    while at >= 0:
        kind = source[at + 1 : at + 2]
        end = source.find(closing[kind], at + 2) if kind in closing else at
        if end < 0:
            return
        if kind in ("{", "%"):
            yield source[at + 2 : end]
        at = source.find("{", max(end, at + 1))
