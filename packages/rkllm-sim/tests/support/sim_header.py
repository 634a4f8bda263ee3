"""A C program that includes rkllm.h and asserts everything that a table of rkllm_facts says about it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from rkllm_facts.abi import CType, Field, Function, Layout, Struct

_C_NAMES = {
    "i8": "int8_t",
    "u8": "uint8_t",
    "i32": "int32_t",
    "u32": "uint32_t",
    "u64": "uint64_t",
    "f32": "float",
}


def declare(kind: CType, name: str = "", *, const: bool = False) -> str:
    """A declaration of `name`, or without one the name of the type: `const char *`."""
    if kind.kind == "pointer":
        assert kind.target is not None
        return declare(kind.target, f"*{name}", const=const)
    if kind.kind == "array":
        assert kind.target is not None
        return declare(kind.target, f"{name}[{kind.length}]", const=const)
    plain = {"void": "void", "handle": "LLMHandle"}.get(kind.kind) or _C_NAMES.get(kind.name, kind.name)
    return f"{'const ' if const else ''}{plain} {name}".rstrip()


def _signature(function: Function, name: str) -> str:
    parameters = (declare(one.type, const=one.pointee_const) for one in function.parameters)
    return f"{declare(function.returns, name)}({', '.join(parameters) or 'void'})"


def _assert(condition: str, what: str) -> str:
    return f'_Static_assert({condition}, "{what}");'


def _field(struct: Struct, path: str, field: Field) -> Iterator[str]:
    place = f"{struct.name}, {path}"
    member = f"(({struct.name} *)0)->{path}"
    yield _assert(f"offsetof({place}) == {field.offset}", f"{place}: offset")
    yield _assert(f"sizeof({member}) == {field.size}", f"{place}: size")
    if field.type.kind != "inner":
        wanted = declare(field.type, const=field.pointee_const)
        yield _assert(f"__builtin_types_compatible_p(__typeof__({member}), {wanted})", f"{place}: type")


def _struct(struct: Struct) -> Iterator[str]:
    yield _assert(f"sizeof({struct.name}) == {struct.sizeof}", f"{struct.name}: size")
    yield _assert(f"_Alignof({struct.name}) == {struct.alignof}", f"{struct.name}: alignment")
    for path, field in struct.flat():
        yield from _field(struct, path, field)
    yield from _no_more_fields(struct)


def _no_more_fields(struct: Struct) -> Iterator[str]:
    """An initializer with as many values as the table has members fits; -Wmissing-field-initializers finds one more."""
    fields = list(struct.fields)
    members = [one for before, one in zip([None, *fields], fields) if not (one.in_union and before and before.in_union)]
    values = []
    for one in members:
        braces = one.in_union or one.type.kind in {"struct", "array"}
        if one.fields:
            values.append(f"{{ {', '.join('0' for _ in one.fields)} }}")
        else:
            values.append("{}" if braces else "0")
    yield f"const {struct.name} all_of_{struct.name} = {{ {', '.join(values)} }};"


def _unions(struct: Struct) -> Iterator[str]:
    """Members of a union that the table does not name would make it no larger, so they are not looked for."""
    united = [one for one in struct.fields if one.in_union]
    for one in united:
        yield _assert(f"offsetof({struct.name}, {one.name}) == {united[0].offset}", f"{struct.name}, {one.name}: union")


def program(layout: Layout) -> str:
    """The program. It compiles if rkllm.h and the table say the same."""
    lines = ['#include "rkllm.h"']
    for enum in layout.enums.values():
        lines.append(_assert(f"sizeof({enum.name}) == {enum.sizeof}", f"{enum.name}: size"))
        lines.append(_assert(f"(({enum.name})-1 < 0) == {int(enum.signed)}", f"{enum.name}: sign"))
        lines += [_assert(f"{name} == {value}", f"{name}: value") for name, value in enum.values.items()]
        cases = " ".join(f"case {name}:" for name in enum.values)
        # -Wswitch-enum finds a constant that the table does not have
        lines.append(f"int names_of_{enum.name}({enum.name} one) {{ switch (one) {{ {cases} return 1; }} return 0; }}")
    for name, value in layout.macros.items():
        lines.append(_assert(f"{name} == {value}", f"{name}: value"))
    for struct in layout.structs.values():
        lines += [*_struct(struct), *_unions(struct)]
    for function in layout.callbacks.values():
        wanted = _signature(function, "(*)")
        lines.append(_assert(f"__builtin_types_compatible_p({function.name}, {wanted})", f"{function.name}: type"))
    for function in layout.functions.values():
        wanted = _signature(function, "")
        same = f"__builtin_types_compatible_p(__typeof__({function.name}), {wanted})"
        lines.append(_assert(same, f"{function.name}: type"))
    return "\n".join([*lines, ""])


def complaints(text: str, header: Path, flags: list[str]) -> str:
    """What gcc says about the program with the header of that folder; empty if nothing."""
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wswitch-enum", "-Wno-type-limits", "-Wno-missing-braces"]
    command = ["gcc", "-std=gnu11", *warnings, f"-I{header}", *flags, "-fsyntax-only", "-x", "c", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
    assert bool(done.stderr) == bool(done.returncode)
    return done.stderr
