"""Carries a Go template out, with bounded work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from exo.chat.go_syntax import (
    Body,
    Branches,
    Call,
    Constant,
    Dot,
    Expression,
    Fields,
    Leave,
    Node,
    Output,
    Range,
    Set,
    Variable,
)
from exo.chat.go_values import FUNCTIONS, Problem, field_of, is_true, kind_of, text_of

__all__ = ["LONGEST", "MAX_STEPS", "Run"]

LONGEST = 16 * 2**20
"""Characters of a rendered prompt, and of any text that a template builds."""
MAX_STEPS = 2_000_000
"""Actions, calls of functions and turns of loops in one rendering, some seconds of work. A text or list that goes into
a function or comes out of it costs a further step for every 256 characters or items."""
_CHARACTERS_PER_STEP = 256

_End = Literal["break", "continue"] | None


class Run:
    """One rendering of a conversation, in one text or several. `line` is that of the action under way."""

    def __init__(self) -> None:
        self.line = 1
        self._steps = 0
        self._pieces: list[str] = []
        self._length = 0
        self._variables: list[Any] = []

    def render(self, body: Body, variables: int, data: Mapping[str, Any]) -> str:
        """`variables` is their number. Raises Problem, and whatever Python has against the values of callers."""
        self._pieces = []
        self._variables = [data, *[None] * (variables - 1)]
        self._body(body, data)
        return "".join(self._pieces)

    def _body(self, body: Body, dot: Any) -> _End:
        for node in body:
            if isinstance(node, str):
                self._write(node)
                continue
            self.line = node.line
            self._work(1)
            end = self._node(node, dot)
            if end is not None:
                return end
        return None

    def _node(self, node: Node, dot: Any) -> _End:
        if isinstance(node, Output):
            value = self._value(node.value, dot)
            self._write("<no value>" if value is None else text_of(value))
        elif isinstance(node, Set):
            self._variables[node.place] = self._value(node.value, dot)
        elif isinstance(node, Branches):
            return self._branches(node, dot)
        elif isinstance(node, Range):
            return self._range(node, dot)
        elif isinstance(node, Leave):
            return node.how
        return None

    def _branches(self, node: Branches, dot: Any) -> _End:
        for place, expression, body in node.cases:
            value = self._value(expression, dot)
            if place is not None:
                self._variables[place] = value
            if is_true(value):
                return self._body(body, value if node.is_with else dot)
        return self._body(node.otherwise, dot)

    def _range(self, node: Range, dot: Any) -> _End:
        value = self._value(node.value, dot)
        if not isinstance(value, list | dict) and value is not None:
            raise Problem(f"range goes over a value of type {kind_of(value)}")
        if not value:
            return self._body(node.otherwise, dot)
        for index, item in _pairs(value):
            self._work(1)
            if node.index is not None:
                self._variables[node.index] = index
            if node.item is not None:
                self._variables[node.item] = item
            if self._body(node.body, item) == "break":
                break
        return None

    def _value(self, expression: Expression, dot: Any) -> Any:
        if isinstance(expression, Dot):
            return dot
        if isinstance(expression, Constant):
            return expression.value
        if isinstance(expression, Variable):
            return self._variables[expression.place]
        if isinstance(expression, Fields):
            value = self._value(expression.of, dot)
            for name in expression.names:
                value = field_of(value, name)
            return value
        return self._call(expression, dot)

    def _call(self, call: Call, dot: Any) -> Any:
        self._work(1)
        if call.function in ("and", "or"):
            for part in call.values:
                value = self._value(part, dot)
                if is_true(value) == (call.function == "or"):
                    break
            return value
        values = [self._value(part, dot) for part in call.values]
        self._work(sum(map(_size, values)) // _CHARACTERS_PER_STEP)
        value = FUNCTIONS[call.function][2](*values)
        if isinstance(value, str) and len(value) > LONGEST:
            raise Problem(f"it builds a text of more than {LONGEST} characters")
        self._work(_size(value) // _CHARACTERS_PER_STEP)
        return value

    def _write(self, text: str) -> None:
        self._length += len(text)
        if self._length > LONGEST:
            raise Problem(f"it writes more than {LONGEST} characters")
        self._pieces.append(text)

    def _work(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise Problem(f"it takes more than {MAX_STEPS} steps")


def _pairs(value: list[Any] | dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Maps in the order of their keys, as Go does it."""
    return iter(sorted(value.items(), key=lambda pair: pair[0]) if isinstance(value, dict) else enumerate(value))


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | list) else 0
