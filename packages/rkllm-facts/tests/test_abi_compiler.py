"""A compiler, given the fields' order and types alone, has to lay them out as the tables say."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator

import pytest

from rkllm_facts.abi import CType, Field, Function, Layout, Struct, layout, layouts

C_NAMES = {
    "i8": "int8_t",
    "u8": "uint8_t",
    "i32": "int32_t",
    "u32": "uint32_t",
    "u64": "uint64_t",
    "f32": "float",
}


def declare(kind: CType, name: str) -> str:
    """`name` declared with a type: `char *text`."""
    if kind.kind == "pointer":
        assert kind.target is not None
        return declare(kind.target, f"*{name}")
    if kind.kind == "array":
        assert kind.target is not None
        return declare(kind.target, f"{name}[{kind.length}]")
    if kind.kind in {"void", "handle"}:
        return f"{'void' if kind.kind == 'void' else 'LLMHandle'} {name}"
    return f"{C_NAMES.get(kind.name, kind.name)} {name}"


def declaration(field: Field) -> str:
    if field.fields:
        inner = "".join(f"  {declaration(one)}\n" for one in field.fields)
        return f"struct {{\n{inner}}} {field.name};"
    const = "const " if field.pointee_const else ""
    return f"{const}{declare(field.type, field.name)};"


def body(struct: Struct) -> Iterator[str]:
    inside = False
    for field in struct.fields:
        if field.in_union != inside:
            yield "union {" if field.in_union else "};"
            inside = field.in_union
        yield declaration(field)
    if inside:
        yield "};"


def signature(function: Function, name: str) -> str:
    parts = (f"{'const ' if one.pointee_const else ''}{declare(one.type, one.name)}" for one in function.parameters)
    return f"{declare(function.returns, name)}({', '.join(parts) or 'void'});"


def program(inside: Layout) -> str:
    """Declarations made from names, order and types; assertions made from sizes, offsets and values."""
    lines = ["#include <stdbool.h>", "#include <stddef.h>", "#include <stdint.h>", "typedef void *LLMHandle;"]
    for enum in inside.enums.values():
        values = ", ".join(f"{name} = {value}" for name, value in enum.values.items())
        lines.append(f"typedef enum {{ {values} }} {enum.name};")
        lines.append(f'_Static_assert(sizeof({enum.name}) == {enum.sizeof}, "{enum.name}");')
        lines.append(f'_Static_assert((({enum.name})-1 < 0) == {int(enum.signed)}, "{enum.name} signed");')
    lines += [f"typedef struct {name} {name};" for name in inside.structs]
    lines += [f"typedef {signature(one, f'(*{one.name})')}" for one in inside.callbacks.values()]
    for struct in inside.structs.values():
        lines += [f"struct {struct.name} {{", *body(struct), "};"]
        lines.append(f'_Static_assert(sizeof({struct.name}) == {struct.sizeof}, "{struct.name} size");')
        lines.append(f'_Static_assert(_Alignof({struct.name}) == {struct.alignof}, "{struct.name} alignment");')
        for path, field in struct.flat():
            place = f"{struct.name}, {path}"
            lines.append(f'_Static_assert(offsetof({place}) == {field.offset}, "{place} offset");')
            member = f"(({struct.name} *)0)->{path}"
            lines.append(f'_Static_assert(sizeof({member}) == {field.size}, "{place} size");')
    lines += [signature(one, one.name) for one in inside.functions.values()]
    return "\n".join([*lines, ""])


def compile_c(text: str) -> str:
    """What gcc complains about; empty if nothing."""
    command = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-type-limits", "-fsyntax-only", "-x", "c", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
    assert bool(done.stderr) == bool(done.returncode)
    return done.stderr


def with_field(inside: Layout, struct: str, changed: Field) -> Layout:
    """The layout with one field replaced."""
    old = inside.structs[struct]
    fields = tuple(changed if field.name == changed.name else field for field in old.fields)
    return dataclasses.replace(inside, structs={**inside.structs, struct: dataclasses.replace(old, fields=fields)})


def field_of(inside: Layout, struct: str, name: str) -> Field:
    found = inside.locate(struct, name)
    assert found is not None
    return found


@pytest.mark.parametrize("inside", layouts(), ids=lambda one: str(one.name))
def test_a_compiler_lays_the_fields_out_the_same_way(inside: Layout) -> None:
    text = program(inside)
    assert text.count("_Static_assert") > 120
    assert compile_c(text) == ""


@pytest.mark.parametrize(
    ("struct", "name", "change"),
    [
        ("RKLLMParam", "top_k", {"type": CType("scalar", "u64")}),
        ("RKLLMParam", "is_async", {"type": CType("scalar", "i32")}),
        ("RKLLMParam", "extend_param", {"offset": 64}),
        ("RKLLMParam", "n_keep", {"size": 8}),
        ("RKLLMInput", "token_input", {"in_union": False}),
        ("RKLLMInferParam", "mode", {"type": CType("scalar", "u8"), "size": 1, "offset": 1}),
        ("RKLLMResult", "token_id", {"type": CType("pointer", target=CType("void"))}),
    ],
)
def test_one_changed_field_is_found(struct: str, name: str, change: dict[str, object]) -> None:
    good = layout("1.3.0")
    changed = dataclasses.replace(field_of(good, struct, name), **change)  # type: ignore[arg-type]  # any field
    assert f"{struct}, " in compile_c(program(with_field(good, struct, changed)))


@pytest.mark.parametrize("change", [{"sizeof": 192}, {"alignof": 4}])
def test_a_changed_struct_is_found(change: dict[str, int]) -> None:
    good = layout("1.3.0")
    changed = dataclasses.replace(good.structs["RKLLMParam"], **change)  # type: ignore[arg-type]  # numbers only
    wrong = dataclasses.replace(good, structs={**good.structs, "RKLLMParam": changed})
    assert "RKLLMParam" in compile_c(program(wrong))
