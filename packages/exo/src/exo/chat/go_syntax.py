"""Go's text/template as a tree: the subset that Modelfiles use.

Templates within templates (`define`, `template`, `block`) are left out, so nothing in the tree can call itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, NoReturn, TypeAlias

from exo.chat.go_tokens import Action, SyntaxProblem, Token, items_of, short
from exo.chat.go_values import FIELDS, FUNCTIONS, Problem, check_format

__all__ = [
    "Body",
    "Branches",
    "Call",
    "Constant",
    "Dot",
    "Expression",
    "Fields",
    "Leave",
    "Node",
    "Output",
    "Range",
    "Set",
    "Tree",
    "Variable",
    "parse",
]

MAX_DEPTH = 50
"""Blocks within each other."""
MAX_PARTS = 100
"""Parentheses and pipes in one action."""


@dataclass(frozen=True)
class Constant:
    value: Any


@dataclass(frozen=True)
class Dot:
    """What the template is about at this place."""


@dataclass(frozen=True)
class Variable:
    """`place` among the variables of a rendering; 0 is `$`. Every declaration has a place of its own."""

    place: int


@dataclass(frozen=True)
class Fields:
    of: Expression
    names: tuple[str, ...]


@dataclass(frozen=True)
class Call:
    """What comes through a pipe is the last of the values."""

    function: str
    values: tuple[Expression, ...]


Expression: TypeAlias = Constant | Dot | Variable | Fields | Call


@dataclass(frozen=True)
class Output:
    line: int
    value: Expression


@dataclass(frozen=True)
class Set:
    line: int
    place: int
    value: Expression


@dataclass(frozen=True)
class Branches:
    """`if`, or `with`, for which the value is what the body is about. `place` is that of a variable for the value."""

    line: int
    is_with: bool
    cases: tuple[tuple[int | None, Expression, Body], ...]
    otherwise: Body


@dataclass(frozen=True)
class Range:
    line: int
    index: int | None
    item: int | None
    value: Expression
    body: Body
    otherwise: Body


@dataclass(frozen=True)
class Leave:
    """`break` or `continue`."""

    line: int
    how: Literal["break", "continue"]


Node: TypeAlias = str | Output | Set | Branches | Range | Leave
Body: TypeAlias = tuple[Node, ...]


class Tree(NamedTuple):
    """`fields` are all that the template names, `variables` how many places it needs."""

    body: Body
    fields: frozenset[str]
    variables: int


def parse(source: str) -> Tree:
    """Raises SyntaxProblem, also for functions and fields that do not exist."""
    parser = _Parser(items_of(source))
    body = parser.template()
    return Tree(body, frozenset(parser.fields), parser.variables)


class _Parser:
    """One action after the other; `self._tokens` are what is left of the present one, the next token last."""

    def __init__(self, items: Iterator[str | Action]) -> None:
        self.fields: set[str] = set()
        self.variables = 1
        self._items = items
        self._tokens: list[Token] = []
        self._line = 1
        self._depth = 0
        self._parts = 0
        self._ranges = 0
        self._scopes: list[dict[str, int]] = [{"$": 0}]

    def template(self) -> Body:
        body, closing = self._body()
        if closing:
            self._fail(f"{{{{{closing}}}}} closes nothing")
        return body

    def _body(self) -> tuple[Body, str]:
        """Up to the end, or to an `else` or `end`, which is taken and returned."""
        self._scopes.append({})
        nodes: list[Node] = []
        closing = ""
        for item in self._items:
            if isinstance(item, str):
                nodes += [item] if item else []
                continue
            self._line, self._tokens, self._parts = item.line, item.tokens[::-1], 0
            if not self._tokens:
                self._fail("there is nothing between {{ and }}")
            word = self._tokens[-1].text if self._tokens[-1].kind == "word" else ""
            if word in ("else", "end"):
                self._tokens.pop()
                closing = word
                break
            nodes.append(self._action(word))
        self._scopes.pop()
        return tuple(nodes), closing

    def _action(self, word: str) -> Node:
        line = self._line
        if word in ("if", "with"):
            return self._nested(self._branches, line, word)
        if word == "range":
            return self._nested(self._range, line, word)
        if word in ("break", "continue"):
            self._tokens.pop()
            self._check_end()
            if not self._ranges:
                self._fail(f"{{{{{word}}}}} is not within a range")
            return Leave(line, "break" if word == "break" else "continue")
        if word in ("define", "template", "block"):
            self._fail(f"{{{{{word}}}}} is not supported: write the template as one")
        names, sign = self._assignment(most=1)
        value = self._pipeline()
        self._check_end()
        return Set(line, self._places(names, sign)[0], value) if names else Output(line, value)

    def _nested(self, block: Callable[[int, str], Node], line: int, word: str) -> Node:
        self._tokens.pop()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"more than {MAX_DEPTH} blocks are within each other")
        self._scopes.append({})
        node = block(line, word)
        self._scopes.pop()
        self._depth -= 1
        return node

    def _branches(self, line: int, word: str) -> Branches:
        cases = []
        while True:
            names, sign = self._assignment(most=1)
            value = self._pipeline()
            self._check_end()
            place = self._places(names, sign)[0] if names else None
            body, closing = self._body()
            cases.append((place, value, body))
            if closing != "else" or not self._next_is_word(word):
                break
            self._tokens.pop()
        return Branches(line, word == "with", tuple(cases), self._otherwise(line, word, closing))

    def _range(self, line: int, word: str) -> Range:
        names, sign = self._assignment(most=2)
        value = self._pipeline()
        self._check_end()
        places = self._places(names, sign)
        self._ranges += 1
        body, closing = self._body()
        self._ranges -= 1
        index = places[0] if len(places) > 1 else None
        item = places[-1] if places else None
        return Range(line, index, item, value, body, self._otherwise(line, word, closing))

    def _otherwise(self, line: int, word: str, closing: str) -> Body:
        body: Body = ()
        if closing == "else":
            self._check_end()
            body, closing = self._body()
        if closing != "end":
            what = "is not closed with {{end}}" if not closing else "has an {{else}} behind its {{else}}"
            raise SyntaxProblem(line, f"the {{{{{word}}}}} of this line {what}")
        self._check_end()
        return body

    def _assignment(self, *, most: int) -> tuple[list[str], str]:
        """The variables before `:=` or `=`, and that sign; neither if there is none."""
        signs = [token.text for token in self._tokens if token.kind == "sign" and token.text in (":=", "=")]
        if not signs:
            return [], ""
        names: list[str] = []
        while True:
            token = self._take()
            if token.kind != "variable" or token.text == "$" or len(names) == most:
                self._fail(f"{token.text} cannot stand before {signs[-1]}")
            names.append(token.text)
            sign = self._take().text
            if sign != ",":
                break
        if sign not in (":=", "="):
            self._fail(f"{sign} cannot stand before {signs[-1]}")
        return names, sign

    def _places(self, names: list[str], sign: str) -> tuple[int, ...]:
        """Where the variables are; after the value, since that cannot name them."""
        if sign == ":=":
            for name in names:
                self._scopes[-1][name] = self.variables
                self.variables += 1
        return tuple(self._place(name) for name in names)

    def _place(self, name: str) -> int:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        raise SyntaxProblem(self._line, f"there is no variable {name} here")

    def _pipeline(self) -> Expression:
        value = self._command(None)
        while self._next_is("|"):
            self._tokens.pop()
            self._count_part()
            value = self._command(value)
        return value

    def _command(self, piped: Expression | None) -> Expression:
        """A function with its values, or one value."""
        is_function = bool(self._tokens) and self._tokens[-1].kind == "word"
        if not is_function:
            if piped is not None:
                self._fail(f"{self._take().text} is no function, and nothing can be piped into it")
            value = self._operand()
            if not self._at_end():
                self._fail(f"{self._tokens[-1].text} stands behind a value that is no function")
            return value
        name = self._take().text
        self._check_apart()
        values = []
        while not self._at_end():
            values.append(self._operand())
        return self._call(name, (*values, piped) if piped is not None else tuple(values))

    def _call(self, name: str, values: tuple[Expression, ...]) -> Call:
        if name not in FUNCTIONS:
            self._fail(f"there is no function {short(name)}; there are {', '.join(sorted(FUNCTIONS))}")
        least, most, _ = FUNCTIONS[name]
        if not least <= len(values) <= most:
            self._fail(f"{name} takes {least if len(values) < least else most} values, not {len(values)}")
        if name == "printf" and isinstance(values[0], Constant) and isinstance(values[0].value, str):
            try:
                check_format(values[0].value)
            except Problem as problem:
                self._fail(str(problem))
        return Call(name, values)

    def _operand(self) -> Expression:
        token = self._take()
        value: Expression
        if token.kind == "constant":
            value = Constant(token.value)
        elif token.kind == "variable":
            value = Variable(self._place(token.text))
        elif token.kind == "dot":
            value = Dot()
        elif token.kind == "field":
            value = Fields(Dot(), (self._field(token),))
        elif token.kind == "word":
            value = self._call(token.text, ())
        elif token.text == "(":
            self._count_part()
            value = self._pipeline()
            if not self._next_is(")"):
                self._fail("a parenthesis is not closed")
            self._tokens.pop()
        else:
            self._fail(f"{token.text} cannot stand here")
        return self._chain(value, can_have_fields=token.kind in ("variable", "field", "sign"))

    def _chain(self, value: Expression, *, can_have_fields: bool) -> Expression:
        names: list[str] = []
        while can_have_fields and self._tokens and self._tokens[-1].kind == "field" and not self._tokens[-1].is_apart:
            names.append(self._field(self._tokens.pop()))
        self._check_apart()
        if isinstance(value, Fields) and isinstance(value.of, Dot):
            return Fields(value.of, (*value.names, *names))
        return Fields(value, tuple(names)) if names else value

    def _field(self, token: Token) -> str:
        name = token.text[1:]
        if name not in FIELDS:
            self._fail(f"there is no field .{short(name)}")
        self.fields.add(name)
        return name

    def _take(self) -> Token:
        if not self._tokens:
            self._fail("a value is missing at the end")
        return self._tokens.pop()

    def _next_is(self, sign: str) -> bool:
        return bool(self._tokens) and self._tokens[-1].kind == "sign" and self._tokens[-1].text == sign

    def _next_is_word(self, word: str) -> bool:
        return bool(self._tokens) and self._tokens[-1].kind == "word" and self._tokens[-1].text == word

    def _at_end(self) -> bool:
        return not self._tokens or self._next_is("|") or self._next_is(")")

    def _check_end(self) -> None:
        if self._tokens:
            self._fail(f"{short(self._tokens[-1].text)} cannot stand here")

    def _check_apart(self) -> None:
        if not self._at_end() and not self._tokens[-1].is_apart:
            self._fail(f"a blank is missing before {short(self._tokens[-1].text)}")

    def _count_part(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            self._fail(f"there are more than {MAX_PARTS} parentheses and pipes")

    def _fail(self, what: str) -> NoReturn:
        raise SyntaxProblem(self._line, what)
