"""A conversation as text by a template in Go's text/template, as Ollama's Modelfiles have it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from exo.chat.go_run import Run
from exo.chat.go_syntax import Body, Branches, Call, Dot, Expression, Fields, Node, Output, Range, Set, parse
from exo.chat.go_tokens import SyntaxProblem
from exo.chat.go_values import Problem, Record
from exo.chat.template import json_object
from exo.types import Message, ModelLoadError, RunFailed

__all__ = ["GoTemplate"]

_RESPONSE = Output(1, Fields(Dot(), ("Response",)))


class GoTemplate:
    """A template as Ollama takes it, with the same use as ChatTemplate. What is bounded is said in exo.chat.go_run.

    Neighbouring messages of the same role are joined by an empty line first, but for those of tools. Then:

    - One that names neither `.Messages` nor `.Response` gets `{{ .Response }}` at its end.
    - A template that names `.Messages` is rendered once, with `.Messages`, `.System` (all system messages, which are
      among the messages too), `.Tools` (`tools` of `extra`) and `.Think`, `.IsThinkSet` (`enable_thinking` of `extra`).
      Where the next answer begins is its own matter, so `add_generation_prompt` makes no difference.
    - Any other is rendered once for each pair of a user's message and its answer, and the texts are put together.
      `.System` is set for the pair that follows it. Of the last one everything behind `{{ .Response }}` is left out,
      in the source's order, so that the model goes on there: with its answer, or with what the last message
      has of it. Without `add_generation_prompt` nothing is left out. Tools and reasoning have no place in these.

    `name` stands in messages of errors. Raises ModelLoadError if the source is no template, or names a function or a
    field that does not exist.
    """

    def __init__(self, source: str, *, name: str = "The chat template") -> None:
        self.source = source
        self._name = name
        try:
            tree = parse(source)
        except SyntaxProblem as problem:
            raise ModelLoadError(
                f"{name} is not one that Go's text/template understands ({problem}). "
                "Mend it, or fetch the model's files again."
            ) from problem
        self._variables = tree.variables
        self._takes_messages = "Messages" in tree.fields
        self._body = tree.body if tree.fields & {"Messages", "Response"} else (*tree.body, _RESPONSE)
        self._beginning, _ = _up_to_response(self._body)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True, **extra: object) -> str:
        """The prompt for `messages`, in their order. Raises RunFailed if the template does not work with them."""
        run = Run()
        try:
            if self._takes_messages:
                return run.render(self._body, self._variables, _conversation(messages, extra))
            pairs = list(_pairs(messages))
            ends = [self._body] * (len(pairs) - 1) + [self._beginning if add_generation_prompt else self._body]
            texts = [run.render(body, self._variables, pair) for pair, body in zip(pairs, ends, strict=True)]
        except (Problem, RecursionError, TypeError, ValueError, OverflowError) as error:
            # The last four come from values of callers: tools that are no JSON, or numbers with thousands of digits.
            raise RunFailed(
                f"{self._name} does not work with these messages (line {run.line}: {error}). "
                "Mend it, or fetch the model's files again."
            ) from error
        return "".join(texts)


def _up_to_response(body: Body) -> tuple[Body, bool]:
    """What is left of a body if all behind the first output of `.Response` is taken away, and whether it is there."""
    kept: list[Node] = []
    for node in body:
        found = False
        left: Node = node
        if isinstance(node, Output | Set):
            found = _names_response(node.value)
        elif isinstance(node, Branches):
            left, found = _branches_up_to_response(node)
        elif isinstance(node, Range):
            left, found = _range_up_to_response(node)
        kept.append(left)
        if found:
            return tuple(kept), True
    return tuple(kept), False


def _branches_up_to_response(node: Branches) -> tuple[Branches, bool]:
    """Branches behind the one with `.Response` stay, but are empty: which one is taken must not change."""
    cases, found = [], False
    for place, value, body in node.cases:
        kept, is_here = ((), True) if found else _up_to_response(body)
        cases.append((place, value, kept))
        found = found or is_here
    otherwise, found = ((), True) if found else _up_to_response(node.otherwise)
    return replace(node, cases=tuple(cases), otherwise=otherwise), found


def _range_up_to_response(node: Range) -> tuple[Range, bool]:
    body, found = _up_to_response(node.body)
    otherwise, found = ((), True) if found else _up_to_response(node.otherwise)
    return replace(node, body=body, otherwise=otherwise), found


def _names_response(value: Expression) -> bool:
    if isinstance(value, Fields):
        return "Response" in value.names or _names_response(value.of)
    return isinstance(value, Call) and any(map(_names_response, value.values))


def _pairs(messages: Sequence[Message]) -> Iterator[Record]:
    """What a template without `.Messages` is rendered with, one after the other; at least one."""
    pair = {"system": "", "prompt": "", "response": ""}
    for message in _joined(messages):
        is_over = {"system": pair["prompt"] or pair["response"], "user": pair["response"]}
        if is_over.get(message.role):
            yield Record("conversation", pair)
            pair = dict.fromkeys(pair, "")
        key = {"system": "system", "user": "prompt", "assistant": "response"}.get(message.role)
        if key is not None:
            pair[key] = message.content
    yield Record("conversation", pair)


def _conversation(messages: Sequence[Message], extra: Mapping[str, object]) -> Record:
    thinking = extra.get("enable_thinking")
    tools = extra.get("tools")
    return Record(
        "conversation",
        {
            "system": "\n\n".join(message.content for message in messages if message.role == "system"),
            "messages": list(_as_records(messages)),
            "tools": [_tool_as_record(tool) for tool in tools] if isinstance(tools, list | tuple) else [],
            "think": bool(thinking),
            "is_think_set": thinking is not None,
        },
    )


def _joined(messages: Sequence[Message]) -> Iterator[Message]:
    last: Message | None = None
    for message in messages:
        if last is not None and last.role == message.role != "tool":
            last = msgspec.structs.replace(
                last,
                content="\n\n".join(text for text in (last.content, message.content) if text),
                reasoning="\n\n".join(text for text in (last.reasoning, message.reasoning) if text),
                tool_calls=(*last.tool_calls, *message.tool_calls),
            )
            continue
        if last is not None:
            yield last
        last = message
    if last is not None:
        yield last


def _as_records(messages: Sequence[Message]) -> Iterator[Record]:
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    for message in _joined(messages):
        made: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.reasoning:
            made["thinking"] = message.reasoning
        if message.tool_calls:
            made["tool_calls"] = [
                Record("tool call", {"id": call.id, "function": _function_as_record(index, call.name, call.arguments)})
                for index, call in enumerate(message.tool_calls)
            ]
        if message.tool_call_id is not None:
            made["tool_name"] = names.get(message.tool_call_id, "")
            made["tool_call_id"] = message.tool_call_id
        yield Record("message", made)


def _function_as_record(index: int, name: str, arguments: str) -> Record:
    return Record("function", {"index": index, "name": name, "arguments": json_object(arguments)})


def _tool_as_record(tool: object) -> object:
    """Further down, parameters are what the caller has sent."""
    if not isinstance(tool, dict):
        return tool
    function = tool.get("function")
    return Record("tool", {**tool, "function": Record("function", function)} if isinstance(function, dict) else tool)
