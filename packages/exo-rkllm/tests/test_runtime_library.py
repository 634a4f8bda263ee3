"""Opening libraries: simulated ones, doctored ones, and files that are none."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from runtime_sim import library_path

from exo_rkllm.runtime import LibraryNotFound, LibraryNotLoadable, SymbolMissing, VersionUnknown, loading, open_library
from exo_rkllm.runtime.elf import why_not_loadable
from exo_rkllm.runtime.probe import fitting_layouts
from rkllm_facts.abi import SUPPORTED, known_symbols, layout, layouts

HERE = platform.machine()
TRAP = "rknn llm lib version: 2.3.3b0 (c824afd6c@2025-08-25)"


def marker(version: str) -> str:
    return f"RKLLM SDK (version: {version} | target: Linux | build: f8ca3ae8 2025-04-08)"


def compile_library(target: Path, source: str, *flags: str) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    command = ["gcc", "-shared", "-fPIC", "-o", str(target), "-x", "c", "-", *flags]
    subprocess.run(command, input=source, text=True, check=True, timeout=60)
    return target


def doctored(target: Path, *strings: str, without: str = "", functions_of: str = "1.3.0") -> Path:
    """A library whose functions do nothing, with `strings` in its file."""
    lines = [f'const char string_{number}[] = "{text}";' for number, text in enumerate(strings)]
    names = layout(functions_of).symbols - {without}
    return compile_library(target, "\n".join([*lines, *(f"int {name}(void) {{ return 0; }}" for name in names), ""]))


# --- recognition ---


@pytest.mark.slow
@pytest.mark.parametrize("abi", SUPPORTED)
def test_a_library_with_a_marker_opens_without_a_warning(abi: str) -> None:
    library = open_library(library_path(abi))
    assert (library.version, library.layout, library.warnings) == (abi, layout(abi), ())
    assert library.features.layout is library.layout
    assert library.path == library_path(abi)


@pytest.mark.slow
@pytest.mark.parametrize(("release", "name"), [("1.1.0", "1.1.4"), ("1.2.2", "1.2.3")])
def test_an_older_release_of_a_layout(release: str, name: str) -> None:
    library = open_library(library_path(release))
    assert (library.version, library.layout.name, str(library.features.version)) == (release, name, release)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("abi", "taken"),
    [("1.1.4", "1.1.4"), ("1.2.0", "1.2.1b1"), ("1.2.1b1", "1.2.1b1"), ("1.2.3", "1.2.3"), ("1.3.0", "1.3.0")],
)
def test_a_library_without_a_marker_is_recognised_by_functions_and_defaults(abi: str, taken: str) -> None:
    library = open_library(library_path(abi, marker=False))
    assert (library.version, library.layout.name) == (None, taken)
    assert len(library.warnings) == 1
    assert "has no version marker" in library.warnings[0]


@pytest.mark.slow
@pytest.mark.parametrize("abi", SUPPORTED)
@pytest.mark.parametrize("machine", sorted({HERE, "aarch64"}))
def test_the_probe_finds_the_layout_with_and_without_memory_filled_before(abi: str, machine: str) -> None:
    found = {one.name for one in fitting_layouts(loading.load(library_path(abi)), layouts(), machine=machine)}
    assert found == ({"1.2.0", "1.2.1b1"} if abi in {"1.2.0", "1.2.1b1"} else {abi})


def test_the_version_of_the_core_inside_is_not_taken_for_the_library_s(tmp_path: Path) -> None:
    library = open_library(doctored(tmp_path / "a/librkllmrt.so", TRAP, marker("1.3.0"), TRAP))
    assert library.version == "1.3.0"
    assert any("they fit no known version" in text for text in library.warnings)
    with pytest.raises(VersionUnknown, match="it has no version marker"):
        open_library(doctored(tmp_path / "b/librkllmrt.so", TRAP))


def test_a_version_that_is_not_supported_needs_a_word_of_the_user(tmp_path: Path) -> None:
    path = doctored(tmp_path / "librkllmrt.so", marker("1.3.1"))
    with pytest.raises(VersionUnknown, match=r"librkllmrt 1\.3\.1 is known, but not supported") as caught:
        open_library(path)
    assert "it could be 1.2.3 or 1.3.0" in str(caught.value)
    library = open_library(path, abi="1.3.0")
    assert (library.version, library.layout.name) == ("1.3.1", "1.3.0")
    assert "because RKLLM_ABI says so" in library.warnings[0]
    with pytest.raises(VersionUnknown, match=r"RKLLM_ABI is '1\.3\.1'"):
        open_library(path, abi="1.3.1")


def test_a_library_that_lacks_a_function(tmp_path: Path) -> None:
    path = doctored(tmp_path / "librkllmrt.so", marker("1.2.3"), without="rkllm_clear_kv_cache")
    for abi in (None, "1.3.0"):
        with pytest.raises(SymbolMissing, match="does not export rkllm_clear_kv_cache") as caught:
            open_library(path, abi=abi)
        assert caught.value.missing == ("rkllm_clear_kv_cache",)


def test_functions_that_contradict_the_marker(tmp_path: Path) -> None:
    path = doctored(tmp_path / "librkllmrt.so", marker("1.2.0"))
    with pytest.raises(VersionUnknown, match=r"its marker says 1\.2\.0, but it exports rkllm_get_kv_cache_size"):
        open_library(path)


@pytest.mark.slow
def test_a_layout_that_marker_and_defaults_contradict_is_refused() -> None:
    with pytest.raises(VersionUnknown, match="Unset RKLLM_ABI"):
        open_library(library_path("1.3.0"), abi="1.2.3")


# --- files that do not load ---


def elf(machine: int, *, bits: int = 64, little: bool = True) -> bytes:
    head = b"\x7fELF" + bytes([bits // 32, 1 if little else 2, 1]) + b"\0" * 9
    return (head + struct.pack("<HH" if little else ">HH", 3, machine)).ljust(64, b"\0")


@pytest.mark.parametrize(
    ("head", "machine", "said"),
    [
        (elf(183), "x86_64", "it is for aarch64, this machine is x86_64"),
        (elf(62), "aarch64", "it is for x86_64, this machine is aarch64"),
        (elf(40, bits=32), "aarch64", "it is for arm (32 bit), this machine is aarch64"),
        (elf(3, bits=32), "x86_64", "it is for i386 (32 bit), this machine is x86_64"),
        (elf(62, bits=32), "x86_64", "it is for x86_64 (32 bit), this machine is x86_64 and this Python has"),
        (elf(22, little=False), "x86_64", "it is for s390x, this machine is x86_64"),
        (elf(999), "x86_64", "it is for machine number 999"),
        (b"\x7fELF", "x86_64", "it is not an ELF file"),
        (b"GROUP ( libc.so.6 )" * 4, "x86_64", "it is not an ELF file"),
        (b"", "x86_64", "it is not an ELF file"),
    ],
)
def test_what_the_first_bytes_tell(head: bytes, machine: str, said: str) -> None:
    problem = why_not_loadable(head, machine=machine)
    assert problem is not None
    assert said in problem


def test_a_library_for_this_machine_has_no_problem() -> None:
    assert why_not_loadable(elf(62), machine="x86_64") is None
    assert why_not_loadable(elf(183), machine="arm64") is None


def test_a_library_for_another_machine_is_told_before_it_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "librkllmrt.so"
    path.write_bytes(elf(62 if HERE == "aarch64" else 183) + marker("1.2.3").encode() + b"\0")
    with pytest.raises(LibraryNotLoadable, match=f"this machine is {HERE}") as caught:
        open_library(path)
    assert caught.value.path == path
    assert str(path) in str(caught.value)


def test_a_text_file_and_a_damaged_library(tmp_path: Path) -> None:
    path = tmp_path / "librkllmrt.so"
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(LibraryNotLoadable, match="not an ELF file"):
        open_library(path)
    path.write_bytes(elf(183 if HERE == "aarch64" else 62))
    with pytest.raises(LibraryNotLoadable, match="the system's loader says"):
        open_library(path)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(LibraryNotFound, match="There is no file"):
        open_library(tmp_path / "librkllmrt.so")
    with pytest.raises(LibraryNotFound, match="There is no file"):
        loading.load(tmp_path / "librkllmrt.so")
    with pytest.raises(LibraryNotLoadable, match="Is a directory"):
        loading.load(tmp_path)


def needing(folder: Path, name: str, *, soname: bool = True) -> Path:
    """A library that needs another one of that name, which lies in `folder`/elsewhere."""
    flags = [f"-Wl,-soname,{name}"] if soname else []
    other = compile_library(folder / "elsewhere" / name, "int other(void) { return 42; }\n", *flags)
    source = "int other(void);\nint ask(void) { return other(); }\n"
    link = ["-Wl,--no-as-needed", f"-L{other.parent}", f"-l:{name}"] if soname else ["-Wl,--no-as-needed"]
    return compile_library(folder / "lib/librkllmrt.so", source, *link)


def test_a_library_that_is_missing_is_named_with_the_place_for_it(tmp_path: Path) -> None:
    path = needing(tmp_path, "libomp-missing.so")
    with pytest.raises(LibraryNotLoadable) as caught:
        loading.load(path)
    assert caught.value.missing == "libomp-missing.so"
    assert "it needs libomp-missing.so, which this system does not have." in str(caught.value)
    assert f"Put libomp-missing.so beside it, into {path.parent}" in str(caught.value)


def test_a_library_that_lies_beside_is_used(tmp_path: Path) -> None:
    path = needing(tmp_path, "libomp-beside.so")
    shutil.copy(tmp_path / "elsewhere/libomp-beside.so", path.parent)
    assert loading.load(path).ask() == 42


def test_a_library_beside_that_does_not_load_is_named(tmp_path: Path) -> None:
    path = needing(tmp_path, "libomp-broken.so")
    (path.parent / "libomp-broken.so").write_text("no library")
    with pytest.raises(LibraryNotLoadable, match=r"it needs libomp-broken\.so; the one beside it does not load"):
        loading.load(path)


def test_a_library_beside_with_another_name_inside_is_told(tmp_path: Path) -> None:
    path = needing(tmp_path, "libomp-renamed.so")
    compile_library(path.parent / "libomp-renamed.so", "int other(void) { return 1; }\n", "-Wl,-soname,libelse.so")
    with pytest.raises(LibraryNotLoadable, match=r"has another name inside \(SONAME\)"):
        loading.load(path)


def test_a_library_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:  # root may read everything, so a file mode would not do
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", refuse)
    for use in (open_library, loading.load):
        with pytest.raises(LibraryNotLoadable, match="it cannot be read: Permission denied"):
            use(tmp_path / "librkllmrt.so")


def test_every_known_function_is_looked_up() -> None:
    assert len(known_symbols()) == 15
