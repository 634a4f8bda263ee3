"""Single values of a models.yaml, and the surprises that YAML has in them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rkllm_converter.batch.document import Items, Mistakes, Scalar, Value, shown
from rkllm_converter.batch.keys import Kind, Option
from rkllm_converter.names import REPOSITORY
from rkllm_converter.request import IGNORABLE
from rkllm_converter.units import parsed_mb

__all__ = ["Given", "option_of", "path_of", "text_of"]

_LONGEST = 500
_TAKEN_FOR = {
    "bool": "true or false",
    "int": "a number",
    "float": "a number",
    "timestamp": "a date",
    "value": "a key of its own",
    "merge": "a key of its own",
}
_PLAIN: Mapping[Kind, tuple[str, re.Pattern[str], Callable[[str], int | float | bool]]] = {
    Kind.WHOLE: ("a whole number in plain digits", re.compile(r"-?(?:0|[1-9][0-9]{0,17})", re.ASCII), int),
    Kind.COUNT: ("a whole number from 1 in plain digits", re.compile(r"[1-9][0-9]{0,8}", re.ASCII), int),
    Kind.SHARE: (
        "a number such as 0.25",
        re.compile(r"-?[0-9]{0,9}\.?[0-9]{1,17}(?:[eE][-+]?[0-9]{1,2})?", re.ASCII),
        float,
    ),
    Kind.SWITCH: ("true or false", re.compile(r"true|false", re.IGNORECASE), lambda text: text.lower() == "true"),
}


@dataclass(frozen=True, slots=True)
class Given:
    """A value, where it stands, and the path of its key, such as `models[0].revision`."""

    value: Value
    line: int
    path: str


def option_of(given: Given, kind: Kind, base: Path, mistakes: Mistakes) -> Option | None:
    """The value of an option, None after a mistake. Relative paths are seen from `base`."""
    if kind is Kind.IGNORED:
        return _ignored(given, mistakes)
    if kind in _PLAIN:
        return _plain(given, kind, mistakes)
    if kind is Kind.MEMORY:
        return _memory(given, mistakes)
    text = text_of(given, mistakes)
    return text if text is None or kind is Kind.TEXT else path_of(given, text, kind, base, mistakes)


def text_of(given: Given, mistakes: Mistakes) -> str | None:
    """A text, None after a mistake."""
    found = _scalar(given, "a text", mistakes)
    if found is None:
        return None
    problem = _unfit(found)
    if problem:
        mistakes.add(given.line, given.path, problem)
        return None
    return found.text


def path_of(given: Given, text: str, kind: Kind, base: Path, mistakes: Mistakes) -> str | None:
    """The path that a text stands for, which has to be there; for a model it may be an id, which stays as it is."""
    seen = str(base / os.path.expanduser(text))  # noqa: PTH111 - Path's raises for a user that is not there
    if kind is Kind.MODEL and not _is_path(text):
        if os.path.exists(seen):  # noqa: PTH110 - False for what cannot be a path
            return seen
        if not REPOSITORY.fullmatch(text):
            wrong = f"{shown(text)} is neither an id such as owner/name nor a folder or file that is there."
            mistakes.add(given.line, given.path, wrong)
            return None
        return text
    is_there = {Kind.FILE: os.path.isfile, Kind.FOLDER: os.path.isdir}.get(kind, os.path.exists)
    if not is_there(seen):
        what = {Kind.FILE: "file", Kind.FOLDER: "folder"}.get(kind, "file or folder")
        mistakes.add(given.line, given.path, f"there is no {what} {shown(seen)}.")
        return None
    return seen


def _is_path(text: str) -> bool:
    """Whether it cannot be the id of a model."""
    return text.startswith((".", "/", "~")) or text.lower().endswith(".gguf")


def _scalar(given: Given, wanted: str, mistakes: Mistakes) -> Scalar | None:
    if not isinstance(given.value, Scalar):
        found = "a list" if isinstance(given.value, Items) else "a mapping"
        mistakes.add(given.line, given.path, f"has to be {wanted}, not {found}.")
        return None
    if given.value.kind == "null":
        mistakes.add(given.line, given.path, "has no value. Write one, or leave the key out.")
        return None
    return given.value


def _unfit(scalar: Scalar) -> str | None:
    """Why it is no text that anything could be named by."""
    if scalar.kind != "str":
        wrapped = shown(scalar.text)
        return f"YAML takes {wrapped} for {_TAKEN_FOR[scalar.kind]}. If the text is meant, put it in quotes."
    if not scalar.text.strip():
        return "is empty. Write a text, or leave the key out."
    if len(scalar.text) > _LONGEST:
        return f"has more than {_LONGEST} characters."
    if not scalar.text.isprintable():
        return f"has characters that cannot be printed, or ends of lines: {shown(scalar.text)}."
    return None


def _plain(given: Given, kind: Kind, mistakes: Mistakes) -> int | float | bool | None:
    """What is written as it is: a number in plain digits, true or false."""
    wanted, pattern, convert = _PLAIN[kind]
    found = _scalar(given, wanted, mistakes)
    if found is None:
        return None
    if pattern.fullmatch(found.text) and not found.is_quoted:
        return convert(found.text)
    quotes = ", without quotes" if found.is_quoted else ""
    mistakes.add(given.line, given.path, f"has to be {wanted}{quotes}, not {shown(found.text)}.")
    return None


def _memory(given: Given, mistakes: Mistakes) -> str | None:
    """As it is written; that YAML takes what has no unit for a number does not matter."""
    found = _scalar(given, Kind.MEMORY.value, mistakes)
    if found is None:
        return None
    if parsed_mb(found.text) is None:
        mistakes.add(given.line, given.path, f"has to be {Kind.MEMORY.value}, not {shown(found.text)}.")
        return None
    return found.text.strip()


def _ignored(given: Given, mistakes: Mistakes) -> tuple[str, ...] | None:
    if not isinstance(given.value, Items):
        example = f"[{IGNORABLE[0]}]"
        mistakes.add(given.line, given.path, f"has to be a list, such as {example}.")
        return None
    return tuple(_kinds(given.value, given.path, mistakes))


def _kinds(items: Items, path: str, mistakes: Mistakes) -> Iterator[str]:
    for number, value in enumerate(items.values):
        here = Given(value, value.line, f"{path}[{number}]")
        text = text_of(here, mistakes)
        if text is not None and text not in IGNORABLE:
            mistakes.add(here.line, here.path, f"{shown(text)} is none of: {', '.join(IGNORABLE)}.")
        elif text is not None:
            yield text
