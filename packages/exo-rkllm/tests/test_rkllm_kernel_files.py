from __future__ import annotations

import os
from pathlib import Path

import pytest

from exo_rkllm.kernel_files import children, is_there, matching, text_of, whole_number


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    file = tmp_path / "load"
    file.write_bytes(b"NPU\xff")
    assert text_of(file) == "NPU\N{REPLACEMENT CHARACTER}"
    file.write_text("x" * 1_000_000)
    assert text_of(file) == "x" * 65_536


def test_the_kernels_own_files_are_read() -> None:
    assert text_of(Path("/proc/self/comm")).endswith("\n")


def test_what_cannot_be_read_is_empty(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for file in (tmp_path, tmp_path / "missing", tmp_path / "pipe", Path("/dev/zero"), Path("\0")):
        assert text_of(file) == ""


def test_what_this_user_may_not_see_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_there(tmp_path)

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", refuse)
        found = is_there(tmp_path)
    assert not found


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("1000000000", 10**9), ("", None), ("-1", None), ("1 ", None), ("9" * 13, None)]
)
def test_whole_numbers(text: str, value: int | None) -> None:
    assert whole_number(text) == value


def test_entries_of_a_folder(tmp_path: Path) -> None:
    for name in ("fdab0000.npu", "dmc", "fb000000.gpu"):
        (tmp_path / name).mkdir()
    assert [entry.name for entry in matching(tmp_path, "*.npu", "dmc")] == ["dmc", "fdab0000.npu"]
    assert len(children(tmp_path)) == 3
    assert children(tmp_path / "missing") == children(Path("\0")) == []
