"""The tables: consistent in themselves, and equal to what is stated of the headers elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from rkllm_facts.abi import SCALARS, SUPPORTED, CType, Field, Layout, Struct, layout, layouts
from rkllm_facts.abi.tables import read
from rkllm_facts.errors import UnknownLayout

TABLES = ["1.1.0", "1.2.0", "1.2.1b1", "1.2.1", "1.2.3", "1.3.0"]

SIZES = {
    "RKLLMParam": (200, 208, 208, 208, 184),
    "RKLLMExtendParam": (116, 120, 120, 120, 120),
    "RKLLMInput": (32, 32, 56, 64, 160),
    "RKLLMInferParam": (24, 32, 32, 32, 40),
    "RKLLMResult": (32, 48, 48, 72, 72),
    "RKLLMCallback": (None, None, None, None, 48),
    "RKLLMLoraAdapter": (24,) * 5,
    "RKLLMEmbedInput": (16,) * 5,
    "RKLLMTokenInput": (16,) * 5,
    "RKLLMLoraParam": (8,) * 5,
    "RKLLMPromptCacheParam": (16,) * 5,
    "RKLLMResultLastHiddenLayer": (16,) * 5,
    "RKLLMResultLogits": (None, 16, 16, 16, 16),
    "RKLLMCrossAttnParam": (None, None, None, 40, 40),
    "RKLLMPerfStat": (None, None, None, 20, 20),
    "RKLLMSamplingParam": (None, None, None, None, 36),
    "RKLLMMultiModelInput": (24, 24, 48, None, None),
    "RKLLMMultiModalInput": (None, None, None, 48, 144),
}
"""Bytes, in the order of SUPPORTED; None where the layout has no such struct."""

PLACES: dict[tuple[str, str], tuple[int | None, ...]] = {
    ("RKLLMParam", "n_keep"): (None, 20, 20, 20, 20),
    ("RKLLMParam", "top_p"): (20, 24, 24, 24, 24),
    ("RKLLMParam", "skip_special_token"): (52, 56, 56, 56, 56),
    ("RKLLMParam", "ignore_eos_token"): (None, None, None, None, 57),
    ("RKLLMParam", "is_async"): (53, 57, 57, 57, 58),
    ("RKLLMParam", "img_start"): (56, 64, 64, 64, None),
    ("RKLLMParam", "img_end"): (64, 72, 72, 72, None),
    ("RKLLMParam", "img_content"): (72, 80, 80, 80, None),
    ("RKLLMParam", "extend_param"): (80, 88, 88, 88, 60),
    ("RKLLMParam", "extend_param.enabled_cpus_num"): (None, 93, 93, 93, 65),
    ("RKLLMParam", "extend_param.n_batch"): (None, None, None, 100, 72),
    ("RKLLMExtendParam", "embed_flash"): (None, 4, 4, 4, 4),
    ("RKLLMExtendParam", "enabled_cpus_num"): (None, 5, 5, 5, 5),
    ("RKLLMExtendParam", "enabled_cpus_mask"): (None, 8, 8, 8, 8),
    ("RKLLMExtendParam", "n_batch"): (None, None, None, 12, 12),
    ("RKLLMExtendParam", "use_cross_attn"): (None, None, None, 13, 13),
    ("RKLLMExtendParam", "reserved"): (4, 12, 12, 14, 14),
    ("RKLLMInput", "role"): (None, None, None, 0, 0),
    ("RKLLMInput", "enable_thinking"): (None, None, None, 8, 8),
    ("RKLLMInput", "input_type"): (0, 0, 0, 12, 12),
    ("RKLLMInput", "prompt_input"): (8, 8, 8, 16, 16),
    ("RKLLMInput", "token_input.n_tokens"): (16, 16, 16, 24, 24),
    ("RKLLMInput", "multimodal_input.n_image"): (None, None, 32, 40, None),
    ("RKLLMInput", "multimodal_input.image.n_image"): (None, None, None, None, 40),
    ("RKLLMInferParam", "sampling_params"): (None, None, None, None, 24),
    ("RKLLMInferParam", "keep_history"): (None, 24, 24, 24, 32),
    ("RKLLMInferParam", "max_new_tokens"): (None, None, None, None, 36),
    ("RKLLMResult", "token_id"): (8, 8, 8, 8, 8),
    ("RKLLMResult", "last_hidden_layer.embd_size"): (24, 24, 24, 24, 24),
    ("RKLLMResult", "logits"): (None, 32, 32, 32, 32),
    ("RKLLMResult", "perf"): (None, None, None, 48, 48),
    ("RKLLMResult", "text.nothing"): (None,) * 5,
    ("NoSuchStruct", "text"): (None,) * 5,
}

STATES = {"RKLLM_RUN_NORMAL": 0, "RKLLM_RUN_WAITING": 1, "RKLLM_RUN_FINISH": 2, "RKLLM_RUN_ERROR": 3}


def size_of(kind: CType, inside: Layout) -> int | None:
    """None for a struct without a name, which has no size of its own in the tables."""
    if kind.kind == "scalar":
        return SCALARS[kind.name]
    if kind.kind == "array":
        assert kind.target is not None
        element = size_of(kind.target, inside)
        return None if element is None else element * kind.length
    if kind.kind == "struct":
        return inside.structs[kind.name].sizeof
    if kind.kind == "enum":
        return inside.enums[kind.name].sizeof
    return None if kind.kind == "inner" else inside.base_types["void*"]


def members(struct: Struct) -> Iterator[tuple[int, int, tuple[Field, ...]]]:
    """Beginning, end, and the neighbours that may not overlap, of struct and of its structs without a name."""
    yield 0, struct.sizeof, struct.fields
    for field in struct.fields:
        if field.fields:
            yield field.offset, field.offset + field.size, field.fields


def every_struct() -> list[tuple[Layout, Struct]]:
    return [(one, struct) for one in layouts() for struct in one.structs.values()]


def named(pair: object) -> str:
    return pair.name if isinstance(pair, (Layout, Struct)) else str(pair)


@pytest.mark.parametrize(("inside", "struct"), every_struct(), ids=named)
def test_fields_lie_inside_their_struct_one_after_the_other(inside: Layout, struct: Struct) -> None:
    assert struct.sizeof % struct.alignof == 0
    for begin, end, fields in members(struct):
        position = begin
        for shared, group in itertools.groupby(fields, key=lambda field: field.in_union):
            neighbours = list(group)
            if shared:
                assert len({field.offset for field in neighbours}) == 1, "a union has one place"
                assert len(neighbours) > 1
                neighbours = [max(neighbours, key=lambda field: field.size)]
            for field in neighbours:
                assert 0 <= field.offset - position < 8, f"{field.name} overlaps its neighbour or leaves a hole"
                position = field.offset + field.size
        assert 0 <= end - position < struct.alignof


@pytest.mark.parametrize(("inside", "struct"), every_struct(), ids=named)
def test_sizes_follow_from_types(inside: Layout, struct: Struct) -> None:
    for path, field in struct.flat():
        size = size_of(field.type, inside)
        assert size in {field.size, None}, path
        assert (size is None) == bool(field.fields), path
        assert not field.pointee_const or field.type.kind == "pointer", path
        if field.type.kind == "scalar":
            assert field.offset % field.size == 0, path


@pytest.mark.parametrize("inside", layouts(), ids=named)
def test_every_type_that_is_named_is_there(inside: Layout) -> None:
    fields = [field.type for struct in inside.structs.values() for _, field in struct.flat()]
    functions = [*inside.functions.values(), *inside.callbacks.values()]
    signatures = [one.returns for one in functions] + [part.type for one in functions for part in one.parameters]
    where = {"struct": inside.structs, "enum": inside.enums, "callback": inside.callbacks}
    for kind in fields + signatures:
        innermost = kind
        while innermost.target is not None:
            innermost = innermost.target
        if innermost.kind in where:
            assert innermost.name in where[innermost.kind]


def test_sizes_at_a_glance() -> None:
    for name, sizes in SIZES.items():
        found = [one.structs[name].sizeof if name in one.structs else None for one in layouts()]
        assert found == list(sizes), name
    assert {name for one in layouts() for name in one.structs} == set(SIZES)


@pytest.mark.parametrize(("struct", "path"), PLACES)
def test_places_of_the_fields_that_have_moved(struct: str, path: str) -> None:
    found = [one.locate(struct, path) for one in layouts()]
    assert [field and field.offset for field in found] == list(PLACES[struct, path])


def test_an_array_keeps_its_element_and_its_length() -> None:
    reserved = layout("1.3.0").locate("RKLLMParam", "extend_param.reserved")
    assert reserved is not None
    assert reserved.type == CType("array", target=CType("scalar", "u8"), length=104)
    assert (reserved.offset, reserved.size) == (74, 104)


def test_a_struct_without_a_name_holds_its_fields() -> None:
    image, video = layout("1.3.0").structs["RKLLMMultiModalInput"].fields[1:]
    assert (image.name, image.offset, image.size, len(image.fields)) == ("image", 8, 64, 8)
    assert (video.name, video.offset, video.size, len(video.fields)) == ("video", 72, 72, 9)
    assert (image.fields[3].name, image.fields[3].offset, image.fields[3].pointee_const) == ("image_start", 32, True)


def test_enums() -> None:
    for one in layouts():
        hidden = {"RKLLM_RUN_GET_LAST_HIDDEN_LAYER": 4} if one.name == "1.1.4" else {}
        assert one.enums["LLMCallState"].values == STATES | hidden
        inputs = one.enums["RKLLMInputType"].values
        assert list(inputs) == [f"RKLLM_INPUT_{word}" for word in ("PROMPT", "TOKEN", "EMBED", "MULTIMODAL")]
        assert list(inputs.values()) == [0, 1, 2, 3]
        assert len(one.enums["RKLLMInferMode"].values) == (2 if one.name == "1.1.4" else 3)
        assert all((enum.sizeof, enum.signed) == (4, False) for enum in one.enums.values())


def test_cpu_macros() -> None:
    macros = {f"CPU{number}": 1 << number for number in range(8)}
    assert [dict(one.macros) for one in layouts()] == [{}, macros, macros, macros, macros]


def test_base_types_are_those_of_lp64() -> None:
    for one in layouts():
        assert one.data_model == "LP64"
        assert one.base_types["void*"] == one.base_types["size_t"] == one.base_types["LLMResultCallback"] == 8
        assert (one.base_types["int"], one.base_types["float"], one.base_types["bool"]) == (4, 4, 1)


def test_signatures_that_have_changed() -> None:
    def signature(inside: Layout, name: str) -> str:
        function = {**inside.functions, **inside.callbacks}[name]
        return f"{function.returns}({', '.join(str(one.type) for one in function.parameters)})"

    inits = [signature(one, "rkllm_init") for one in layouts()]
    assert inits[:4] == ["i32(ptr<handle>, ptr<struct RKLLMParam>, callback LLMResultCallback)"] * 4
    assert inits[4] == "i32(ptr<handle>, ptr<struct RKLLMParam>, ptr<struct RKLLMCallback>)"
    results = [signature(one, "LLMResultCallback") for one in layouts()]
    parameters = "(ptr<struct RKLLMResult>, ptr<void>, enum LLMCallState)"
    assert results == [f"{kind}{parameters}" for kind in ("void", "void", "void", "i32", "i32")]
    clears = [signature(one, "rkllm_clear_kv_cache") for one in layouts()[1:]]
    assert clears[:2] == ["i32(handle, i32)"] * 2
    assert clears[2:] == ["i32(handle, i32, ptr<i32>, ptr<i32>)"] * 2
    run = "i32(handle, ptr<struct RKLLMInput>, ptr<struct RKLLMInferParam>, ptr<void>)"
    assert {signature(one, name) for one in layouts() for name in ("rkllm_run", "rkllm_run_async")} == {run}
    assert {signature(one, "rkllm_createDefaultParam") for one in layouts()} == {"struct RKLLMParam()"}
    assert [list(one.callbacks) for one in layouts()][:4] == [["LLMResultCallback"]] * 4
    assert set(layout("1.3.0").callbacks) == {"LLMResultCallback", "LLMTokenizerCallback", "LLMGetEmbedCallback"}


@pytest.mark.parametrize("table", TABLES)
def test_nothing_of_a_table_is_lost(table: str) -> None:
    """Every row of a file, written back from the typed form, is the row again."""
    raw = read(table)
    one = next(one for one in layouts() for header in one.headers if header.releases[0] == table)
    rename = ("MultiModel", "MultiModal") if table == "1.2.1" else ("", "")
    structs = {name.replace(*rename): entry for name, entry in raw["structs"].items()}
    assert list(structs) == list(one.structs)
    for name, entry in structs.items():
        struct = one.structs[name]
        assert (entry["sizeof"], entry["alignof"]) == (struct.sizeof, struct.alignof)
        rows = []
        for path, field in struct.flat():
            row = {"name": path, "offset": field.offset, "size": field.size, "type": str(field.type)}
            marks = {"pointee_const": field.pointee_const, "in_union": field.in_union}
            rows.append(row | {mark: True for mark, given in marks.items() if given})
        assert rows == [row | {"type": row["type"].replace(*rename)} for row in entry["fields"]], name
    assert raw["enums"] == {
        name: {"sizeof": enum.sizeof, "signed": enum.signed, "values": enum.values} for name, enum in one.enums.items()
    }
    for key, functions in (("functions", one.functions), ("callbacks", one.callbacks)):
        written = []
        for function in functions.values():
            const = ({"pointee_const": True} if part.pointee_const else {} for part in function.parameters)
            parts = [{"name": part.name, "type": str(part.type)} | next(const) for part in function.parameters]
            written.append({"name": function.name, "returns": str(function.returns), "params": parts})
        assert written == raw[key]
    assert (raw["macros"], raw["base_types"]) == (one.macros, one.base_types)


def test_where_the_tables_come_from() -> None:
    headers = [header for one in layouts() for header in one.headers]
    assert [header.releases[0] for header in headers] == TABLES
    assert [release for header in headers for release in header.releases] == [
        release for one in layouts() for release in one.releases
    ]
    for header in headers:
        assert [len(header.commit), len(header.blob), len(header.sha256)] == [40, 40, 64]
        assert header.path.endswith("rkllm.h")
    assert layout("1.3.0").headers[0].sha256.startswith("80596a578f7f8e70")


def test_a_layout_has_one_object() -> None:
    assert layout("1.2.3") is layout("1.2.3")
    assert [one.name for one in layouts()] == list(SUPPORTED)
    assert len({one.layout_id for one in layouts()}) == len(SUPPORTED)
    assert len({*layouts(), *layouts()}) == len(SUPPORTED)


def test_tables_cannot_be_changed_by_accident() -> None:
    structs = layout("1.3.0").structs
    assert not hasattr(structs, "__setitem__")
    assert not hasattr(layout("1.3.0").enums["LLMCallState"].values, "__setitem__")


@pytest.mark.parametrize("name", ["1.2.1", "1.1.x", "", "1.3.1", "releases", "../data/1.3.0"])
def test_an_unknown_layout_is_refused_with_the_known_names(name: str) -> None:
    with pytest.raises(UnknownLayout) as caught:
        layout(name)
    assert all(known in str(caught.value) for known in (repr(name), *SUPPORTED))


@pytest.mark.parametrize("text", ["", "int", "ptr<>", "ptr<int>", "struct ", "array<u8>", "array<u8,>", "struct A B"])
def test_a_type_that_the_tables_do_not_write_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a type"):
        CType.parse(text)
