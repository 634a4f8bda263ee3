"""Chat templates in Jinja, of the ChatML kind: `<|im_start|>role`, the text, `<|im_end|>`.

They take `messages` (roles system, user, assistant, tool), `tools` and `add_generation_prompt`; the thinking one also
`enable_thinking`.
"""

from __future__ import annotations

__all__ = ["CHATML", "POSTFIX", "PREFIX", "THINKING"]

PREFIX = "<|im_start|>user\n"
POSTFIX = "<|im_end|>\n<|im_start|>assistant\n"
"""What the library's built-in template puts before and after a text prompt."""

_TOOLS = """\
{%- if tools %}
    {{- '<|im_start|>system\\nYou may call these functions, each described in JSON:\\n<tools>\\n' }}
    {%- for tool in tools %}
        {{- tool | tojson }}
        {{- '\\n' }}
    {%- endfor %}
    {{- '</tools>\\nTo call one, answer <tool_call>{"name": ..., "arguments": ...}</tool_call>.<|im_end|>\\n' }}
{%- endif %}
"""

_CALLS = """\
        {%- for call in message.tool_calls or [] %}
            {%- set called = call.function if call.function else call %}
            {{- '\\n<tool_call>\\n{"name": ' }}
            {{- called.name | tojson }}
            {{- ', "arguments": ' }}
            {{- called.arguments if called.arguments is string else called.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
"""

CHATML = (
    _TOOLS
    + """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
    {%- if message.role == 'assistant' %}
"""
    + _CALLS
    + """\
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
)

# Thoughts of answers before the last question are left out; those after it (between a call and its result) stay.
THINKING = (
    _TOOLS
    + """\
{%- set last = namespace(question=-1) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- set last.question = loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- set text = message.content or '' %}
    {%- if message.role == 'assistant' %}
        {%- set thought = message.reasoning_content or '' %}
        {%- if not thought and '</think>' in text %}
            {%- set thought = text.split('</think>')[0].split('<think>')[-1] %}
        {%- endif %}
        {%- set text = text.split('</think>')[-1].lstrip('\\n') %}
        {%- if thought and loop.index0 > last.question %}
            {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- text }}
"""
    + _CALLS
    + """\
    {%- else %}
        {{- text }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""
)
