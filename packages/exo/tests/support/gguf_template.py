"""A GGUF file with another chat template: the built-in model's own knows neither functions nor reasoning."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

TEMPLATE_KEY = "tokenizer.chat_template"
_BOS_KEY = "tokenizer.ggml.add_bos_token"
_ALIGNMENT_KEY = "general.alignment"
_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by its type; 8 is a text, 9 a list."""
_TEXT, _LIST, _UINT32 = 8, 9, 4


def with_template(source: Path, target: Path, template: str, *, adds_bos: bool = False) -> None:
    """Write `target`, which differs from `source` in its chat template alone, and in the token before each text.

    With `adds_bos` that is the token for the beginning of a sequence, else there is none, as in the built-in model.
    """
    with source.open("rb") as file:
        magic, version, tensors, pairs = struct.unpack("<4sIQQ", file.read(24))
        assert (magic, version) == (b"GGUF", 3)
        head, alignment = [struct.pack("<4sIQQ", magic, version, tensors, pairs)], 32
        for _ in range(pairs):
            start = file.tell()
            key = _text(file)
            (kind,) = struct.unpack("<I", file.read(4))
            value = _skip(file, kind)
            if key == _ALIGNMENT_KEY:
                (alignment,) = struct.unpack("<I", value)
            if key == TEMPLATE_KEY:
                head.append(_packed(key) + struct.pack("<I", _TEXT) + _packed(template))
            elif key == _BOS_KEY:
                head.append(_packed(key) + struct.pack("<IB", kind, adds_bos))
            else:
                end = file.tell()
                file.seek(start)
                head.append(file.read(end - start))
        start = file.tell()
        for _ in range(tensors):
            _text(file)
            (dimensions,) = struct.unpack("<I", file.read(4))
            file.seek(8 * dimensions + 4 + 8, 1)
        end = file.tell()
        file.seek(start)
        head.append(file.read(end - start))
        file.seek(end + -end % alignment)
        length = sum(map(len, head))
        with target.open("wb") as out:
            out.writelines([*head, b"\0" * (-length % alignment)])
            while block := file.read(1 << 24):
                out.write(block)


def _text(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    return file.read(length).decode()


def _packed(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _skip(file: BinaryIO, kind: int) -> bytes:
    """Read a value, and return the bytes of one that is no list."""
    if kind == _TEXT:
        return _text(file).encode()
    if kind == _LIST:
        inner, count = struct.unpack("<IQ", file.read(12))
        if inner in _SCALARS:
            file.seek(_SCALARS[inner] * count, 1)
        else:
            for _ in range(count):
                _skip(file, inner)
        return b""
    return file.read(_SCALARS[kind])
