"""What an entry of a file of calibration data may be: a chat in one of the usual forms, a text, or ready data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rkllm_converter.calibration.chat_files import MARKERS
from rkllm_converter.calibration.template import Message

__all__ = ["LONGEST_ENTRY", "Chat", "Entry", "Ready", "Text", "Wrong", "entry_of", "text_of"]

LONGEST_ENTRY = 100_000
"""Characters of an entry, as JSON. The toolkit holds what it makes of an entry in memory."""

_ROLES = {
    **dict.fromkeys(("system", "developer", "user", "assistant", "tool"), ""),
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function": "tool",
    "observation": "tool",
}
"""Roles as they are written, and what they are called if that is another name (ShareGPT has its own)."""
_REASONING = ("reasoning_content", "reasoning", "thinking")
_ANSWERS = ("response", "completion", "answer", "output")
_KEPT = ("tool_calls", "tool_call_id", "name")
_FORMS = (
    '"messages", "conversations", "prompt" and "response", "instruction" and "output", "text", or "input" and "target"'
)


class Wrong(Exception):
    """An entry that cannot be used: `path` of the key within it, and why."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path = path
        self.why = why


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages up to a question, and the answer to it if there is one, without its reasoning."""

    messages: tuple[Message, ...]
    answer: Message | None = None
    reasoning: str = ""
    tools: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """A text without roles."""

    text: str


@dataclass(frozen=True, slots=True)
class Ready:
    """An entry in the toolkit's own form; it stays as it is."""

    input: str
    target: str


Entry = Chat | Text | Ready


def entry_of(value: object) -> Entry:
    """Read an entry of JSON. Raises Wrong."""
    _check_size(value)
    if isinstance(value, str):
        return text_of(value)
    if not isinstance(value, dict):
        raise Wrong("", f"it is {_kind(value)}, not an object")
    if "input" in value and "target" in value:
        return Ready(_filled(value, "input"), _string(value, "target"))
    for key in ("messages", "conversations", "conversation"):
        if key in value:
            return _chat(_messages(value[key], key), value)
    if "prompt" in value:
        return _question(value, _filled(value, "prompt"))
    if "instruction" in value:
        parts = (_filled(value, "instruction"), _string(value, "input").strip())
        return _question(value, "\n\n".join(part for part in parts if part))
    if "text" in value:
        return text_of(_filled(value, "text"))
    if "sample" in value:
        raise Wrong("sample", "data of images is not made here; give texts")
    raise Wrong("", f"it has none of {_FORMS}")


def text_of(text: str) -> Text:
    """Raises Wrong for one that is empty or too long."""
    _check_size(text)
    if not text.strip():
        raise Wrong("", "the text is empty")
    return Text(text)


def _question(value: Mapping[str, Any], prompt: str) -> Chat:
    messages = [{"role": "user", "content": prompt}]
    system = _string(value, "system")
    if system.strip():
        messages.insert(0, {"role": "system", "content": system})
    key = next((key for key in _ANSWERS if key in value), None)
    if key is not None:
        messages.append({"role": "assistant", "content": _string(value, key)})
    return _chat(messages, value)


def _chat(messages: Sequence[Message], value: Mapping[str, Any]) -> Chat:
    if not any(message["role"] == "user" for message in messages):
        raise Wrong("", "there is no message of a user")
    tools = value.get("tools") or ()
    if not isinstance(tools, list | tuple):
        raise Wrong("tools", f"it is {_kind(tools)}, not a list")
    *earlier, last = messages
    if last["role"] != "assistant":
        return Chat(tuple(messages), tools=tuple(tools))
    given = next((key for key in _REASONING if isinstance(value.get(key), str)), "")
    content, apart = _reasoning_apart(last["content"] or "")
    reasoning = last.get("reasoning_content") or apart or (value[given] if given else "")
    answer = {**last, "content": content}
    answer.pop("reasoning_content", None)
    return Chat(tuple(earlier), answer, reasoning.strip(), tuple(tools))


def _reasoning_apart(content: str) -> tuple[str, str]:
    """The answer, and the reasoning that stands before it between markers."""
    for opening, closing in MARKERS:
        if content.lstrip().startswith(opening) and closing in content:
            reasoning, _, answer = content.lstrip().removeprefix(opening).partition(closing)
            return answer.strip(), reasoning.strip()
    return content, ""


def _messages(value: object, key: str) -> list[Message]:
    if not isinstance(value, list):
        raise Wrong(key, f"it is {_kind(value)}, not a list")
    if not value:
        raise Wrong(key, "there are no messages")
    return [_message(message, f"{key}[{number}]") for number, message in enumerate(value)]


def _message(value: object, path: str) -> Message:
    if not isinstance(value, dict):
        raise Wrong(path, f"it is {_kind(value)}, not an object")
    role_key, content_key = ("role", "content") if "role" in value else ("from", "value")
    role = value.get(role_key)
    if not isinstance(role, str) or role not in _ROLES:
        names = ", ".join(_ROLES)
        raise Wrong(f"{path}.{role_key if role is not None else 'role'}", f"it has to be one of {names}")
    made: dict[str, Any] = {"role": _ROLES[role] or role}
    made["content"] = _content(value.get(content_key), f"{path}.{content_key}")
    made |= {name: value[name] for name in _KEPT if value.get(name) is not None}
    if "tool_calls" in made:
        made["tool_calls"] = _calls(made["tool_calls"], f"{path}.tool_calls")
    reasoning = next((value[name] for name in _REASONING if isinstance(value.get(name), str)), "")
    if reasoning and made["role"] == "assistant":
        made["reasoning_content"] = reasoning
    if made["role"] == "user" and not made["content"].strip():
        raise Wrong(f"{path}.{content_key}", "the prompt is empty")
    return made


def _content(value: object, path: str) -> str:
    """A text, none at all, or OpenAI's list of parts, joined."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise Wrong(path, f"it is {_kind(value)}, not a text")
    for number, part in enumerate(value):
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            raise Wrong(f"{path}[{number}]", "it is no part with a text; images and sound are not taken")
    return "".join(part["text"] for part in value)


def _calls(value: object, path: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise Wrong(path, f"it is {_kind(value)}, not a list")
    made = []
    for number, call in enumerate(value):
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Wrong(f"{path}[{number}]", "it is no call with the name of a function")
        made.append({"id": f"call{number:05}", "type": "function", **call, "function": function})
    return made


def _filled(value: Mapping[str, Any], key: str) -> str:
    text = _string(value, key)
    if not text.strip():
        raise Wrong(key, "it is empty")
    return text


def _string(value: Mapping[str, Any], key: str) -> str:
    """Nothing and null are an empty text."""
    text = value.get(key)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise Wrong(key, f"it is {_kind(text)}, not a text")
    return text


def _check_size(value: object) -> None:
    written = json.dumps(value, ensure_ascii=False)
    if len(written) > LONGEST_ENTRY:
        raise Wrong("", f"it has {len(written)} characters, and {LONGEST_ENTRY} are allowed; shorten or split it")
    try:
        written.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Wrong("", "it has half of a surrogate pair, which is no text") from error


def _kind(value: object) -> str:
    for kind, name in (
        (type(None), "null"),
        (bool, "true or false"),
        (str, "a text"),
        (list, "a list"),
        (dict, "an object"),
    ):
        if isinstance(value, kind):
            return name
    return "a number"
