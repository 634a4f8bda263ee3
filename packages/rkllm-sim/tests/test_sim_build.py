"""`build`: a library for each release, its marker, and what it says when it cannot."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest
import sim_ctypes
from sim_ctypes import Builder, every_release

from rkllm_facts.abi import (
    SUPPORTED,
    layout,
    layout_by_default_param,
    layout_for_release,
    probe_buffer,
    releases,
    version_marker,
)
from rkllm_sim.build import ABI_NUMBERS, LIBRARY_NAME, BuildError, build, compiler_flags, sources

libraries = sim_ctypes.libraries


@every_release
def test_the_marker_in_the_file_names_the_version(abi: str, libraries: Builder) -> None:
    data = libraries(abi).read_bytes()
    assert version_marker(data) == abi
    assert data.index(b"lib version: 2.3.3b0") < data.index(b"RKLLM SDK (version: ")
    assert b"rkllm-runtime version: %s" in data


@pytest.mark.slow
def test_every_supported_release_can_be_built(libraries: Builder) -> None:
    assert set(ABI_NUMBERS) == set(SUPPORTED)
    for release in releases():
        if release.layout is not None:
            number = f"-DRKLLM_SIM_ABI={ABI_NUMBERS[release.layout]}"
            assert number in compiler_flags(str(release.version))
    assert version_marker(libraries("1.2.2").read_bytes()) == "1.2.2"


@pytest.mark.slow
def test_without_a_marker_the_version_is_not_in_the_file(tmp_path: Path) -> None:
    data = build("1.2.3", tmp_path, marker=False).read_bytes()
    assert version_marker(data) is None
    assert b"lib version: 2.3.3b0" in data


@every_release
def test_the_defaults_lie_where_the_layout_has_them(abi: str, libraries: Builder) -> None:
    """createDefaultParam writes its struct and not one byte more."""
    function = ctypes.CDLL(str(libraries(abi))).rkllm_createDefaultParam
    size = layout(abi).structs["RKLLMParam"].sizeof
    buffer = ctypes.create_string_buffer(probe_buffer(), len(probe_buffer()))
    raw = type("Raw", (ctypes.Structure,), {"_fields_": [("bytes", ctypes.c_char * size)]})
    function.restype = raw
    ctypes.memmove(buffer, ctypes.byref(function()), size)
    found = {one.name for one in layout_by_default_param(buffer.raw)}
    assert found == ({abi} if abi not in {"1.2.0", "1.2.1b1"} else {"1.2.0", "1.2.1b1"})


@pytest.mark.slow
def test_the_output_folder_is_made_and_a_library_there_is_replaced_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "lib"
    first = build("1.1.4", folder)
    assert first == folder / LIBRARY_NAME
    with first.open("rb") as old:
        assert build("1.3.0", folder) == first
        assert version_marker(old.read()) == "1.1.4"
    assert version_marker(first.read_bytes()) == "1.3.0"
    assert [path.name for path in folder.iterdir()] == [LIBRARY_NAME]


@pytest.mark.parametrize("abi", ["1.0.1", "1.3.1", "2.0.0", "newest", ""])
def test_an_unsupported_release_is_refused_with_the_names(abi: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        build(abi, tmp_path)
    assert all(name in str(caught.value) for name in SUPPORTED)
    assert not list(tmp_path.iterdir())


def test_a_missing_compiler_is_named_with_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"no C compiler 'no-such-gcc'.*apt install gcc"):
        build("1.2.3", tmp_path, compiler="no-such-gcc")


def test_a_compiler_that_fails_is_quoted(tmp_path: Path) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho 'no room on device' >&2\nexit 4\n", encoding="utf-8")
    broken.chmod(0o755)
    with pytest.raises(BuildError, match=r"(?s)exit code 4.*no room on device"):
        build("1.2.3", tmp_path / "out", compiler=str(broken))
    assert not list((tmp_path / "out").iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(BuildError, match=r"Cannot write .*file/lib.*Choose another folder"):
        build("1.2.3", tmp_path / "file" / "lib")


def test_the_library_needs_nothing_but_the_c_library(libraries: Builder) -> None:
    command = ["readelf", "-d", str(libraries("1.3.0"))]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    needed = {line.split("[")[1].rstrip("]") for line in lines if "(NEEDED)" in line}
    assert needed <= {"libc.so.6", "libm.so.6", "libpthread.so.0", "ld-linux-aarch64.so.1"}
    assert any(f"[{LIBRARY_NAME}]" in line for line in lines if "SONAME" in line)


def test_the_sources_are_small() -> None:
    files = [*sources().glob("*.c"), *sources().glob("*.h")]
    assert len(files) > 10
    assert max(len(path.read_text(encoding="utf-8").splitlines()) for path in files) <= 400


def test_a_release_has_the_layout_of_its_family() -> None:
    assert layout_for_release("1.2.2").name == "1.2.3"
    assert compiler_flags("1.2.2")[1] == "-DRKLLM_SIM_RELEASE=10202"
