"""Chat templates of model families, for model folders without tokenizer files, and what can be said of their length.

Older servers kept no tokenizer beside a model. Its prompts are then rendered as text and tokenised by the runtime.
"""

# ruff: noqa: RUF001 - the bars in the tokens of DeepSeek are full-width ones

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from exo.chat import Template
from exo.types import Message, ThinkingMarkers

__all__ = ["CHATML", "Family", "family_of", "least_tokens", "render_without_tokenizer"]

LONGEST_TOKEN = 256
"""Bytes. The longest tokens of the vocabularies in use are runs of 128 blanks."""

_CONTROL = re.compile(r"<(?=[|｜][^<>\s]{1,40}[|｜]>)")
_JOINER = "\u2060"


class Family(msgspec.Struct, frozen=True):
    """A way to write conversations. `names` is a regular expression for families and names of models, lower case."""

    name: str
    names: str
    template: str
    thinking: ThinkingMarkers | None = None


_CALLS = """
{%- macro calls(message) %}
    {%- for call in message.tool_calls or [] %}
        {{- '\\n' if message.content or not loop.first }}
        {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
        {{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}
        {{- '}\\n</tool_call>' }}
    {%- endfor %}
{%- endmacro %}"""

_CHATML = (
    _CALLS
    + """
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- '<|im_start|>user' if loop.first or loop.previtem.role != 'tool' }}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {{- '<|im_end|>\\n' if loop.last or loop.nextitem.role != 'tool' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + calls(message) + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{{- '<|im_start|>assistant\\n' if add_generation_prompt }}
{{- '<think>\\n\\n</think>\\n\\n' if add_generation_prompt and enable_thinking is false }}"""
)
"""Reasoning of earlier answers is left out, as in Qwen3; with `enable_thinking=False` an empty block comes first."""

_DEEPSEEK = """
{%- for message in messages if message.role == 'system' %}
    {{- '\\n\\n' if not loop.first }}{{ message.content }}
{%- endfor %}
{%- for message in messages if message.role != 'system' %}
    {%- if message.role == 'assistant' %}
        {{- '<｜Assistant｜>' + message.content }}
        {%- for call in message.tool_calls or [] %}
            {%- set written = {'name': call.function.name, 'arguments': call.function.arguments} %}
            {{- '\\n```json\\n' + written | tojson + '\\n```' }}
        {%- endfor %}
        {{- '<｜end▁of▁sentence｜>' }}
    {%- else %}
        {{- '<｜User｜>' + message.content }}
    {%- endif %}
{%- endfor %}
{{- '<｜Assistant｜><think>\\n' if add_generation_prompt }}"""
"""No beginning-of-sentence token: programs for this runtime set none, and whether it adds one is not documented."""

_PHI3 = (
    _CALLS
    + """
{%- for message in messages %}
    {{- '<|' + ('user' if message.role == 'tool' else message.role) + '|>\\n' }}
    {{- message.content + calls(message) + '<|end|>\\n' }}
{%- endfor %}
{{- '<|assistant|>\\n' if add_generation_prompt }}"""
)

CHATML = Family(name="chatml", names="", template=_CHATML)
"""What is taken for a model of an unknown family."""

FAMILIES = (
    Family("deepseek-r1", r"deepseek.*r1|r1-distill", _DEEPSEEK, ThinkingMarkers()),
    Family("phi-3", r"phi-?_?3", _PHI3),
    Family("qwen3", r"qwen-?_?3", _CHATML, ThinkingMarkers()),
    Family("qwen2", r"qwen", _CHATML),
    CHATML,
)


def family_of(family: str, model: str = "") -> Family:
    """The family that a card names, else the one that the model's name shows, else ChatML."""
    for text in (family.lower(), model.lower()):
        for known in FAMILIES:
            if known.names and re.search(known.names, text):
                return known
    return CHATML


def render_without_tokenizer(
    template: Template, messages: Sequence[Message], variables: Mapping[str, Any] | None = None
) -> str:
    """The whole conversation as text, for the runtime to tokenise. `variables` are further ones for the template.

    The runtime reads special tokens wherever they stand. What looks like one in the messages therefore gets an
    invisible character (U+2060) behind its `<`, so that no message can begin another one.
    """
    return template.render([_harmless(message) for message in messages], **(variables or {}))


def least_tokens(text: str) -> int:
    """No tokenizer makes fewer tokens of `text`: each is at most LONGEST_TOKEN bytes. What has more cannot fit."""
    return -(-_bytes(text) // LONGEST_TOKEN)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _harmless(message: Message) -> Message:
    texts = {name: _broken_up(getattr(message, name)) for name in ("content", "reasoning")}
    calls = (
        msgspec.structs.replace(call, name=_broken_up(call.name), arguments=_broken_up(call.arguments))
        for call in message.tool_calls
    )
    return msgspec.structs.replace(message, tool_calls=tuple(calls), **texts)


def _broken_up(text: str) -> str:
    return _CONTROL.sub("<" + _JOINER, text)
