"""Items to messages, and back to the items of a listing.

Items are finer than messages: what a model has reasoned, said and called in a row is one message of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from exo.api.responses.schema import (
    Content,
    FunctionCallItem,
    FunctionCallOutputItem,
    InputItem,
    InputPart,
    InputTextPart,
    ListedItem,
    MessageItem,
    OutputRefusalPart,
    OutputTextPart,
    ReasoningItem,
    ReasoningTextPart,
    SummaryTextPart,
)
from exo.types import InvalidRequest, Message, ToolCall, UnsupportedParameter

_TEXTS = frozenset({"input_text", "output_text", "text", "refusal"})
_REASONING = frozenset({"reasoning_text", "summary_text", "text"})
_NOT_TEXT = frozenset({"input_image", "input_file", "input_audio", "computer_screenshot"})
_ID_PREFIXES = {"reasoning": "rs", "function_call": "fc", "function_call_output": "fco"}


def messages_of(items: Sequence[InputItem]) -> tuple[Message, ...]:
    """The messages of a conversation. Raises InvalidRequest, UnsupportedParameter.

    Reasoning goes with the answer after it; what no answer follows is left out.
    """
    gathering = _Gathering()
    for number, item in enumerate(items):
        path = f"input[{number}]"
        match item.type or "message":
            case "message":
                gathering.say(_message(item, path))
            case "reasoning":
                gathering.reason(_reasoning(item, path))
            case "function_call":
                gathering.call(_call(item, path))
            case "function_call_output":
                gathering.say(_result(item, path))
            case "item_reference":
                raise UnsupportedParameter(
                    "Items cannot be named by their id here; send the item itself, or name its response in "
                    "previous_response_id.",
                    param=path,
                )
            case other:
                raise UnsupportedParameter(
                    f"Items of the type {other!r} cannot be read here; send messages, reasoning, function_call and "
                    "function_call_output.",
                    param=f"{path}.type",
                )
    return gathering.messages()


def listed_items(items: Sequence[InputItem], response_id: str) -> list[ListedItem]:
    """The items as a listing has them. One without an id gets one made of the response's, the same each time."""
    return [_listed(item, _id_of(item, number, response_id)) for number, item in enumerate(items)]


class _Gathering:
    """Messages so far, the reasoning and the answer that may still get more."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._reasoning: list[str] = []
        self._answer: Message | None = None
        self._calls: list[ToolCall] = []

    def say(self, message: Message) -> None:
        """A message; if it is an answer, it stays open for calls of functions."""
        self._close()
        if message.role == "assistant":
            self._answer = message
        else:
            self._messages.append(message)
            self._reasoning.clear()

    def reason(self, text: str) -> None:
        self._close()
        self._reasoning.append(text)

    def call(self, call: ToolCall) -> None:
        if self._answer is None:
            self._answer = Message(role="assistant", content="")
        self._calls.append(call)

    def messages(self) -> tuple[Message, ...]:
        self._close()
        return tuple(self._messages)

    def _close(self) -> None:
        if self._answer is not None:
            self._messages.append(
                Message(
                    role="assistant",
                    content=self._answer.content,
                    reasoning="\n".join(self._reasoning),
                    tool_calls=tuple(self._calls),
                )
            )
            self._reasoning.clear()
        self._answer, self._calls = None, []


def _message(item: InputItem, path: str) -> Message:
    if item.role is None:
        raise _missing(f"{path}.role")
    if item.content is None:
        raise _missing(f"{path}.content")
    role = "system" if item.role == "developer" else item.role
    return Message(role=role, content=_text(item.content, f"{path}.content"))


def _reasoning(item: InputItem, path: str) -> str:
    """The reasoning itself where the item has it, else its summary. What is encrypted nobody can read here."""
    if isinstance(item.content, str):
        return item.content
    name, parts = ("content", item.content) if item.content else ("summary", item.summary or [])
    return "\n".join(_text_of(part, f"{path}.{name}[{i}]", _REASONING) for i, part in enumerate(parts))


def _call(item: InputItem, path: str) -> ToolCall:
    if not item.call_id:
        raise _missing(f"{path}.call_id")
    if not item.name:
        raise _missing(f"{path}.name")
    if not isinstance(item.arguments, str):
        raise InvalidRequest(f"{path}.arguments has to be JSON text.", param=f"{path}.arguments")
    return ToolCall(id=item.call_id, name=item.name, arguments=item.arguments)


def _result(item: InputItem, path: str) -> Message:
    if not item.call_id:
        raise _missing(f"{path}.call_id")
    if not isinstance(item.output, str | list):
        raise InvalidRequest(f"{path}.output has to be a text or a list of parts.", param=f"{path}.output")
    return Message(role="tool", content=_text(item.output, f"{path}.output"), tool_call_id=item.call_id)


def _text(content: Content, path: str) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(_text_of(part, f"{path}[{number}]", _TEXTS) for number, part in enumerate(content))


def _text_of(part: InputPart, path: str, kinds: frozenset[str]) -> str:
    if part.type in _NOT_TEXT:
        raise UnsupportedParameter(
            f"Only text can be read here, no {part.type}; this model takes no images, audio or files.", param=path
        )
    if part.type not in kinds:
        raise InvalidRequest(f"{path}.type: {part.type!r} is not known here.", param=f"{path}.type")
    name, text = ("refusal", part.refusal) if part.type == "refusal" else ("text", part.text)
    if text is None:
        raise _missing(f"{path}.{name}")
    return text


def _missing(path: str) -> InvalidRequest:
    return InvalidRequest(f"{path} is missing.", param=path)


def _id_of(item: InputItem, number: int, response_id: str) -> str:
    prefix = _ID_PREFIXES.get(item.type or "message", "msg")
    return item.id or f"{prefix}_{response_id.removeprefix('resp_')}_{number}"


def _listed(item: InputItem, item_id: str) -> ListedItem:
    """The item was read by `messages_of` before, so what its type needs is there."""
    match item.type:
        case "reasoning":
            texts = [item.content] if isinstance(item.content, str) else [part.text for part in item.content or ()]
            return ReasoningItem(
                id=item_id,
                status="completed",
                summary=[SummaryTextPart(part.text or "") for part in item.summary or ()],
                content=[ReasoningTextPart(text or "") for text in texts],
            )
        case "function_call":
            call_id, name, arguments = item.call_id or "", item.name or "", str(item.arguments)
            return FunctionCallItem(id=item_id, status="completed", call_id=call_id, name=name, arguments=arguments)
        case "function_call_output":
            output = [InputTextPart(part.text or "") for part in item.output] if isinstance(item.output, list) else None
            return FunctionCallOutputItem(
                id=item_id, status="completed", call_id=item.call_id or "", output=output or str(item.output)
            )
        case _:
            return _listed_message(item, item_id)


def _listed_message(item: InputItem, item_id: str) -> MessageItem:
    role = item.role or "user"
    kind = OutputTextPart if role == "assistant" else InputTextPart
    content: list[OutputTextPart | InputTextPart | OutputRefusalPart]
    if isinstance(item.content, str):
        content = [kind(text=item.content)]
    else:
        content = [
            OutputRefusalPart(part.refusal or "") if part.type == "refusal" else kind(text=part.text or "")
            for part in item.content or ()
        ]
    return MessageItem(id=item_id, status="completed", role=role, content=content)
