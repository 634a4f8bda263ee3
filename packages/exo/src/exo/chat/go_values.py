"""What Go templates work on: the fields that Ollama gives them, and their functions.

Values are those of JSON: None, bool, int, float, str, list, dict. Two things differ from Ollama on purpose, since no
model is trained on them: JSON has no HTML escapes, and `%q` escapes only quotes, backslashes and control characters.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

__all__ = ["FIELDS", "FUNCTIONS", "Problem", "Record", "check_format", "field_of", "is_true", "kind_of", "text_of"]

FIELDS: Mapping[str, tuple[str, Any]] = {
    "System": ("system", ""),
    "Prompt": ("prompt", ""),
    "Response": ("response", ""),
    "Suffix": ("suffix", ""),
    "Messages": ("messages", []),
    "Tools": ("tools", []),
    "Think": ("think", False),
    "ThinkLevel": ("think_level", ""),
    "IsThinkSet": ("is_think_set", False),
    "Role": ("role", ""),
    "Content": ("content", ""),
    "Thinking": ("thinking", ""),
    "Images": ("images", []),
    "ToolCalls": ("tool_calls", []),
    "ToolName": ("tool_name", ""),
    "ToolCallID": ("tool_call_id", ""),
    "ID": ("id", ""),
    "Type": ("type", ""),
    "Function": ("function", {}),
    "Index": ("index", 0),
    "Name": ("name", ""),
    "Arguments": ("arguments", {}),
    "Description": ("description", ""),
    "Parameters": ("parameters", {}),
    "Properties": ("properties", {}),
    "Required": ("required", []),
    "Enum": ("enum", []),
    "Items": ("items", None),
    "AnyOf": ("anyOf", []),
    "Defs": ("$defs", None),
}
"""Every field that a template may name: its key in JSON, and what it is where there is no such key."""

_RECORDS: Mapping[str, frozenset[str]] = {
    "conversation": frozenset(
        ("System", "Prompt", "Response", "Suffix", "Messages", "Tools", "Think", "ThinkLevel", "IsThinkSet")
    ),
    "message": frozenset(("Role", "Content", "Thinking", "Images", "ToolCalls", "ToolName", "ToolCallID")),
    "tool call": frozenset(("ID", "Type", "Function")),
    "tool": frozenset(("Type", "Function", "Items")),
    "function": frozenset(("Index", "Name", "Arguments", "Description", "Parameters")),
}
_KINDS = {type(None): "nil", bool: "bool", int: "int", float: "float", str: "string", list: "list", dict: "map"}
_VERB = re.compile(r"%(.?)", re.DOTALL)
_QUOTED = re.compile(r'[\x00-\x1f\x7f"\\]')
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f"} | {
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}


class Problem(Exception):
    """The template cannot go on; the text says why."""


class Record(dict[str, Any]):
    """A map with fixed fields, which `what` names: a template that asks for another one is wrong."""

    def __init__(self, what: str, content: Mapping[str, Any]) -> None:
        super().__init__(content)
        self.what = what


def field_of(value: Any, name: str) -> Any:
    """Raises Problem where there cannot be such a field."""
    if not isinstance(value, dict):
        raise Problem(f".{name} is asked of a value of type {kind_of(value)}")
    if isinstance(value, Record) and name not in _RECORDS[value.what]:
        raise Problem(f"a {value.what} has no field .{name}")
    key, missing = FIELDS[name]
    return value.get(key, missing)


def kind_of(value: Any) -> str:
    return "map" if isinstance(value, dict) else _KINDS.get(type(value), type(value).__name__)


def is_true(value: Any) -> bool:
    """Zero, "", nil and what is empty are false."""
    return bool(value)


def text_of(value: Any) -> str:
    """As Go prints it, but maps, and lists of them, as JSON: Ollama does so for tools and arguments."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        whole = math.isfinite(value) and value.is_integer() and abs(value) < 1e21
        return str(int(value)) if whole else repr(value)
    if isinstance(value, list) and not any(isinstance(item, dict) for item in value):
        return f"[{' '.join(map(text_of, value))}]"
    return _json(value) if isinstance(value, dict | list) else str(value)


def check_format(text: str) -> list[tuple[str, str]]:
    """A format as pairs of a verb and the text behind it; the first verb is empty. Raises Problem for unknown verbs."""
    parts, verb, done = [], "", 0
    literal = ""
    for found in _VERB.finditer(text):
        literal += text[done : found.start()]
        done = found.end()
        if found[1] == "%":
            literal += "%"
        elif found[1] in ("s", "v", "d", "q"):
            parts.append((verb, literal))
            verb, literal = found[1], ""
        else:
            raise Problem(f"the format has {found[0]!r}: only %s, %v, %d, %q and %% are supported")
    parts.append((verb, literal + text[done:]))
    return parts


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _quoted(text: str) -> str:
    return '"' + _QUOTED.sub(lambda found: _ESCAPES.get(found[0], f"\\x{ord(found[0]):02x}"), text) + '"'


