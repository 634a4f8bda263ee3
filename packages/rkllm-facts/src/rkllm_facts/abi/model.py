"""What a table holds, typed. Sizes, offsets and alignments are in bytes, for LP64 (aarch64 and x86_64)."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rkllm_facts.abi.types import CType
from rkllm_facts.abi.versions import Version


@dataclass(frozen=True, slots=True)
class Field:
    """One member of a struct.

    `offset` counts from the beginning of the outermost struct that has a name. `in_union`: it shares its place with its
    neighbours that are in_union too; the union has no name. `pointee_const`: a pointer to something const. `fields`
    are the members of a struct without a name (`image` of RKLLMMultiModalInput).
    """

    name: str
    offset: int
    size: int
    type: CType
    in_union: bool = False
    pointee_const: bool = False
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct with its members in the order of the header."""

    name: str
    sizeof: int
    alignof: int
    fields: tuple[Field, ...]

    def flat(self) -> Iterator[tuple[str, Field]]:
        """Every field, those of inner structs too, under the path that C writes: `image.n_image`."""
        for field in self.fields:
            yield field.name, field
            for inner in field.fields:
                yield f"{field.name}.{inner.name}", inner


@dataclass(frozen=True, slots=True)
class Enum:
    """An enum with its constants. `signed` is the underlying type's."""

    name: str
    sizeof: int
    signed: bool
    values: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a function."""

    name: str
    type: CType
    pointee_const: bool = False


@dataclass(frozen=True, slots=True)
class Function:
    """A function that the library exports, or the type of a callback."""

    name: str
    returns: CType
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """Where a table comes from: a header in the repository airockchip/rknn-llm.

    `releases` carry it without a change that a compiler sees. `blob` and `sha256` are of the file at `commit`, `date`
    is the commit's, as YYYY-MM-DD.
    """

    releases: tuple[str, ...]
    commit: str
    path: str
    blob: str
    sha256: str
    date: str


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The binary interface that some releases have in common. One object for each: compare with `is` or by `name`.

    `name` is the newest release it covers, `releases` are all, oldest first. The names of types are those of the newest
    header: up to 1.2.2 RKLLMMultiModalInput was called RKLLMMultiModelInput. `base_types` are the sizes of plain C
    types that the offsets rest on, `data_model` is LP64: nothing here holds for 32 bit.
    """

    name: str
    layout_id: str
    releases: tuple[str, ...]
    headers: tuple[Header, ...]
    data_model: str
    structs: Mapping[str, Struct]
    enums: Mapping[str, Enum]
    functions: Mapping[str, Function]
    callbacks: Mapping[str, Function]
    macros: Mapping[str, int]
    base_types: Mapping[str, int]

    @property
    def symbols(self) -> frozenset[str]:
        """The names of the functions that a library of this layout exports."""
        return frozenset(self.functions)

    def locate(self, struct: str, path: str) -> Field | None:
        """The field at `path` (`extend_param.n_batch`), with its offset from the beginning of `struct`; None if the
        layout has none."""
        return _locate(self, struct, path)


@functools.cache  # asked again and again for each run of a model
def _locate(layout: Layout, struct: str, path: str) -> Field | None:
    found = layout.structs.get(struct)
    if found is None:
        return None
    fields = dict(found.flat())
    if path in fields:
        return fields[path]
    first, _, rest = path.partition(".")
    outer = fields.get(first)
    if outer is None or outer.type.kind != "struct":
        return None
    inner = _locate(layout, outer.type.name, rest)
    if inner is None:
        return None
    offset = outer.offset + inner.offset
    return Field(inner.name, offset, inner.size, inner.type, inner.in_union, inner.pointee_const, inner.fields)


@dataclass(frozen=True, slots=True)
class Release:
    """A release of librkllmrt.

    `layout` is the name of its layout; None if it is known, but not supported, and then `why_not` says why. `layout_id`
    is None if not even that is known. `commit` is in the repository airockchip/rknn-llm, `date` the commit's.
    """

    version: Version
    commit: str
    date: str
    layout_id: str | None
    layout: str | None
    why_not: str
