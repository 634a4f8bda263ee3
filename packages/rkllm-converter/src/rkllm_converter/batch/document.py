"""A YAML file as values that know their line, with everything that YAML lets a file do to its reader bounded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import yaml

__all__ = ["LARGEST_FILE", "Entry", "Items", "Keys", "Mistakes", "Scalar", "TooManyMistakes", "Value", "parse", "shown"]

LARGEST_FILE = 256 * 1024
"""Bytes. Reading more would take seconds, and nobody writes it by hand."""
_DEEPEST = 32
_LONGEST_SHOWN = 60
_MOST_MISTAKES = 200
_MOST_MERGED = 200
"""Keys that `<<` brings; no mapping has so many without a mistake. Few aliases of aliases would make millions."""
_TAG = "tag:yaml.org,2002:"
_MERGE = "merge"
_SCALARS = frozenset({"str", "int", "float", "bool", "null", "timestamp", "value", _MERGE})


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value as it is written. `kind` is what YAML takes it for: `str`, `int`, `bool`, `null` and so on."""

    line: int
    text: str
    kind: str
    is_quoted: bool = False


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    line: int
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A key with its value."""

    key: Value
    value: Value


@dataclass(frozen=True, slots=True)
class Keys:
    """A mapping: its own entries, and those that `<<` brings, of which a reader takes what is not among the own."""

    line: int
    own: tuple[Entry, ...]
    merged: tuple[Entry, ...] = ()


Value: TypeAlias = "Scalar | Items | Keys"


@dataclass(slots=True)
class Mistakes:
    """What is wrong with a file, gathered until the end of it."""

    file: str
    _found: dict[str, int] = field(default_factory=dict)

    def add(self, line: int | None, path: str, sentence: str) -> None:
        """`line` counts from 1, None if it is about the file; `path` is the key's, empty for the whole file.

        Raises TooManyMistakes when there are more than anybody reads.
        """
        place = self.file if line is None else f"{self.file}:{line}"
        self._found.setdefault(f"{place}: {path}: {sentence}" if path else f"{place}: {sentence}", line or 0)
        if len(self._found) >= _MOST_MISTAKES:
            raise TooManyMistakes

    @property
    def sentences(self) -> tuple[str, ...]:
        """In the order of their lines, each once."""
        return tuple(sorted(self._found, key=self._found.__getitem__))

    def __bool__(self) -> bool:
        return bool(self._found)


class TooManyMistakes(Exception):
    """The reader of a file may stop."""


def parse(data: bytes, mistakes: Mistakes) -> Value | None:
    """The one document of a file. None if it is no YAML, which `mistakes` then says."""
    text = _decoded(data, mistakes)
    root = None if text is None else _composed(text, mistakes)
    if root is None:
        return None
    try:
        return _Reading(mistakes).value(root)
    except _RefersToItself as error:
        mistakes.add(error.line, "", "what the alias stands for has the alias within it. Write it out.")
        return None


def shown(text: str) -> str:
    """In quotes, on one line, cut where it is long."""
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…")


def _decoded(data: bytes, mistakes: Mistakes) -> str | None:
    if len(data) > LARGEST_FILE:
        mistakes.add(None, "", f"the file has more than {LARGEST_FILE // 1024} KiB. Make several of it.")
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        mistakes.add(line, "", f"byte 0x{data[error.start]:02X} is not UTF-8. Save the file as UTF-8.")
        return None


def _composed(text: str, mistakes: Mistakes) -> yaml.Node | None:
    line = None
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            line = loader.line + 1
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"column {mark.column + 1}: " if mark else ""
        mistakes.add(mark.line + 1 if mark else None, "", f"{place}{_syntax(error)}")
    except yaml.reader.ReaderError as error:
        bad = f"the character U+{ord(text[error.position]):04X} has no place in a YAML file. Take it out."
        mistakes.add(text.count("\n", 0, error.position) + 1, "", bad)
    except (ValueError, OverflowError):  # what chr() and int() say of "\UFFFFFFFF" and of %YAML comes through
        mistakes.add(line, "", "this is no YAML: there is a number in it that is too large.")
    else:
        if root is None:
            mistakes.add(1, "", "the file is empty. `rkllm-convert batch --example` shows what belongs into it.")
        return root
    return None


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "something is wrong here"
    if "'\\t'" in problem:
        return "there is a tab where YAML takes blanks only. Put blanks in its place."
    if problem == "but found another document":
        return "a second document begins here. Make a file of its own of it."
    return f"this is no YAML: {problem}."


class _Loader(yaml.SafeLoader):
    """Only composes; counts how deep it is, because it would not end well for thousands of brackets."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        if self._depth > _DEEPEST:
            mark = self.get_mark()
            raise yaml.composer.ComposerError(None, None, f"more than {_DEEPEST} levels, one in another", mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _RefersToItself(Exception):
    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


class _Reading:
    """Turns nodes into values. An alias is the very node it stands for, which is turned once."""

    def __init__(self, mistakes: Mistakes) -> None:
        self._mistakes = mistakes
        self._values: dict[int, Value] = {}
        self._open: set[int] = set()

    def value(self, node: yaml.Node) -> Value:
        if id(node) in self._values:
            return self._values[id(node)]
        line = node.start_mark.line + 1
        if id(node) in self._open:
            raise _RefersToItself(line)
        self._open.add(id(node))
        found = self._turned(node, line)
        self._open.discard(id(node))
        self._values[id(node)] = found
        return found

    def _turned(self, node: yaml.Node, line: int) -> Value:
        tag = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode):
            self._judge(line, tag, {"map"})
            return self._mapping(node, line)
        if isinstance(node, yaml.SequenceNode):
            self._judge(line, tag, {"seq"})
            return Items(line, tuple(self.value(one) for one in node.value))
        self._judge(line, tag, _SCALARS)
        return Scalar(
            line, node.value, tag if tag in _SCALARS else "str", is_quoted=getattr(node, "style", None) is not None
        )

    def _judge(self, line: int, tag: str, known: frozenset[str] | set[str]) -> None:
        if tag not in known:
            self._mistakes.add(line, "", f"the tag {shown(tag)} means nothing here. Leave it out.")

    def _mapping(self, node: yaml.MappingNode, line: int) -> Keys:
        own: list[Entry] = []
        merged: list[Entry] = []
        for key_node, value_node in node.value:
            key, value = self.value(key_node), self.value(value_node)
            if isinstance(key, Scalar) and key.kind == _MERGE:
                merged += self._brought(key, value)
            else:
                own.append(Entry(key, value))
        return Keys(line, tuple(own), tuple(_first_of_each(merged)[:_MOST_MERGED]))

    def _brought(self, key: Scalar, value: Value) -> list[Entry]:
        sources = value.values if isinstance(value, Items) else (value,)
        found: list[Entry] = []
        for one in {id(source): source for source in sources}.values():
            if len(found) > _MOST_MERGED:
                break
            if isinstance(one, Keys):
                found += [*one.own[:_MOST_MERGED], *one.merged]
            else:
                self._mistakes.add(key.line, "<<", "it brings in mappings only: write the alias of one, or of several.")
        return found


def _first_of_each(entries: list[Entry]) -> list[Entry]:
    """What comes first wins, as YAML has it. Also keeps aliases of aliases from multiplying."""
    found: dict[object, Entry] = {}
    for entry in entries:
        name = entry.key.text if isinstance(entry.key, Scalar) else id(entry.key)
        found.setdefault(name, entry)
    return list(found.values())
