"""The jinja2 environment of chat templates. Imported only once a template is used: jinja2 costs 10 MB.

A template comes with a model's files and is a program. It runs in jinja2's immutable sandbox, and what it may build is
bounded: `range`, sequences made with `+` and `*`, powers, and numbers handed to padding methods and filters. Not
bounded: loops over the conversation within each other, text doubled by `~` or `{% set %}` blocks, and widths inside of
format strings. So a template can still waste time and memory: serve only models from where you trust.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sized
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateRuntimeError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

__all__ = ["LONGEST", "RaisedByTemplate", "TemplateEnvironment", "bounded_range", "too_much"]

LONGEST = 16 * 2**20
"""Characters of a rendered prompt, and items of any sequence that a template builds."""
MAX_ITERATIONS = 1_000_000
"""Sum of the lengths of all ranges in one rendering."""
_MAX_NUMBER = 10_000
"""Widths, indents and counts that a template hands to methods of strings and to filters."""
_MAX_BITS = 4096
_COUNTING_FILTERS = ("batch", "center", "indent", "round", "slice", "tojson", "truncate", "wordwrap")


class RaisedByTemplate(TemplateRuntimeError):
    """The template called `raise_exception`: it refuses the messages."""


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Set up as the makers of models expect it: the functions, filters and blank handling of Hugging Face's library."""

    intercepted_binops = frozenset({"+", "*", "**"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, GenerationTag])
        self.globals.pop("lipsum")
        self.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
        self.filters["tojson"] = _tojson
        for name in _COUNTING_FILTERS:
            self.filters[name] = _bounded(self.filters[name])

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+":
            size = _size(left) + _size(right)
        elif operator == "*":
            size = max(_size(left) * _count(right), _size(right) * _count(left))
            _check_bits(left, right, lambda a, b: a.bit_length() + b.bit_length())
        else:
            size = 0
            _check_bits(left, right, lambda a, b: a.bit_length() * abs(b))
        if size > LONGEST:
            raise too_much(f"builds something of {size} characters or items")
        return super().call_binop(context, operator, left, right)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """As the sandbox's own: the context, the function, its arguments."""
        if isinstance(getattr(args[1], "__self__", None), str):
            _check_numbers(*args[2:], *kwargs.values())
        return super().call(*args, **kwargs)


class GenerationTag(Extension):
    """`{% generation %} … {% endgeneration %}` marks what a model is trained on; when serving it has no effect."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it as a variable of instances

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def bounded_range() -> Callable[..., range]:
    """A `range` for one rendering; all that it gives out together has at most MAX_ITERATIONS items."""
    left = MAX_ITERATIONS

    def limited(*args: int) -> range:
        nonlocal left
        made = range(*args)
        left -= len(made)
        if left < 0:
            raise too_much(f"counts to more than {MAX_ITERATIONS}")
        return made

    return limited


def too_much(what: str) -> SecurityError:
    return SecurityError(f"it {what}, which is over the limit")


def _raise_exception(message: str) -> NoReturn:
    raise RaisedByTemplate(str(message))


def _strftime_now(pattern: str) -> str:
    return datetime.now().astimezone().strftime(pattern)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - the order in which templates pass it
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002 - as above
) -> str:
    """JSON without HTML escapes, unlike jinja2's own filter of that name."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)  # with its marks: jinja2 sees by them that a filter wants the environment
    def checked(*args: Any, **kwargs: Any) -> Any:
        _check_numbers(*args[1:], *kwargs.values())
        return function(*args, **kwargs)

    return checked


def _check_numbers(*values: Any) -> None:
    for value in values:
        if _count(value) > _MAX_NUMBER:
            raise too_much(f"asks for a width or a count of {value}")


def _check_bits(left: Any, right: Any, bits: Callable[[int, int], int]) -> None:
    if isinstance(left, int) and isinstance(right, int) and bits(left, right) > _MAX_BITS:
        raise too_much(f"makes a number of more than {_MAX_BITS} bits")


def _size(value: Any) -> int:
    return len(value) if isinstance(value, Sized) else 0


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
