"""Reads the header of a GGUF file: its key-value pairs and the names and shapes of its tensors, not their values.

Versions 2 and 3, little-endian. Layout: `GGUF`, version (u32), number of tensors (u64), number of pairs (u64), the
pairs, the tensors. A pair is its key (a string), its type (u32) and its value; a string is its length (u64) and UTF-8;
an array is its items' type (u32), their number (u64) and the items. A tensor is its name, the number of its dimensions
(u32), each of them (u64), its type (u32) and its place in the file (u64).
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
import struct
from collections.abc import Iterator
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
_LONGEST_KEPT = 1024
"""In a Header: enough for a number for each layer, and no vocabulary."""
_MOST_ITEMS = 2**21
"""In all of a header, numbers that are passed over not counted; Gemma 3 has about 780,000."""
_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Header:
    """`pairs`: without arrays of more than 1024 items. `lengths`: how many items each array has, those left out too.

    `tensors`: how many values each tensor has. All by name.
    """

    pairs: dict[str, Value]
    lengths: dict[str, int]
    tensors: dict[str, int]


def read_header(path: Path) -> Header:
    """Everything but the tensors' values. Text that is not UTF-8 is read with replacement characters.

    Raises BadGguf, which names the file.
    """
    with _opened(path) as reader:
        tensors = _begin(reader)
        pairs, lengths = _pairs(reader, _LONGEST_KEPT)
        return Header(pairs, lengths, dict(_tensor(reader) for _ in reader.each(tensors)))


def read_metadata(path: Path) -> dict[str, Value]:
    """All pairs, with arrays of up to 2 097 152 items; nothing behind them is looked at. Raises as read_header."""
    with _opened(path) as reader:
        _begin(reader)
        return _pairs(reader, _MOST_ITEMS)[0]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Reader]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a FIFO may take for ever
            raise BadGguf(f"{path} is no file that can be read.")
        with path.open("rb") as stream:
            yield _Reader(stream, path)
    except OSError as error:
        raise BadGguf(f"{path} cannot be read: {error.strerror}.") from error


def _begin(reader: _Reader) -> int:
    """How many tensors there are."""
    if reader.take(len(_MAGIC)) != _MAGIC:
        raise reader.broken("it does not begin with GGUF")
    version = reader.number("<I")
    if version not in _VERSIONS:
        raise reader.broken(f"its version is {version}; versions 2 and 3, little-endian, are known here")
    return reader.number("<Q")


def _pairs(reader: _Reader, longest: int) -> tuple[dict[str, Value], dict[str, int]]:
    """The pairs, without arrays of more than `longest` items, and the lengths of all arrays."""
    pairs: dict[str, Value] = {}
    lengths: dict[str, int] = {}
    for _ in reader.each(reader.count(1)):
        key = reader.string()
        kind = reader.number("<I")
        if kind != _ARRAY:
            pairs[key] = reader.value(kind)
            continue
        kind, lengths[key] = reader.head()
        if lengths[key] <= longest:
            pairs[key] = reader.items(kind, lengths[key])
        else:
            reader.skip_items(kind, lengths[key])
    return pairs, lengths


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
    """What it is told to read is limited, whatever the file announces: `_MOST_BYTES` and `_MOST_ITEMS` in all."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream = stream
        self._path = path
        self._left = os.fstat(stream.fileno()).st_size
        self._bytes = _MOST_BYTES
        self._items = _MOST_ITEMS

    def broken(self, why: str) -> BadGguf:
        return BadGguf(f"{self._path} is no GGUF file that can be used: {why}.")

    def take(self, size: int) -> bytes:
        self._pass(size)
        self._bytes -= size
        if self._bytes < 0:
            raise self.broken(f"its metadata are longer than {_MOST_BYTES // 2**20} MiB")
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

    def each(self, count: int) -> range:
        """For going through so many items one after the other."""
        self._items -= count
        if self._items < 0:
            raise self.broken(f"its metadata have more than {_MOST_ITEMS:,} items")
        return range(count)

    def string(self) -> str:
        return self.take(self.count(1)).decode("utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> Value:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY and depth < _DEEPEST:
            return self.items(*self.head(), depth + 1)
        if kind not in _SCALARS:
            raise self._unknown(kind)
        layout = _SCALARS[kind]
        scalar: int | float | bool = struct.unpack(layout, self.take(struct.calcsize(layout)))[0]
        return scalar

    def head(self) -> tuple[int, int]:
        """Of an array: the type of its items, and their number."""
        kind = self.number("<I")
        return kind, self.count(struct.calcsize(_SCALARS[kind]) if kind in _SCALARS else 8)

    def items(self, kind: int, count: int, depth: int = 1) -> list[Value]:
        each = self.each(count)
        if kind not in _SCALARS:
            return [self.value(kind, depth) for _ in each]
        layout = _SCALARS[kind]
        return list(struct.unpack(f"<{count}{layout[1]}", self.take(count * struct.calcsize(layout))))

    def skip_items(self, kind: int, count: int, depth: int = 1) -> None:
        """As items, but keeps nothing. Numbers are passed over without being read, however many they are."""
        if kind in _SCALARS:
            self._skip(count * struct.calcsize(_SCALARS[kind]))
            return
        if kind != _STRING and (kind != _ARRAY or depth >= _DEEPEST):
            raise self._unknown(kind)
        for _ in self.each(count):
            if kind == _STRING:
                self._skip(self.count(1))
            else:
                self.skip_items(*self.head(), depth + 1)

    def _skip(self, size: int) -> None:
        self._pass(size)
        self._stream.seek(size, os.SEEK_CUR)

    def _pass(self, size: int) -> None:
        if size > self._left:
            raise self.broken("it ends in the middle of its metadata")
        self._left -= size

    def _unknown(self, kind: int) -> BadGguf:
        return self.broken(f"a value has the unknown type {kind}")
