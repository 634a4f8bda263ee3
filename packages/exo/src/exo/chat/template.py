"""A conversation as the text that the model was trained on: the model's own Jinja template."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn, Protocol

import msgspec

from exo.types import InvalidRequest, Message, ModelLoadError, RunFailed, ToolCall

_SHAPES = tuple(itertools.product((True, False), (False, True)))
"""How templates expect tool calls: arguments as an object or as JSON text; beside them empty content or none at all."""
_PROBE = (
    Message(role="user", content="question"),
    Message(
        role="assistant",
        content="",
        tool_calls=(ToolCall(id="probe0000", name="probe_name", arguments='{"probe_key": "probe_value"}'),),
    ),
    Message(role="tool", content="result", tool_call_id="probe0000"),
)
"""A call of words that no template has. Mistral's templates want ids of nine characters, and a result to each call."""


class Template(Protocol):
    """What makes a prompt of a conversation, in whichever language it is written."""

    @property
    def source(self) -> str:
        """The template as it was given."""

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True, **extra: object) -> str:
        """The prompt for `messages`, in their order. Raises InvalidRequest or RunFailed."""


class ChatTemplate:
    """A compiled chat template, in jinja2's immutable sandbox; exo.chat.sandbox says what is bounded and what is not.

    `special` are texts that templates use by name, such as `bos_token`. `name` stands in messages of errors.
    Raises ModelLoadError if the source is no template.
    """

    def __init__(
        self, source: str, *, special: Mapping[str, str] | None = None, name: str = "The chat template"
    ) -> None:
        from jinja2 import TemplateSyntaxError  # noqa: PLC0415 - a node that renders nothing does without jinja2

        from exo.chat.sandbox import TemplateEnvironment  # noqa: PLC0415 - as above

        self.source = source
        self._name = name
        self._special = dict(special or {})
        try:
            self._compiled = TemplateEnvironment().from_string(source)
        except (TemplateSyntaxError, SyntaxError, RecursionError) as error:
            place = (
                f"line {error.lineno}: {error}"
                if isinstance(error, TemplateSyntaxError)
                else f"nested too deep: {error}"
            )
            raise ModelLoadError(
                f"{name} is not one that Jinja understands ({place}). Mend it, or fetch the model's files again."
            ) from error

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True, **extra: object) -> str:
        """The prompt for `messages`, in their order. `extra` are further variables, such as `enable_thinking`.

        Templates differ in the shape of tool calls that they take: the first is the one that suits a call made up to
        find out. If it fails, or leaves a call out, the others follow. Raises InvalidRequest if the template refuses
        the messages, RunFailed if it does not work.
        """
        called = {call.name for message in messages for call in message.tool_calls}
        variables = {**extra, "add_generation_prompt": add_generation_prompt}
        rendered: str | None = None
        failure: Exception | None = None
        for shape in self._call_shapes if called else _SHAPES[:1]:
            try:
                text = self._render(messages, shape, variables)
            except Exception as error:  # noqa: BLE001 - a template is a program of others, and may raise anything
                failure = failure or error
                continue
            if all(name in text for name in called):
                return text
            rendered = rendered or text
        if rendered is None:
            assert failure is not None  # noqa: S101 - for mypy: no shape has rendered, so the first one has failed
            self._fail(failure)
        return rendered

    @functools.cached_property
    def _call_shapes(self) -> Sequence[tuple[bool, bool]]:
        """The shapes of calls, the one that suits the template first.

        A call that a template leaves out goes unnoticed in a conversation that names the function elsewhere.
        """
        return sorted(_SHAPES, key=self._suits, reverse=True)

    def _suits(self, shape: tuple[bool, bool]) -> int:
        """How much of a call is written in this shape: its name, its arguments, and those as JSON."""
        try:
            text = self._render(_PROBE, shape, {"add_generation_prompt": True})
        except Exception:  # noqa: BLE001 - as in render
            return 0
        return sum(word in text for word in ("probe_name", "probe_value", '"probe_key"'))

    def _render(self, messages: Sequence[Message], shape: tuple[bool, bool], extra: Mapping[str, object]) -> str:
        from exo.chat.sandbox import LONGEST, bounded_range, too_much  # noqa: PLC0415 - loaded with the first template

        as_objects, no_content = shape
        variables = {**self._special, "tools": None, "documents": None, **extra}
        variables["messages"] = list(_as_dicts(messages, as_objects=as_objects, no_content=no_content))
        pieces, length = [], 0
        for piece in self._compiled.generate(variables, range=bounded_range()):
            length += len(piece)
            if length > LONGEST:
                raise too_much(f"writes more than {LONGEST} characters")
            pieces.append(piece)
        return "".join(pieces)

    def _fail(self, error: Exception) -> NoReturn:
        from exo.chat.sandbox import RaisedByTemplate  # noqa: PLC0415 - loaded with the first template

        if isinstance(error, RaisedByTemplate):
            said = error.message or "it gives no reason"
            raise InvalidRequest(f"{self._name} refuses these messages: {said}", param="messages") from error
        said = f"{type(error).__name__}: {error}".rstrip(": .")
        raise RunFailed(
            f"{self._name} does not work with these messages ({said}). Mend it, or fetch the model's files again."
        ) from error


def _as_dicts(messages: Sequence[Message], *, as_objects: bool, no_content: bool) -> Iterator[dict[str, Any]]:
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    for message in messages:
        made: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.reasoning:
            made["reasoning_content"] = message.reasoning
        if message.tool_calls:
            made["tool_calls"] = [_call_as_dict(call, as_object=as_objects) for call in message.tool_calls]
            if no_content and not message.content:
                made["content"] = None
        if message.tool_call_id is not None:
            made["tool_call_id"] = message.tool_call_id
            if message.tool_call_id in names:
                made["name"] = names[message.tool_call_id]
        yield made


def _call_as_dict(call: ToolCall, *, as_object: bool) -> dict[str, Any]:
    arguments = json_object(call.arguments) if as_object else call.arguments
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def json_object(text: str) -> dict[str, Any] | str:
    """A JSON object as such; anything else stays text."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return text
