"""What a GGUF file tells of its model, without reading all of it."""

from __future__ import annotations

import functools
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from exo.models import StoredModel

_NUMBERS = 1 << 20
_HEAD = 1 << 25
"""Bytes at the beginning of a file. Numbers lie in front of the vocabulary, the template may lie behind it."""
_NUMBER, _TEXT = 4, 8
"""How the format marks a whole number of 32 bits, and a text."""


@dataclass(frozen=True)
class GgufFacts:
    """Empty or 0 where the file does not say it. `pools`: the model is there to make one vector of a text."""

    architecture: str = ""
    template: str = ""
    embedding_length: int = 0
    pools: bool = False


def facts_of(stored: StoredModel) -> GgufFacts:
    """The facts of a stored model; none of a file that cannot be read."""
    return _facts(stored.path, stored.size, stored.modified)


@functools.lru_cache(maxsize=256)
def _facts(path: Path, size: int, modified: float) -> GgufFacts:  # noqa: ARG001 - a file that has changed is another one
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            architecture = _text(data, "general.architecture")
            return GgufFacts(
                architecture=architecture,
                template=_text(data, "tokenizer.chat_template"),
                embedding_length=_number(data, f"{architecture}.embedding_length") or 0,
                pools=bool(_number(data, f"{architecture}.pooling_type")),
            )
    except (OSError, ValueError, struct.error):  # it is not there, or empty, or ends in the middle
        return GgufFacts()


def _text(data: mmap.mmap, key: str) -> str:
    start = _place(data, key, _TEXT, within=_HEAD)
    if start is None:
        return ""
    (length,) = struct.unpack_from("<Q", data, start)
    return data[start + 8 : start + 8 + min(length, _HEAD)].decode("utf-8", "replace")


def _number(data: mmap.mmap, key: str) -> int | None:
    start = _place(data, key, _NUMBER, within=_NUMBERS)
    return None if start is None else int(struct.unpack_from("<I", data, start)[0])


def _place(data: mmap.mmap, key: str, kind: int, *, within: int) -> int | None:
    """Where the value of a key begins, None if there is no such key of that kind."""
    written = key.encode()
    entry = struct.pack("<Q", len(written)) + written + struct.pack("<I", kind)
    found = data.find(entry, 0, within)
    return None if found < 0 else found + len(entry)
