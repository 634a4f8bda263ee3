"""Where the library is looked for, and its marker."""

from __future__ import annotations

from pathlib import Path

import pytest

from exo_rkllm.runtime import LibraryNotFound, LibraryNotLoadable, find_library, library_marker

NAME = "librkllmrt.so"


def put(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_places_in_their_order(tmp_path: Path) -> None:
    root, home = tmp_path / "root", tmp_path / "home"
    env = {"HOME": str(home)}
    places = [
        home / "RKLLAMA/lib" / NAME,
        root / "usr/lib" / NAME,
        root / "usr/lib/aarch64-linux-gnu" / NAME,
        root / "usr/local/lib" / NAME,
    ]
    with pytest.raises(LibraryNotFound) as caught:
        find_library(env, root=root)
    assert list(caught.value.places) == places
    assert all(str(place) in str(caught.value) for place in places)
    assert "Set RKLLM_LIB" in str(caught.value)
    for place in reversed(places):
        put(place)
        assert find_library(env, root=root) == place


def test_rkllama_home_stands_for_the_folder_in_the_home(tmp_path: Path) -> None:
    put(tmp_path / "home/RKLLAMA/lib" / NAME)
    mine = put(tmp_path / "mine/lib" / NAME)
    env = {"HOME": str(tmp_path / "home"), "RKLLAMA_HOME": str(tmp_path / "mine")}
    assert find_library(env, root=tmp_path) == mine
    assert find_library({**env, "RKLLAMA_HOME": "~/../mine"}, root=tmp_path).samefile(mine)


@pytest.mark.parametrize("given", ["lib", "lib/librkllmrt.so", "~/lib"])
def test_rkllm_lib_names_a_file_or_a_folder(tmp_path: Path, given: str) -> None:
    put(tmp_path / "usr/lib" / NAME)
    mine = put(tmp_path / "lib" / NAME)
    named = given if given.startswith("~") else str(tmp_path / given)
    assert find_library({"RKLLM_LIB": named, "HOME": str(tmp_path)}, root=tmp_path) == mine


def test_rkllm_lib_may_name_a_file_of_another_name(tmp_path: Path) -> None:
    mine = put(tmp_path / "librkllmrt-1.2.3.so")
    assert find_library({"RKLLM_LIB": str(mine)}, root=tmp_path) == mine


@pytest.mark.parametrize(("given", "problem"), [("nothing.so", "there is no such file"), (".", "that folder holds no")])
def test_a_wrong_rkllm_lib_is_an_error_and_nothing_else_is_tried(tmp_path: Path, given: str, problem: str) -> None:
    put(tmp_path / "root/usr/lib" / NAME)
    with pytest.raises(LibraryNotFound, match=problem) as caught:
        find_library({"RKLLM_LIB": str(tmp_path / given)}, root=tmp_path / "root")
    assert str(tmp_path / given) in str(caught.value)
    assert len(caught.value.places) == 1


def test_an_empty_rkllm_lib_counts_as_none(tmp_path: Path) -> None:
    place = put(tmp_path / "usr/lib" / NAME)
    assert find_library({"RKLLM_LIB": " ", "RKLLAMA_HOME": "", "HOME": str(tmp_path)}, root=tmp_path) == place


def marker(version: str) -> bytes:
    return f"RKLLM SDK (version: {version} | target: Linux | build: 27637c95 2025-05-02 17:46:07)".encode()


TRAP = b"rknn llm lib version: 2.3.3b0 (c824afd6c@2025-08-25)\0RKLLM SDK\0rkllm-runtime version: %s\0"


@pytest.mark.parametrize(
    ("content", "version"),
    [
        (marker("1.2.3"), "1.2.3"),
        (TRAP + marker("1.2.1b1") + TRAP, "1.2.1b1"),
        (b"\0" * ((1 << 18) - 30) + marker("1.3.0") + b"\0" * 100, "1.3.0"),
        (b"x" * (3 << 18) + marker("1.3.1"), "1.3.1"),
        (TRAP * 3, None),
        (b"", None),
    ],
)
def test_the_marker_is_read_from_the_file_alone(tmp_path: Path, content: bytes, version: str | None) -> None:
    assert library_marker(put(tmp_path / NAME, content)) == version


def test_a_file_that_cannot_be_read_for_its_marker(tmp_path: Path) -> None:
    with pytest.raises(LibraryNotFound, match="There is no file"):
        library_marker(tmp_path / NAME)
    with pytest.raises(LibraryNotLoadable, match="it cannot be read: Is a directory"):
        library_marker(tmp_path)
