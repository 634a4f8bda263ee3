"""The ctypes classes against the tables: every struct, union, enum, function and callback of every layout."""

from __future__ import annotations

import ctypes
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from exo_rkllm.runtime import LayoutMismatch, NotInThisVersion, raw
from exo_rkllm.runtime.ctypes_types import types_of
from exo_rkllm.runtime.raw import RawLibrary
from rkllm_facts.abi import CType, Field, Function, Layout, Struct, known_symbols, layout, layouts

ALL = pytest.mark.parametrize("inside", layouts(), ids=lambda one: str(one.name))

C_NAMES = {"i32": "int", "u64": "uint64_t"}


def described(kind: Any) -> str:
    """A ctypes class in the words of the tables, found by looking at the class alone."""
    simple = {
        ctypes.c_bool: "bool",
        ctypes.c_int8: "i8",
        ctypes.c_uint8: "u8",
        ctypes.c_int32: "i32",
        ctypes.c_uint32: "u32",
        ctypes.c_float: "f32",
        ctypes.c_uint64: "u64/size_t",
        ctypes.c_char_p: "ptr<char>",
        ctypes.c_void_p: "ptr<void>/handle",
    }
    if kind is None:
        return "void"
    if kind in simple:
        return simple[kind]
    if issubclass(kind, ctypes.Array):
        return f"array<{described(kind._type_)},{kind._length_}>"
    if issubclass(kind, ctypes.Structure):
        return f"struct {kind.__name__}"
    if hasattr(kind, "_restype_"):
        return f"{described(kind._restype_)}({', '.join(map(described, kind._argtypes_))})"
    return f"ptr<{described(kind._type_)}>"


def expected(one: CType, inside: Layout) -> str:
    """A type of the tables in the same words."""
    if one.kind == "enum":
        return "u32"
    if one.kind == "callback":
        return signature(inside.callbacks[one.name], inside)
    if one.kind == "handle" or str(one) == "ptr<void>":
        return "ptr<void>/handle"
    if str(one) in {"u64", "size_t"}:
        return "u64/size_t"
    if one.kind == "pointer" and one.target is not None and str(one) != "ptr<char>":
        return f"ptr<{expected(one.target, inside)}>"
    return str(one)


def signature(function: Function, inside: Layout) -> str:
    arguments = ", ".join(expected(one.type, inside) for one in function.parameters)
    return f"{expected(function.returns, inside)}({arguments})"


def walk(kind: type[Any], base: int = 0, *, in_union: bool = False) -> list[tuple[str, int, int, bool, str]]:
    """Path, offset, size, membership in a union and type of every field, as the ctypes class itself has them."""
    found: list[tuple[str, int, int, bool, str]] = []
    for name, member in ((entry[0], entry[1]) for entry in kind._fields_):
        descriptor = getattr(kind, name)
        offset = base + descriptor.offset
        if issubclass(member, ctypes.Union):
            assert name in kind._anonymous_
            found += walk(member, offset, in_union=True)
        elif issubclass(member, ctypes.Structure) and member.__name__.endswith(f"_{name}"):
            found.append((name, offset, descriptor.size, in_union, "anonymous-struct"))
            found += [(f"{name}.{one[0]}", *one[1:]) for one in walk(member, offset)]
        else:
            found.append((name, offset, descriptor.size, in_union, described(member)))
    return found


@ALL
def test_every_field_lies_where_the_table_has_it(inside: Layout) -> None:
    made = types_of(inside).structs
    assert set(made) == set(inside.structs)
    fields = 0
    for name, struct in inside.structs.items():
        assert (ctypes.sizeof(made[name]), ctypes.alignment(made[name])) == (struct.sizeof, struct.alignof)
        rows = [(path, one.offset, one.size, one.in_union, expected(one.type, inside)) for path, one in struct.flat()]
        assert walk(made[name]) == rows
        fields += len(rows)
    assert fields > 40


@ALL
def test_functions_and_callbacks_have_the_types_of_the_table(inside: Layout) -> None:
    types = types_of(inside)
    assert set(types.callbacks) == set(inside.callbacks)
    assert set(types.functions) == set(inside.functions)
    for name, callback in inside.callbacks.items():
        assert described(types.callbacks[name]) == signature(callback, inside)
    for name, function in inside.functions.items():
        result, arguments = types.functions[name]
        assert f"{described(result)}({', '.join(map(described, arguments))})" == signature(function, inside)


@ALL
def test_enums_are_four_bytes_without_a_sign(inside: Layout) -> None:
    assert all((enum.sizeof, enum.signed) == (4, False) for enum in inside.enums.values())
    assert ctypes.sizeof(ctypes.c_uint32) == 4


def test_classes_are_made_once() -> None:
    assert types_of(layout("1.3.0")) is types_of(layout("1.3.0"))


def doctored(inside: Layout, struct: str, **change: Any) -> Layout:
    """The layout with one struct, or one field of it (`name`), changed."""
    old = inside.structs[struct]
    name = change.pop("name", None)
    if name is None:
        new = dataclasses.replace(old, **change)
    else:
        fields = tuple(dataclasses.replace(one, **change) if one.name == name else one for one in old.fields)
        assert fields != old.fields
        new = dataclasses.replace(old, fields=fields)
    return dataclasses.replace(inside, structs={**inside.structs, struct: new})


