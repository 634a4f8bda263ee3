"""The types that occur in the tables, and the way they are written there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["scalar", "void", "handle", "pointer", "array", "struct", "enum", "callback", "inner"]

SCALARS = {"bool": 1, "char": 1, "i8": 1, "u8": 1, "i32": 4, "u32": 4, "f32": 4, "u64": 8, "size_t": 8}
"""Bytes on LP64."""

_WORDS: dict[str, Kind] = {"void": "void", "handle": "handle", "anonymous-struct": "inner"}
_NAMED = re.compile(r"(struct|enum|callback) (\w+)")
_KINDS: dict[str, Kind] = {"struct": "struct", "enum": "enum", "callback": "callback"}
_POINTER = re.compile(r"ptr<(.+)>")
_ARRAY = re.compile(r"array<(\w+),([0-9]+)>")


@dataclass(frozen=True, slots=True)
class CType:
    """A C type. `str()` gives it as the tables write it.

    - scalar: `name` is a key of SCALARS
    - void: of functions that return nothing, and behind pointers
    - handle: LLMHandle, a void pointer
    - pointer: `target` is what it points to
    - array: `target` is the element, `length` their number
    - struct, enum, callback: `name` is the name in the layout
    - inner: a struct without a name of its own, whose fields are those of the field that has this type
    """

    kind: Kind
    name: str = ""
    target: CType | None = None
    length: int = 0

    @classmethod
    def parse(cls, text: str) -> CType:
        """Raises ValueError if the tables do not write types like `text`."""
        if text in SCALARS:
            return cls("scalar", text)
        if text in _WORDS:
            return cls(_WORDS[text])
        if found := _NAMED.fullmatch(text):
            return cls(_KINDS[found[1]], found[2])
        if found := _POINTER.fullmatch(text):
            return cls("pointer", target=cls.parse(found[1]))
        if found := _ARRAY.fullmatch(text):
            return cls("array", target=cls.parse(found[1]), length=int(found[2]))
        raise ValueError(f"{text!r} is not a type of the tables.")

    def __str__(self) -> str:
        if self.kind == "scalar":
            return self.name
        if self.kind == "pointer":
            return f"ptr<{self.target}>"
        if self.kind == "array":
            return f"array<{self.target},{self.length}>"
        if self.name:
            return f"{self.kind} {self.name}"
        return next(word for word, kind in _WORDS.items() if kind == self.kind)
