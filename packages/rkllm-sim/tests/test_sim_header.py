"""The hand-written header has to agree with the tables, for every layout and in both directions."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest
import sim_ctypes
from sim_ctypes import Builder, every_release
from sim_header import complaints, program

from rkllm_facts.abi import SUPPORTED, CType, Field, Layout, Parameter, layout
from rkllm_sim.build import compiler_flags, sources

libraries = sim_ctypes.libraries

HEADER = (sources() / "rkllm.h").read_text(encoding="utf-8")


def check(inside: Layout, header: Path) -> str:
    return complaints(program(inside), header, compiler_flags(inside.name))


@pytest.mark.parametrize("abi", SUPPORTED)
def test_the_header_agrees_with_the_table(abi: str) -> None:
    text = program(layout(abi))
    assert text.count("_Static_assert") > 150
    assert check(layout(abi), sources()) == ""


@pytest.mark.parametrize("abi", SUPPORTED)
def test_no_table_fits_the_header_of_another_layout(abi: str) -> None:
    for other in SUPPORTED:
        assert (complaints(program(layout(abi)), sources(), compiler_flags(other)) == "") == (other == abi)


@every_release
def test_the_library_exports_the_layouts_functions_and_nothing_else(abi: str, libraries: Builder) -> None:
    command = ["nm", "-D", "--defined-only", str(libraries(abi))]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {line.split()[-1] for line in lines} == layout(abi).symbols
    assert {line.split()[-2] for line in lines} == {"T"}


@pytest.mark.parametrize(
    "language",
    [["gcc", "-std=c11", "-x", "c"], pytest.param(["g++", "-std=c++17", "-x", "c++"], marks=pytest.mark.system)],
    ids=["c", "c++"],
)
@pytest.mark.parametrize("abi", SUPPORTED)
def test_the_header_is_plain_c_and_cpp(abi: str, language: list[str]) -> None:
    text = '#include "rkllm.h"\nint main() { RKLLMParam p = rkllm_createDefaultParam(); return p.top_k; }\n'
    flags = ["-Wall", "-Wextra", "-Werror", f"-I{sources()}", *compiler_flags(abi), "-fsyntax-only", "-"]
    done = subprocess.run([*language, *flags], input=text, capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize("flags", [[], ["-DRKLLM_SIM_ABI=10202"]])
def test_an_unknown_layout_does_not_compile(flags: list[str]) -> None:
    assert "RKLLM_SIM_ABI" in complaints('#include "rkllm.h"\n', sources(), flags)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("    int32_t top_k;\n", "    float top_k;\n", "RKLLMParam, top_k: type"),
        ("    bool is_async;\n", "    int32_t is_async;\n", "RKLLMParam, is_async"),
        ("    float temperature;\n", "    double temperature;\n", "RKLLMParam, temperature"),
        ("    int32_t keep_history;\n", "    uint32_t keep_history;\n", "RKLLMInferParam, keep_history: type"),
        ("    const char *role;\n", "    char *role;\n", "RKLLMInput, role: type"),
        ("    float *embed;", "    int32_t *embed;", "RKLLMEmbedInput, embed: type"),
        ("    bool ignore_eos_token;\n", "", "ignore_eos_token"),
        ("    uint8_t reserved[104];\n", "    uint8_t reserved[103];\n", "RKLLMExtendParam, reserved"),
        ("    int8_t use_cross_attn;\n", "    int8_t use_cross_attn, more;\n", "RKLLMExtendParam"),
        ("    int32_t num_tokens;\n} RKLLMCross", "    int32_t num_tokens, more;\n} RKLLMCross", "initializer"),
        ("RKLLM_RUN_FINISH = 2", "RKLLM_RUN_FINISH = 1", "RKLLM_RUN_FINISH"),
        ("    RKLLM_RUN_ERROR = 3,\n", "    RKLLM_RUN_ERROR = 3,\n    RKLLM_RUN_LAST = 5,\n", "RKLLM_RUN_LAST"),
        ("#define CPU7 0x80", "#define CPU7 0x81", "CPU7"),
        ("typedef int (*LLMResultCallback)", "typedef void (*LLMResultCallback)", "LLMResultCallback: type"),
        ("RKLLMParam *param, RKLLMCallback *callback", "RKLLMParam *param, RKLLMCallback callback", "rkllm_init: type"),
        ("int rkllm_abort(LLMHandle handle)", "void rkllm_abort(LLMHandle handle)", "rkllm_abort: type"),
        ("uint64_t num_tokens, void *embed", "uint32_t num_tokens, void *embed", "LLMGetEmbedCallback: type"),
    ],
)
def test_a_change_of_the_header_is_found(tmp_path: Path, old: str, new: str, found: str) -> None:
    assert HEADER.count(old) >= 1
    (tmp_path / "rkllm.h").write_text(HEADER.replace(old, new), encoding="utf-8")
    assert found in check(layout("1.3.0"), tmp_path)


def with_field(inside: Layout, struct: str, name: str, change: dict[str, object]) -> Layout:
    """The layout with one field of a struct changed."""
    old = inside.structs[struct]

    def changed(one: Field) -> Field:
        return dataclasses.replace(one, **change) if one.name == name else one  # type: ignore[arg-type]  # any field

    fields = tuple(changed(one) for one in old.fields)
    assert fields != old.fields
    return dataclasses.replace(inside, structs={**inside.structs, struct: dataclasses.replace(old, fields=fields)})


@pytest.mark.parametrize(
    ("struct", "name", "change", "found"),
    [
        ("RKLLMParam", "top_k", {"type": CType("scalar", "u32")}, "RKLLMParam, top_k: type"),
        ("RKLLMParam", "n_keep", {"offset": 24}, "RKLLMParam, n_keep: offset"),
        ("RKLLMParam", "model_path", {"pointee_const": False}, "RKLLMParam, model_path: type"),
        ("RKLLMInput", "enable_thinking", {"size": 4}, "RKLLMInput, enable_thinking: size"),
        ("RKLLMResult", "token_id", {"name": "token"}, "token"),
        ("RKLLMInput", "token_input", {"offset": 24}, "RKLLMInput, token_input"),
    ],
)
def test_a_change_of_the_table_is_found(struct: str, name: str, change: dict[str, object], found: str) -> None:
    assert found in check(with_field(layout("1.3.0"), struct, name, change), sources())


def test_a_changed_enum_or_function_of_the_table_is_found() -> None:
    good = layout("1.2.3")
    enum = good.enums["LLMCallState"]
    values = {**enum.values, "RKLLM_RUN_ERROR": 4}
    wrong = dataclasses.replace(good, enums={**good.enums, enum.name: dataclasses.replace(enum, values=values)})
    assert "RKLLM_RUN_ERROR: value" in check(wrong, sources())
    clear = good.functions["rkllm_clear_kv_cache"]
    parameters: tuple[Parameter, ...] = clear.parameters[:2]
    changed = dataclasses.replace(clear, parameters=parameters)
    wrong = dataclasses.replace(good, functions={**good.functions, clear.name: changed})
    assert "rkllm_clear_kv_cache: type" in check(wrong, sources())
