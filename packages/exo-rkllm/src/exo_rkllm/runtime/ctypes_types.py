"""ctypes classes made from the tables of rkllm_facts, and held against them before anybody uses them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from types import MappingProxyType
from typing import Any

from exo_rkllm.runtime.errors import LayoutMismatch
from rkllm_facts.abi import CType, Field, Function, Layout, Struct

SCALAR_TYPES: Mapping[str, type[Any]] = MappingProxyType(
    {
        "bool": ctypes.c_bool,
        "char": ctypes.c_char,
        "i8": ctypes.c_int8,
        "u8": ctypes.c_uint8,
        "i32": ctypes.c_int32,
        "u32": ctypes.c_uint32,
        "f32": ctypes.c_float,
        "u64": ctypes.c_uint64,
        "size_t": ctypes.c_size_t,
    }
)


@dataclass(frozen=True)
class Types:
    """The classes of one layout by the names of the tables.

    `structs` are ctypes.Structure classes; the members of an unnamed union are reached as in C, those of an inner
    struct by its name (`value.image.n_image`). `callbacks` are CFUNCTYPE types. `functions` holds result type (None for
    void) and argument types.
    """

    layout: Layout
    structs: Mapping[str, type[ctypes.Structure]]
    callbacks: Mapping[str, type[Any]]
    functions: Mapping[str, tuple[type[Any] | None, tuple[type[Any], ...]]]


@cache
def types_of(layout: Layout) -> Types:
    """The classes of a layout, built once. Raises LayoutMismatch if they are not laid out as the table says."""
    return _Builder(layout).build()


class _Builder:
    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.structs: dict[str, type[ctypes.Structure]] = {}
        self.callbacks: dict[str, type[Any]] = {}

    def build(self) -> Types:
        for name in self.layout.structs:
            self.struct(name)
        for name in self.layout.callbacks:
            self.callback(name)
        differences = [text for struct in self.layout.structs.values() for text in self.differences(struct)]
        differences += [text for enum in self.layout.enums for text in self.enum_differences(enum)]
        if differences:
            raise LayoutMismatch(self.layout.name, differences)
        functions = {name: self.signature(function) for name, function in self.layout.functions.items()}
        return Types(
            self.layout,
            MappingProxyType(self.structs),
            MappingProxyType(self.callbacks),
            MappingProxyType(functions),
        )

    def struct(self, name: str) -> type[ctypes.Structure]:
        if name not in self.structs:
            self.structs[name] = self.make(name, self.layout.structs[name].fields)
        return self.structs[name]

    def make(self, name: str, fields: tuple[Field, ...]) -> type[ctypes.Structure]:
        """Neighbours that are in_union go into a union, whose members ctypes shows as the struct's own."""
        members: list[tuple[str, type[Any]]] = []
        unions: list[str] = []
        for number, (in_union, group) in enumerate(groupby(fields, key=lambda field: field.in_union)):
            pairs = [(field.name, self.field_type(name, field)) for field in group]
            if in_union:
                unions.append(f"union_{number}")
                pairs = [(unions[-1], type(f"{name}_union_{number}", (ctypes.Union,), {"_fields_": pairs}))]
            members += pairs
        return type(name, (ctypes.Structure,), {"_anonymous_": tuple(unions), "_fields_": members})

    def field_type(self, owner: str, field: Field) -> type[Any]:
        if field.type.kind == "inner":
            return self.make(f"{owner}_{field.name}", field.fields)
        return self.of(field.type)

    def callback(self, name: str) -> type[Any]:
        if name not in self.callbacks:
            result, arguments = self.signature(self.layout.callbacks[name])
            self.callbacks[name] = ctypes.CFUNCTYPE(result, *arguments)
        return self.callbacks[name]

    def signature(self, function: Function) -> tuple[type[Any] | None, tuple[type[Any], ...]]:
        result = None if function.returns.kind == "void" else self.of(function.returns)
        return result, tuple(self.of(one.type) for one in function.parameters)

    def of(self, one: CType) -> type[Any]:
        """The class for values of a type."""
        if one.kind == "struct":
            return self.struct(one.name)
        if one.kind == "callback":
            return self.callback(one.name)
        if one.target is not None:
            return self.of(one.target) * one.length if one.kind == "array" else self.pointer(one.target)
        plain = self.plain(one)
        if plain is None:
            raise LayoutMismatch(self.layout.name, [f"{one} is no type of a value"])
        return plain

    def plain(self, one: CType) -> type[Any] | None:
        if one.kind == "handle":
            return ctypes.c_void_p
        if one.kind == "enum":
            return ctypes.c_int32 if self.layout.enums[one.name].signed else ctypes.c_uint32
        return SCALAR_TYPES.get(one.name)

    def pointer(self, target: CType) -> type[Any]:
        if target.kind == "void":
            return ctypes.c_void_p
        if str(target) == "char":
            return ctypes.c_char_p
        pointer: type[Any] = ctypes.POINTER(self.of(target))
        return pointer

    def differences(self, struct: Struct) -> Iterator[str]:
        """What the compiler's table says otherwise than ctypes."""
        made = self.structs[struct.name]
        expected = (struct.sizeof, struct.alignof)
        if (ctypes.sizeof(made), ctypes.alignment(made)) != expected:
            found = (ctypes.sizeof(made), ctypes.alignment(made))
            yield f"{struct.name} has size and alignment {found}, not {expected}"
        for path, field in struct.flat():
            found = place(made, path)
            if found != (field.offset, field.size):
                yield f"{struct.name}.{path} has offset and size {found}, not {(field.offset, field.size)}"

    def enum_differences(self, name: str) -> Iterator[str]:
        size = ctypes.sizeof(self.of(CType("enum", name)))
        if size != self.layout.enums[name].sizeof:
            yield f"{name} has size {size}, not {self.layout.enums[name].sizeof}"


def place(struct: type[ctypes.Structure], path: str) -> tuple[int, int]:
    """Offset and size in bytes of the field at `path` (`image.n_image`), counted from the beginning of `struct`."""
    outer, _, inner = path.partition(".")
    field = getattr(struct, outer)
    if not inner:
        return field.offset, field.size
    offset, size = place(dict(struct._fields_)[outer], inner)  # type: ignore[arg-type]  # only structs have members
    return field.offset + offset, size