def _printf(pattern: Any, *values: Any) -> str:
    if not isinstance(pattern, str):
        raise Problem(f"printf takes a format first, not a value of type {kind_of(pattern)}")
    (_, made), *parts = check_format(pattern)
    if len(parts) != len(values):
        raise Problem(f"printf has {len(values)} values for the {len(parts)} verbs of {pattern!r}")
    pieces = [made]
    for (verb, literal), value in zip(parts, values, strict=True):
        pieces += (_formatted(verb, value), literal)
    return "".join(pieces)


def _formatted(verb: str, value: Any) -> str:
    if verb == "d" and kind_of(value) != "int":
        raise Problem(f"%d takes a whole number, not a value of type {kind_of(value)}")
    return _quoted(text_of(value)) if verb == "q" else text_of(value)


def _print(*values: Any) -> str:
    """Go puts a blank between two values if neither is a text."""
    pieces: list[str] = []
    for index, value in enumerate(values):
        if index and not isinstance(value, str) and not isinstance(values[index - 1], str):
            pieces.append(" ")
        pieces.append(text_of(value))
    return "".join(pieces)


def _equal(first: Any, *others: Any) -> bool:
    return any([_same(first, other) for other in others])  # noqa: C419 - all are looked at: a wrong type is an error


def _same(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    _check_comparable(one, other, ("bool", "int", "float", "string"))
    return bool(one == other)


def _less(one: Any, other: Any) -> bool:
    _check_comparable(one, other, ("int", "float", "string"))
    return bool(one < other)


def _check_comparable(one: Any, other: Any, kinds: Sequence[str]) -> None:
    if kind_of(one) != kind_of(other) or kind_of(one) not in kinds:
        raise Problem(f"a value of type {kind_of(one)} is compared with one of type {kind_of(other)}")


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _len(value: Any) -> int:
    """Of a text in bytes of UTF-8, as in Go."""
    if not isinstance(value, str | list | dict):
        raise Problem(f"len is asked of a value of type {kind_of(value)}")
    return len(_utf8(value)) if isinstance(value, str) else len(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            if not isinstance(key, str):
                raise Problem(f"a map has no key of type {kind_of(key)}")
            value = value.get(key)
        elif isinstance(value, str | list):
            items = _utf8(value) if isinstance(value, str) else value
            value = items[_place(key, len(items) - 1)]
        else:
            raise Problem(f"index is asked of a value of type {kind_of(value)}")
    return value


def _slice(value: Any, *places: Any) -> Any:
    if not isinstance(value, str | list):
        raise Problem(f"slice is asked of a value of type {kind_of(value)}")
    items = _utf8(value) if isinstance(value, str) else value
    start = _place(places[0], len(items)) if places else 0
    end = _place(places[1], len(items)) if len(places) > 1 else len(items)
    if start > end:
        raise Problem(f"slice goes from {start} to {end}")
    part = items[start:end]
    return part.decode("utf-8", "replace") if isinstance(part, bytes) else part


def _place(value: Any, highest: int) -> int:
    if kind_of(value) != "int":
        raise Problem(f"a place in a list is a whole number, not a value of type {kind_of(value)}")
    if not 0 <= value <= highest:
        raise Problem(f"there is no place {value}: the highest is {highest}")
    return int(value)


def _date(*_layout: Any) -> str:
    """Whatever layout is asked for: Ollama does not look at it either."""
    return _today().strftime("%Y-%m-%d")


def _day_before(*_layout: Any) -> str:
    return (_today() - timedelta(days=1)).strftime("%Y-%m-%d")


def _today() -> datetime:
    return datetime.now().astimezone()


def _functions() -> Iterator[tuple[str, int, int, Callable[..., Any]]]:
    any_number = 1000
    yield from (("and", 1, any_number, _never), ("or", 1, any_number, _never))
    yield "not", 1, 1, lambda value: not is_true(value)
    yield "eq", 2, any_number, _equal
    yield "ne", 2, 2, lambda one, other: not _same(one, other)
    yield "lt", 2, 2, _less
    yield "le", 2, 2, lambda one, other: _less(one, other) or _same(one, other)
    yield "gt", 2, 2, lambda one, other: not _less(one, other) and not _same(one, other)
    yield "ge", 2, 2, lambda one, other: not _less(one, other)
    yield from (("len", 1, 1, _len), ("index", 1, any_number, _index), ("slice", 1, 3, _slice))
    yield from (("json", 1, 1, _json), ("print", 0, any_number, _print), ("printf", 1, any_number, _printf))
    yield from (("currentDate", 0, any_number, _date), ("yesterdayDate", 0, any_number, _day_before))


def _never(*_values: Any) -> Any:
    """`and` and `or` look at their values one by one, so the interpreter does them itself."""
    raise NotImplementedError


FUNCTIONS: Mapping[str, tuple[int, int, Callable[..., Any]]] = {
    name: (least, most, function) for name, least, most, function in _functions()
}
"""By name: the least and the greatest number of values, and what is done with them. They raise Problem."""
