from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from exo.models import ModelStore, StoredModel
from exo.types import StoreError


def write(path: Path, content: bytes = b"GGUF") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["a", "SmolLM2-135M_Instruct.Q4", "qwen2.5:1.5b", "a+b", "1", "a..b"])
def test_names_of_model_folders(tmp_path: Path, name: str) -> None:
    assert ModelStore(tmp_path).folder(name) == tmp_path / name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc", "a/../..", "..\\x", ".hidden", "-a", "a\n", "a b", "a\0", "é", "~"]
)
def test_names_that_could_leave_the_store_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="cannot be the name of a model folder"):
        ModelStore(tmp_path).folder(name)


def test_scan_lists_folders_and_single_files_by_id(tmp_path: Path) -> None:
    small = write(tmp_path / "b.gguf", b"12")
    big = write(tmp_path / "a" / "weights.gguf", b"123")
    assert ModelStore(tmp_path).scan(".gguf") == [StoredModel("a", big, 3), StoredModel("b", small, 2)]


def test_scan_leaves_out_what_is_no_finished_model(tmp_path: Path) -> None:
    write(tmp_path / "half" / "m.gguf.partial")
    write(tmp_path / "other" / "m.rkllm")
    write(tmp_path / ".hidden" / "m.gguf")
    write(tmp_path / "deep" / "er" / "m.gguf")
    write(tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "dangling").mkdir()
    (tmp_path / "dangling" / "m.gguf").symlink_to(tmp_path / "gone")
    assert ModelStore(tmp_path).scan(".gguf") == []


def test_a_folder_with_several_files_counts_as_its_first(tmp_path: Path) -> None:
    write(tmp_path / "m" / "b.gguf")
    first = write(tmp_path / "m" / "a.gguf")
    assert [model.path for model in ModelStore(tmp_path).scan(".gguf")] == [first]


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "none")
    assert store.scan(".gguf") == []
    assert store.find("m", ".gguf") is None
    assert not store.root.exists()


def test_find_looks_for_the_suffix_it_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "m" / "a.gguf")
    npu = write(tmp_path / "m" / "a.rkllm")
    found = ModelStore(tmp_path).find("m", ".rkllm")
    assert found is not None
    assert found.path == npu


def test_hidden_files_are_no_models(tmp_path: Path) -> None:
    for name in [".gguf", "._good.gguf", "good.gguf"]:
        write(tmp_path / name)
    assert [model.id for model in ModelStore(tmp_path).scan(".gguf")] == ["good"]


@pytest.mark.parametrize("forbidden", ["closed", "closed/m.gguf"])
def test_an_unreadable_entry_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forbidden: str
) -> None:
    """As an unprivileged service sees a link into somebody's home: it can be listed, not looked at."""
    write(tmp_path / "closed" / "m.gguf")
    write(tmp_path / "good" / "m.gguf")
    real_stat = Path.stat

    def stat(self: Path, **options: Any) -> os.stat_result:
        if self == tmp_path / forbidden:
            raise PermissionError(13, "Permission denied", str(self))
        return real_stat(self, **options)

    monkeypatch.setattr(Path, "stat", stat)
    assert [model.id for model in ModelStore(tmp_path).scan(".gguf")] == ["good"]


def test_suffixes_of_any_case_and_encoders_of_vision_models(tmp_path: Path) -> None:
    for name in ("upper/model.GGUF", "vision/mmproj-F16.gguf", "vision/z.gguf", "only/mmproj.gguf"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
    found = ModelStore(tmp_path).scan(".gguf")
    assert [(model.id, model.path.name) for model in found] == [("upper", "model.GGUF"), ("vision", "z.gguf")]


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    for name in ("my model/a.gguf", "Org/sub/c.gguf", "good/a.gguf", "empty/readme.txt"):
        file = tmp_path / name
        file.parent.mkdir(parents=True)
        file.touch()
    notes = ModelStore(tmp_path).left_out(".gguf")
    assert [note.partition(":")[0] for note in notes] == ["'Org'", "'my model'"]