@pytest.mark.parametrize(
    ("struct", "change", "named"),
    [
        ("RKLLMParam", {"name": "top_k", "type": CType("scalar", "u64")}, "RKLLMParam.top_k"),
        ("RKLLMParam", {"name": "is_async", "type": CType("scalar", "i32")}, "RKLLMParam.is_async"),
        ("RKLLMParam", {"name": "n_keep", "offset": 24}, "RKLLMParam.n_keep"),
        ("RKLLMParam", {"name": "n_keep", "size": 8}, "RKLLMParam.n_keep"),
        ("RKLLMInput", {"name": "token_input", "in_union": False}, "RKLLMInput.token_input"),
        ("RKLLMInput", {"sizeof": 168}, "RKLLMInput has size"),
        ("RKLLMInferParam", {"alignof": 4}, "RKLLMInferParam has size and alignment"),
        ("RKLLMExtendParam", {"name": "reserved", "type": CType.parse("array<u8,103>")}, "RKLLMExtendParam.reserved"),
        ("RKLLMMultiModalInput", {"name": "image", "fields": ()}, "RKLLMMultiModalInput.image"),
    ],
)
def test_a_table_that_ctypes_does_not_follow_is_refused(struct: str, change: dict[str, Any], named: str) -> None:
    with pytest.raises(LayoutMismatch) as caught:
        types_of(doctored(layout("1.3.0"), struct, **change))
    assert named in str(caught.value)
    assert "1.3.0" in str(caught.value)


def test_a_field_of_an_inner_struct_is_held_against_the_table() -> None:
    inside = layout("1.3.0")
    image = next(one for one in inside.structs["RKLLMMultiModalInput"].fields if one.name == "image")
    inner = tuple(dataclasses.replace(one, offset=one.offset + 8) for one in image.fields)
    with pytest.raises(LayoutMismatch, match=r"RKLLMMultiModalInput\.image\.n_image has offset"):
        types_of(doctored(inside, "RKLLMMultiModalInput", name="image", fields=inner))


def test_an_enum_of_another_size_is_refused() -> None:
    inside = layout("1.2.3")
    wide = dataclasses.replace(inside.enums["RKLLMInferMode"], sizeof=8)
    with pytest.raises(LayoutMismatch, match="RKLLMInferMode has size 4, not 8"):
        types_of(dataclasses.replace(inside, enums={**inside.enums, "RKLLMInferMode": wide}))


def test_a_value_without_a_type_is_refused() -> None:
    odd = Struct("Odd", 8, 8, (Field("nothing", 0, 8, CType("void")),))
    inside = layout("1.2.3")
    with pytest.raises(LayoutMismatch, match="void is no type of a value"):
        types_of(dataclasses.replace(inside, structs={**inside.structs, "Odd": odd}))


def test_the_longer_twin_serves_both() -> None:
    """Why a library without a marker that is 1.2.0 or 1.2.1b1 is used as 1.2.1b1."""
    short, long = layout("1.2.0"), layout("1.2.1b1")
    names = set(short.structs) - {"RKLLMMultiModalInput", "RKLLMMultiModelInput", "RKLLMInput"}
    assert len(names) > 10
    assert all(short.structs[name] == long.structs[name] for name in names)
    assert (short.enums, short.callbacks, short.symbols) == (long.enums, long.callbacks, long.symbols)
    assert {name: signature(one, short) for name, one in short.functions.items()} == {
        name: signature(one, long) for name, one in long.functions.items()
    }
    inputs = [inside.structs["RKLLMInput"].fields for inside in (short, long)]
    plain = [[field for field in fields if "multi" not in field.name] for fields in inputs]
    assert plain[0] == plain[1]
    assert short.structs["RKLLMInput"].sizeof < long.structs["RKLLMInput"].sizeof


def declared(one: CType, name: str) -> str:
    if one.kind == "pointer" and one.target is not None:
        return declared(one.target, f"*{name}")
    plain = "LLMHandle" if one.kind == "handle" else C_NAMES.get(one.name, one.name) or str(one)
    return f"{plain} {name}"


def prototype(function: Function) -> str:
    parts = (f"{'const ' if one.pointee_const else ''}{declared(one.type, one.name)}" for one in function.parameters)
    return f"{declared(function.returns, function.name)}({', '.join(parts) or 'void'});"


def test_the_prototypes_above_the_bindings_are_those_of_the_tables() -> None:
    source = Path(raw.__file__).read_text(encoding="utf-8")
    comments = " ".join(re.findall(r"^ *# ?(.*)$", source, flags=re.MULTILINE))
    written = re.findall(r"\w+ rkllm_\w+\([^)]*\);", re.sub(r" +", " ", comments))
    generated = {prototype(one) for inside in layouts() for one in inside.functions.values()}
    assert len(written) == len(set(written))
    assert set(written) == generated
    assert len(generated) == len(known_symbols()) + 2  # rkllm_init and rkllm_clear_kv_cache have two forms


def test_each_binding_stands_below_its_prototype() -> None:
    lines = Path(raw.__file__).read_text(encoding="utf-8").splitlines()
    bound = []
    for number, line in enumerate(lines):
        if found := re.search(r'bind\("(rkllm_\w+)"\)', line):
            above = number - 1
            while not re.search(r"# .*rkllm_\w+\(", lines[above]):
                assert lines[above].lstrip().startswith("#")
                above -= 1
            assert f"{found[1]}(" in lines[above]
            bound.append(found[1])
    assert set(bound) == known_symbols()


def test_a_function_that_the_layout_lacks_says_so() -> None:
    bare = RawLibrary(FakeLibrary(), types_of(layout("1.1.4")))  # type: ignore[arg-type]  # stands for a CDLL
    with pytest.raises(NotInThisVersion, match=r"librkllmrt 1\.1\.4 does not have rkllm_set_chat_template"):
        bare.set_chat_template(None, b"", b"", b"")


class FakeLibrary:
    def __getitem__(self, name: str) -> Any:
        return lambda: name
