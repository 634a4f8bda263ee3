"""YAML as people write it, from plain data: block style, quotes only where they have to be. Written, never read."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, Union

_WIDTH = 110
_PLAIN = re.compile(r"[A-Za-z_/$](?!.*(?:: | #)).*(?<![:\s])|[A-Za-z_/$]")
_DURATION = re.compile(r"(?:\d+(?:ms|[smhdwy]))+")
_WORDS_WITH_A_MEANING = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})


@dataclass(frozen=True)
class Commented:
    """An item of a list with a comment of one line above it."""

    comment: str
    value: Yaml


Yaml: TypeAlias = Union["Mapping[str, Yaml]", "Sequence[Yaml | Commented]", str, float, bool]


def to_yaml(value: Yaml) -> str:
    """`value` as a document. Order is kept; text of several lines stays so, and long text is folded.

    Folded text must not have two spaces in a row, since a fold stands for one.
    """
    return "\n".join(_block(value)) + "\n"


def _block(value: Yaml) -> Iterator[str]:
    """The lines of a value that begins on a line of its own."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _after(f"{_scalar(key)}:", item)
    elif isinstance(value, Sequence) and value and not isinstance(value, str):
        for entry in value:
            yield from _item(entry)
    else:
        yield _scalar(value)


def _item(item: Yaml | Commented) -> Iterator[str]:
    if isinstance(item, Commented):
        yield f"# {item.comment}"
        item = item.value
    first, *rest = _block(item)
    yield f"- {first}"
    yield from _indented(rest)


def _after(key: str, value: Yaml) -> Iterator[str]:
    if isinstance(value, str) and "\n" in value:
        yield f"{key} |-"
        yield from _indented(value.split("\n"))
    elif isinstance(value, str) and len(value) > _WIDTH:
        yield f"{key} >-"
        yield from _indented(textwrap.wrap(value, _WIDTH, break_long_words=False, break_on_hyphens=False))
    elif isinstance(value, Mapping | Sequence) and value and not isinstance(value, str):
        yield key
        yield from _indented(_block(value))
    else:
        yield f"{key} {_scalar(value)}"


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {line}" if line else "" for line in lines)


def _scalar(value: Yaml) -> str:
    """A text, a number, or a collection that is empty."""
    if not isinstance(value, str):
        return json.dumps(value)
    is_plain = _PLAIN.fullmatch(value) and value.isprintable() and value.lower() not in _WORDS_WITH_A_MEANING
    return value if is_plain or _DURATION.fullmatch(value) else json.dumps(value, ensure_ascii=False)
