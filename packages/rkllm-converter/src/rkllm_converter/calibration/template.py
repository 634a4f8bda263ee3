"""A model's chat template: a conversation as the text that the model was trained on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rkllm_converter.calibration.chat_files import look, thinking_of
from rkllm_converter.errors import BadCalibration
from rkllm_converter.model_files import is_text

__all__ = ["ChatTemplate", "Message", "TooSlow"]

Message = Mapping[str, Any]
"""`role`, `content` and, for some, `tool_calls`, `tool_call_id`, `name`, as in OpenAI's interface."""
_SWITCHES = ("enable_thinking", "thinking")
_SYSTEM = ("system", "developer")
_PROBE = "\N{WHITE CHESS KNIGHT}probe\N{WHITE CHESS KNIGHT}"


class TooSlow(BadCalibration):
    """A template that does not come to an end: there is no use in giving it other chats."""


class ChatTemplate:
    """A compiled template. Raises BadCalibration if the text is no template.

    - `text`: as it was given; `name` stands in messages of errors
    - `thinking`: what the model writes around its reasoning, None if neither template nor tokens tell of it
    - `switch`: the variable by which the template turns reasoning on and off, if it takes one
    """

    def __init__(
        self,
        text: str,
        *,
        special: Mapping[str, str] | None = None,
        thinking: tuple[str, str] | None = None,
        name: str = "The chat template",
    ) -> None:
        from jinja2 import TemplateSyntaxError, meta  # noqa: PLC0415 - most commands do without jinja2

        from rkllm_converter.calibration.sandbox import TemplateEnvironment  # noqa: PLC0415 - as above

        self.text = text
        self.name = name
        self.thinking = thinking or thinking_of(text)
        self._special = dict(special or {})
        self._environment = TemplateEnvironment()
        try:
            names = meta.find_undeclared_variables(self._environment.parse(text))
            self._compiled = self._environment.from_string(text)
        except TemplateSyntaxError as error:
            raise self._broken(f"line {error.lineno}: {error.message}") from error
        except (SyntaxError, RecursionError, ValueError, MemoryError, OverflowError) as error:
            said = f"{type(error).__name__}: {error}".rstrip(": ")
            raise self._broken(f"too large, nested too deep, or no legal Python ({said})") from error
        self.switch = next((name for name in _SWITCHES if name in names), None)

    @classmethod
    def of(cls, folder: Path) -> ChatTemplate | None:
        """The template in a model's folder, None if there is none. Raises BadCalibration if its files are damaged."""
        found = look(folder)
        if found is None:
            return None
        return cls(found.text, special=found.special, thinking=found.thinking, name=str(found.path))

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True, **variables: Any) -> str:
        """The text of a conversation. `variables` are further ones, such as `enable_thinking`.

        Templates refuse, or leave out, what they were not written for. So the messages are given as they are; with
        arguments of calls as text; with contents as lists of parts; with the system's text before the first question;
        with neighbours of one role as one message; until all comes out. If it never does, the best is taken.
        Raises BadCalibration if the template takes none of them or writes nothing of them, and TooSlow.
        """
        wanted = _wanted(messages)
        given = {**variables, "add_generation_prompt": add_generation_prompt}
        best: tuple[int, str, list[Message]] | None = None
        failure: Exception | None = None
        for shape in _shapes(messages):
            try:
                text = self._written(shape, given)
            except TooSlow:
                raise
            except Exception as error:  # noqa: BLE001 - a template is a program of others, and may raise anything
                failure = failure or error
                continue
            found = 0 if "'type': 'text'" in text else sum(part in text for part in wanted)
            if found == len(wanted):
                return text
            if best is None or found > best[0]:
                best = (found, text, shape)
        if best is not None and (best[0] or self._depends(best[1], best[2], given)):
            return best[1]
        said = f"{type(failure).__name__}: {failure}".rstrip(": .") if best is None else "it writes nothing of it"
        raise BadCalibration(self._useless(said)) from failure

    def answer(self, messages: Sequence[Message], last: Message, **variables: Any) -> str:
        """The text of an answer to `messages`; calls of tools are written as the template writes them, if it does."""
        content: str = (last.get("content") or "").strip()
        calls = last.get("tool_calls") or ()
        if not calls:
            return content
        probe = {"role": "assistant", "content": _PROBE}
        with_probe = self.render([*messages, probe], add_generation_prompt=False, **variables)
        before, _, behind = with_probe.rpartition(_PROBE)
        text = self.render([*messages, {**last, "content": content}], add_generation_prompt=False, **variables)
        written = text[len(before) :].removesuffix(behind).strip()
        if text.startswith(before) and all(call["function"]["name"] in written for call in calls):
            return written
        return "\n".join(part for part in (content, *map(_call_as_text, calls)) if part)

    def _written(self, messages: Sequence[Message], variables: Mapping[str, Any]) -> str:
        given = {**self._special, "tools": None, "documents": None, **variables, "messages": messages}
        from rkllm_converter.calibration.sandbox import OutOfTime  # noqa: PLC0415 - as above

        try:
            return self._environment.written(lambda: self._compiled.generate(given))
        except OutOfTime as error:
            raise TooSlow(self._useless("it takes too long")) from error

    def _depends(self, text: str, shape: Sequence[Message], variables: Mapping[str, Any]) -> bool:
        """Whether other messages would give another text: a template may change what it writes, say to capitals."""
        try:
            return self._written(_of_other_contents(shape), variables) != text
        except TooSlow:
            raise
        except Exception:  # noqa: BLE001 - as above; it looks at the messages
            return True

    def _useless(self, said: str) -> str:
        return (
            f"{self.name} does not work with a chat ({said}). Mend it, or give a --dataset whose entries have "
            '"input" and "target", which need no template.'
        )

    def _broken(self, place: str) -> BadCalibration:
        return BadCalibration(f"{self.name}, {place}. Jinja does not understand it. Fetch the model's files again.")


