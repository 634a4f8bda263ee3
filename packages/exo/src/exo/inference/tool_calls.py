"""Calls of functions in an answer: handed on once their arguments fit, else given as text that says why."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

import msgspec

from exo.chat import NotACall
from exo.inference.json_check import checking
from exo.inference.openai_wire import new_call_id
from exo.types import AnswerNotValid, ChatRequest, Delta, InvalidRequest, Tool, ToolCallDelta

Chat = Callable[[ChatRequest], AsyncGenerator[Delta, None]]


@dataclass
class _Call:
    """A call as far as it has come."""

    index: int
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def add(self, piece: ToolCallDelta) -> None:
        self.id = piece.id or self.id
        self.name = piece.name or self.name
        self.arguments.append(piece.arguments)


async def answer_with_tools(chat: Chat, request: ChatRequest) -> AsyncGenerator[Delta, None]:
    """The answer of `chat`; a call waits until it is complete and checked, text and reasoning do not.

    A call comes as two deltas: its id and name, then its arguments. One that does not fit comes as text. The finish
    reason is `tool_calls` if there was a call, unless the answer was cut off. Raises AnswerNotValid if the model had to
    call a function and has not.
    """
    checked = _CheckedCalls(request)
    async with contextlib.aclosing(chat(request)) as deltas:
        async for delta in deltas:
            for piece in delta.tool_calls:
                async for call in checked.add(piece):
                    yield call
            if delta.text:
                async for call in checked.complete():
                    yield call
            if delta.finish_reason is None:
                is_call = delta.tool_calls and not delta.text
                rest = msgspec.structs.replace(delta, tool_calls=(), logprobs=() if is_call else delta.logprobs)
                if rest != Delta() or not delta.tool_calls:
                    yield rest
                continue
            if delta.text or delta.reasoning:
                yield Delta(text=delta.text, reasoning=delta.reasoning, logprobs=delta.logprobs)
                delta = msgspec.structs.replace(delta, text="", reasoning="", logprobs=())  # noqa: PLW2901 - the rest of it
            async for call in checked.complete(cut_off=delta.finish_reason == "length"):
                yield call
            yield checked.last(delta)


class _CheckedCalls:
    def __init__(self, request: ChatRequest) -> None:
        self._tools = {tool.name: tool for tool in request.tools}
        self._unusable: dict[str, str] = {}
        """By function, why its schema cannot be followed. What has taken too long once is not tried again."""
        self._most = None if request.parallel_tool_calls else 1
        self._only = request.tool_choice.name
        self._mode = request.tool_choice.mode
        self._model = request.model
        self._current: _Call | None = None
        self._made = 0

    async def add(self, piece: ToolCallDelta) -> AsyncGenerator[Delta, None]:
        """Take a piece; a call whose successor begins is complete."""
        if self._current is not None and self._current.index != piece.index:
            async for delta in self.complete():
                yield delta
        self._current = self._current or _Call(piece.index)
        self._current.add(piece)

    async def complete(self, *, cut_off: bool = False) -> AsyncGenerator[Delta, None]:
        """The call that was under way; one of an answer that was cut off may be complete all the same."""
        call, self._current = self._current, None
        if call is None:
            return
        arguments = "".join(call.arguments) or "{}"
        problem = await self._problem_of(call, arguments)
        if problem:
            reason = "It was cut off: allow more tokens." if cut_off else problem
            yield Delta(text=NotACall(_as_text(call.name, arguments), reason).text)
            return
        index, self._made = self._made, self._made + 1
        yield Delta(tool_calls=(ToolCallDelta(index=index, id=call.id or new_call_id(), name=call.name),))
        yield Delta(tool_calls=(ToolCallDelta(index=index, arguments=arguments),))

    def last(self, delta: Delta) -> Delta:
        """The last delta with the finish reason that is true now. Raises AnswerNotValid."""
        if delta.finish_reason == "length":
            return msgspec.structs.replace(delta, tool_calls=())
        if self._mode == "required" and not self._made:
            raise AnswerNotValid(
                f"{self._model} has called no function, although it had to. Allow it to answer in words, or say more "
                "plainly which function is meant.",
                usage=delta.usage,
            )
        return msgspec.structs.replace(delta, tool_calls=(), finish_reason="tool_calls" if self._made else "stop")

    async def _problem_of(self, call: _Call, arguments: str) -> str:
        tool = self._tools.get(call.name)
        if tool is None:
            return f"There is no function {call.name!r}."
        if self._mode == "none":
            return "No function was to be called."
        if self._only not in (None, call.name):
            return f"Only {self._only!r} was to be called."
        if self._made == self._most:
            return "Only one call at a time was allowed."
        return await self._problem_of_arguments(tool, arguments)

    async def _problem_of_arguments(self, tool: Tool, arguments: str) -> str:
        if tool.name in self._unusable:
            return self._unusable[tool.name]
        try:
            async with checking(None, param="tools") as is_object:
                problem = await is_object(arguments)
            if problem or not tool.parameters:
                return problem
            async with checking(tool.parameters, param="tools") as check:
                return await check(arguments)
        except InvalidRequest as error:
            self._unusable[tool.name] = error.message
            return error.message


def _as_text(name: str, arguments: str) -> str:
    return f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {arguments}}}'
