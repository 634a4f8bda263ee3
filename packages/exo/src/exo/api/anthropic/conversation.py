"""Anthropic's messages, made of blocks, to ours, which are plain text."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Sequence

import msgspec

from exo.api.anthropic.fields import BLOCKS
from exo.api.anthropic.schema import (
    AnthropicMessage,
    Block,
    RedactedThinkingBlock,
    RefusedBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from exo.types import InvalidRequest, Message, Role, ToolCall, UnsupportedParameter

_ERROR = "Error: "


def messages_of(system: str | Sequence[TextBlock] | None, wire: Sequence[AnthropicMessage]) -> tuple[Message, ...]:
    """The conversation. Turns of one role that follow each other become one, as with Anthropic.

    Raises InvalidRequest for blocks that do not belong where they are, UnsupportedParameter for those that nobody here
    can read, and for an answer that was begun.
    """
    instructions = _joined(system or "")
    messages = [Message(role="system", content=instructions)] if instructions else []
    for number, message in enumerate(wire):
        messages += _messages(message, f"messages[{number}]")
    if wire[-1].role == "assistant":
        raise UnsupportedParameter(
            f"messages[{len(wire) - 1}]: an answer that was begun cannot be continued here; end with a user message.",
            param=f"messages[{len(wire) - 1}]",
        )
    turns = itertools.groupby(messages, key=operator.attrgetter("role"))
    return tuple(itertools.chain.from_iterable(_turn(role, list(parts)) for role, parts in turns))


def _messages(wire: AnthropicMessage, path: str) -> Iterator[Message]:
    if isinstance(wire.content, str):
        yield Message(role=wire.role, content=wire.content)
        return
    if not wire.content:
        raise InvalidRequest(f"{path}.content is empty.", param=f"{path}.content")
    if wire.role == "assistant":
        yield _of_assistant(wire.content, path)
    else:
        yield from _of_others(wire.role, wire.content, path)


def _of_assistant(blocks: Sequence[Block], path: str) -> Message:
    """Its texts are pieces of one: that is how answers are cut into blocks."""
    texts, reasoning, calls = [], [], []
    for number, block in enumerate(blocks):
        if isinstance(block, TextBlock):
            texts.append(block.text)
        elif isinstance(block, ThinkingBlock):
            reasoning.append(block.thinking)
        elif isinstance(block, ToolUseBlock):
            arguments = msgspec.json.encode(block.input).decode()
            calls.append(ToolCall(id=block.id, name=block.name, arguments=arguments))
        elif not isinstance(block, RedactedThinkingBlock):
            raise _refusal(block, f"{path}.content[{number}]", "assistant")
    return Message(role="assistant", content="".join(texts), reasoning="".join(reasoning), tool_calls=tuple(calls))


def _of_others(role: Role, blocks: Sequence[Block], path: str) -> Iterator[Message]:
    """Results of tools are messages of their own; text stays where it is between them."""
    texts: list[TextBlock] = []
    for number, block in enumerate(blocks):
        place = f"{path}.content[{number}]"
        if isinstance(block, TextBlock):
            texts.append(block)
            continue
        if role != "user" or not isinstance(block, ToolResultBlock):
            raise _refusal(block, place, role)
        if texts:
            yield Message(role=role, content=_joined(texts))
            texts = []
        yield _result(block, place)
    if texts:
        yield Message(role=role, content=_joined(texts))


def _result(block: ToolResultBlock, path: str) -> Message:
    content = block.content or ""
    if not isinstance(content, str):
        for number, part in enumerate(content):
            if not isinstance(part, TextBlock):
                raise _refusal(part, f"{path}.content[{number}]", "user")
        content = _joined([part for part in content if isinstance(part, TextBlock)])
    return Message(role="tool", content=f"{_ERROR if block.is_error else ''}{content}", tool_call_id=block.tool_use_id)


def _refusal(block: Block, path: str, role: str) -> InvalidRequest:
    kind = str(block.__struct_config__.tag)
    if isinstance(block, RefusedBlock):
        return UnsupportedParameter(f"{path} is of the type {kind}. {BLOCKS[kind].note}", param=path)
    return InvalidRequest(f"{path}: {kind} does not belong in a message of the role {role}.", param=path)


def _joined(content: str | Sequence[TextBlock]) -> str:
    return content if isinstance(content, str) else "\n".join(block.text for block in content)


def _turn(role: Role, parts: Sequence[Message]) -> Sequence[Message]:
    if len(parts) == 1 or role not in {"user", "assistant"}:
        return parts
    return (
        Message(
            role=role,
            content="\n".join(part.content for part in parts if part.content),
            reasoning="\n".join(part.reasoning for part in parts if part.reasoning),
            tool_calls=tuple(call for part in parts for call in part.tool_calls),
        ),
    )