def _shapes(messages: Sequence[Message]) -> Iterator[list[Message]]:
    tried: list[list[Message]] = []
    for chat in (messages, _system_in_question(messages), _joined(_system_in_question(messages))):
        for as_objects, empty in ((True, ""), (False, ""), (True, None), (False, None)):
            with_calls = [_with_calls(message, as_objects=as_objects, empty=empty) for message in chat]
            for shape in (with_calls, [_in_parts(message) for message in with_calls]):
                if shape not in tried:
                    tried.append(shape)
                    yield shape


def _wanted(messages: Sequence[Message]) -> list[str]:
    """What has to be in a rendered text: the instructions, the last question, the names of called functions."""
    contents = [message.get("content") for message in messages if message["role"] in _SYSTEM]
    contents += [message.get("content") for message in messages if message["role"] == "user"][-1:]
    names = [call["function"]["name"] for message in messages for call in message.get("tool_calls") or ()]
    return [content.strip() for content in contents if isinstance(content, str)] + names


def _of_other_contents(shape: Sequence[Message]) -> list[Message]:
    return [
        {**message, "content": [{"type": "text", "text": _PROBE}] if isinstance(message["content"], list) else _PROBE}
        for message in shape
    ]


def _with_calls(message: Message, *, as_objects: bool, empty: str | None) -> Message:
    if not message.get("tool_calls"):
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": _arguments(call["function"], as_objects=as_objects)}}
        for call in message["tool_calls"]
    ]
    return {**message, "content": message.get("content") or empty, "tool_calls": calls}


def _arguments(function: Mapping[str, Any], *, as_objects: bool) -> Any:
    value = function.get("arguments", {})
    if not as_objects:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    try:
        read = json.loads(value) if isinstance(value, str) else value
        return read if is_text(json.dumps(read, ensure_ascii=False)) else value
    except (ValueError, RecursionError):
        return value


def _call_as_text(call: Mapping[str, Any]) -> str:
    function = call["function"]
    written = {"name": function["name"], "arguments": _arguments(function, as_objects=True)}
    return f"<tool_call>\n{json.dumps(written, ensure_ascii=False)}\n</tool_call>"


def _in_parts(message: Message) -> Message:
    content = message.get("content")
    is_text = isinstance(content, str) and content
    return {**message, "content": [{"type": "text", "text": content}]} if is_text else message


def _system_in_question(messages: Sequence[Message]) -> list[Message]:
    instructions = [message.get("content") for message in messages if message["role"] in _SYSTEM]
    others = [message for message in messages if message["role"] not in _SYSTEM]
    place = next((index for index, message in enumerate(others) if message["role"] == "user"), None)
    if place is not None and instructions:
        others[place] = _with_content(others[place], (*instructions, others[place].get("content")))
    return others if place is not None else list(messages)


def _joined(messages: Sequence[Message]) -> list[Message]:
    made: list[Message] = []
    for message in messages:
        is_plain = not message.get("tool_calls") and message["role"] != "tool"
        if is_plain and made and made[-1]["role"] == message["role"] and not made[-1].get("tool_calls"):
            made[-1] = _with_content(made[-1], (made[-1].get("content"), message.get("content")))
        else:
            made.append(message)
    return made


def _with_content(message: Message, texts: Iterable[object]) -> Message:
    return {**message, "content": "\n\n".join(text for text in texts if isinstance(text, str) and text)}
