"""Reads the header of a GGUF file: its key-value pairs and the names and shapes of its tensors, not their values.

Versions 2 and 3, little-endian. Layout: `GGUF`, version (u32), number of tensors (u64), number of pairs (u64), the
pairs, the tensors. A pair is its key (a string), its type (u32) and its value; a string is its length (u64) and UTF-8;
an array is its items' type (u32), their number (u64) and the items. A tensor is its name, the number of its dimensions
(u32), each of them (u64), its type (u32) and its place in the file (u64).
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

from rkllm_facts.errors import BadGguf

__all__ = ["Header", "Value", "read_header", "read_metadata"]

Value: TypeAlias = "int | float | bool | str | list[Value]"

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_DIMENSIONS = 4
_DEEPEST = 4
"""Arrays in arrays; no known model has any."""


@dataclass(frozen=True)
class Header:
    """`tensors`: how many values each tensor has, by name."""

    pairs: dict[str, Value]
    tensors: dict[str, int]


def read_header(path: Path) -> Header:
    """Everything but the tensors' values. Text that is not UTF-8 is read with replacement characters.

    Raises BadGguf, which names the file.
    """
    try:
        with path.open("rb") as stream:
            reader = _Reader(stream, path)
            pairs, tensors = _pairs(reader)
            return Header(pairs, dict(_tensor(reader) for _ in range(tensors)))
    except OSError as error:
        raise BadGguf(f"{path} cannot be read: {error.strerror}.") from error


def read_metadata(path: Path) -> dict[str, Value]:
    """As read_header, but only the pairs: nothing behind them is looked at."""
    try:
        with path.open("rb") as stream:
            return _pairs(_Reader(stream, path))[0]
    except OSError as error:
        raise BadGguf(f"{path} cannot be read: {error.strerror}.") from error


def _pairs(reader: _Reader) -> tuple[dict[str, Value], int]:
    """The pairs, and how many tensors there are."""
    if reader.take(len(_MAGIC)) != _MAGIC:
        raise reader.broken("it does not begin with GGUF")
    version = reader.number("<I")
    if version not in _VERSIONS:
        raise reader.broken(f"its version is {version}; versions 2 and 3, little-endian, are known here")
    tensors = reader.number("<Q")
    pairs: dict[str, Value] = {}
    for _ in range(reader.count(1)):
        key = reader.string()
        pairs[key] = reader.value(reader.number("<I"))
    return pairs, tensors


def _tensor(reader: _Reader) -> tuple[str, int]:
    """Name and number of values."""
    name = reader.string()
    count = reader.number("<I")
    if count > _DIMENSIONS:
        raise reader.broken(f"the tensor {name[:80]!r} has {count} dimensions")
    values = math.prod(reader.number("<Q") for _ in range(count))
    reader.take(struct.calcsize("<IQ"))  # its type and its place
    return name, values


class _Reader:
    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream = stream
        self._path = path
        self._left = os.fstat(stream.fileno()).st_size

    def broken(self, why: str) -> BadGguf:
        return BadGguf(f"{self._path} is no GGUF file that can be used: {why}.")

    def take(self, size: int) -> bytes:
        if size > self._left:
            raise self.broken("it ends in the middle of its metadata")
        self._left -= size
        return self._stream.read(size)

    def number(self, layout: str) -> int:
        (number,) = struct.unpack(layout, self.take(struct.calcsize(layout)))
        return int(number)

    def count(self, smallest: int) -> int:
        """A number of items, which has to fit into the rest of the file if each takes `smallest` bytes."""
        count = self.number("<Q")
        if count * smallest > self._left:
            raise self.broken(f"it announces {count} items, more than it has bytes for")
        return count

    def string(self) -> str:
        return self.take(self.count(1)).decode("utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> Value:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY and depth < _DEEPEST:
            return self._array(depth)
        if kind not in _SCALARS:
            raise self.broken(f"a value has the unknown type {kind}")
        layout = _SCALARS[kind]
        scalar: int | float | bool = struct.unpack(layout, self.take(struct.calcsize(layout)))[0]
        return scalar

    def _array(self, depth: int) -> list[Value]:
        kind = self.number("<I")
        if kind not in _SCALARS:
            return [self.value(kind, depth + 1) for _ in range(self.count(8))]
        layout = _SCALARS[kind]
        size = struct.calcsize(layout)
        count = self.count(size)
        return list(struct.unpack(f"<{count}{layout[1]}", self.take(count * size)))
