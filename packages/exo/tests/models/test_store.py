from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from exo.models import ModelStore, StoredModel
from exo.types import BadModelName, StoreError


def write(path: Path, content: bytes = b"GGUF") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def folder(root: Path, name: str, modelfile: str = "", *files: str) -> Path:
    """A model's folder; each file holds its own name."""
    for file in files:
        write(root / name / file, file.encode())
    if modelfile:
        write(root / name / "Modelfile", modelfile.encode())
    return root / name


def served(root: Path) -> dict[str, str]:
    """Id and path in the store of each model."""
    found = ModelStore(root).scan(".rkllm")
    return {model.id: str(model.path.relative_to(root)) for model in found}


@pytest.mark.parametrize("name", ["a", "SmolLM2-135M_Instruct.Q4", "qwen2.5:1.5b", "a+b", "1", "a..b"])
def test_names_of_model_folders(tmp_path: Path, name: str) -> None:
    assert ModelStore(tmp_path).folder(name) == tmp_path / name


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "a/b", "/etc", "a/../..", "..\\x", ".hidden", "-a", "a\n", "a b", "a\0", "é", "~"),
        *("a.partial", "a" * 201),
    ],
)
def test_names_that_could_leave_the_store_are_refused(tmp_path: Path, name: str) -> None:
    assert issubclass(BadModelName, StoreError)
    with pytest.raises(BadModelName, match="cannot be the name of a model folder"):
        ModelStore(tmp_path).folder(name)


def test_scan_lists_folders_and_single_files_by_id(tmp_path: Path) -> None:
    small = write(tmp_path / "b.gguf", b"12")
    big = write(tmp_path / "a" / "weights.gguf", b"123")
    assert ModelStore(tmp_path).scan(".gguf") == [
        StoredModel("a", big, 3, big.stat().st_mtime, tmp_path / "a"),
        StoredModel("b", small, 2, small.stat().st_mtime, None),
    ]


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
    real_stat = os.stat

    def stat(path: Any, **options: Any) -> os.stat_result:
        if path == tmp_path / forbidden:
            raise PermissionError(13, "Permission denied", str(path))
        return real_stat(path, **options)

    monkeypatch.setattr(os, "stat", stat)
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


@pytest.mark.parametrize("newest", ["x.rkllm", "Modelfile"])
def test_a_model_has_changed_when_its_file_or_its_modelfile_has(tmp_path: Path, newest: str) -> None:
    own = folder(tmp_path, "m", "NUM_CTX=1", "x.rkllm")
    for name in ("x.rkllm", "Modelfile"):
        os.utime(own / name, (0, 2e9 if name == newest else 1e9))
    (found,) = ModelStore(tmp_path).scan(".rkllm")
    assert (found.modified, found.folder) == (2e9, own)


@pytest.mark.parametrize(
    ("modelfile", "file"),
    [
        ('FROM="b.rkllm"', "b.rkllm"),
        ("FROM ./b.rkllm\nPARAMETER num_ctx 512\n", "b.rkllm"),
        ("from b.rkllm", "b.rkllm"),
        ("FROM a.rkllm\nFROM b.rkllm", "b.rkllm"),
        ("FROM sub/d.RKLLM", "sub/d.RKLLM"),
        ('SYSTEM """\nFROM b.rkllm\n"""', "a.rkllm"),
        ("FROM=", "a.rkllm"),
        ("NUM_CTX=many\nFROM=b.rkllm", "b.rkllm"),
        ('FROM="b.rkllm"\nSYSTEM "open', "a.rkllm"),
        ("FROM b.rkllm\nSYSTEM a\0b", "a.rkllm"),
        ("FROM m.gguf", "a.rkllm"),
        ("NUM_CTX=1", "a.rkllm"),
    ],
)
def test_from_names_one_of_several_files(tmp_path: Path, modelfile: str, file: str) -> None:
    folder(tmp_path, "m", modelfile, "a.rkllm", "b.rkllm", "m.gguf", "sub/d.RKLLM")
    assert served(tmp_path) == {"m": f"m/{file}"}
    assert ModelStore(tmp_path).left_out(".rkllm") == []


@pytest.mark.parametrize(
    "name", ["Qwen/Qwen2.5-1.5B", "llama3.2:3b", "gone.rkllm", "/old/home/x.rkllm", "../Gone/x.rkllm"]
)
def test_from_that_names_nothing_leaves_an_only_file(tmp_path: Path, name: str) -> None:
    folder(tmp_path, "one", f"FROM {name}", "a.rkllm", "m.gguf")
    folder(tmp_path, "two", f"FROM {name}", "a.rkllm", "b.rkllm")
    assert served(tmp_path) == {"one": "one/a.rkllm"}
    (note,) = ModelStore(tmp_path).left_out(".rkllm")
    assert note == f"'two': FROM names {name!r}, which is none of its 2 files."


def test_from_names_what_is_elsewhere_in_the_store(tmp_path: Path) -> None:
    folder(tmp_path, "Other", "", "x.rkllm", "y.rkllm")
    write(tmp_path / "alone.rkllm")
    folder(tmp_path, "by-path", "FROM ../Other/y.rkllm")
    folder(tmp_path, "by-absolute-path", f"FROM {tmp_path}/Other/y.rkllm")
    folder(tmp_path, "by-name", "FROM Other")
    folder(tmp_path, "by-root-file", "FROM ../alone.rkllm")
    folder(tmp_path, "by-root-name", "FROM alone")
    folder(tmp_path, "with-own", "FROM ../Other/y.rkllm", "own.rkllm")
    assert served(tmp_path) == {
        "Other": "Other/x.rkllm",
        "alone": "alone.rkllm",
        "by-path": "Other/y.rkllm",
        "by-absolute-path": "Other/y.rkllm",
        "by-name": "Other/x.rkllm",
        "by-root-file": "alone.rkllm",
        "by-root-name": "alone.rkllm",
        "with-own": "Other/y.rkllm",
    }
    found = ModelStore(tmp_path).find("by-path", ".rkllm")
    assert found is not None
    assert (found.folder, found.size) == (tmp_path / "by-path", 7)


def test_only_one_step_is_followed(tmp_path: Path) -> None:
    folder(tmp_path, "c", "", "x.rkllm")
    folder(tmp_path, "b", "FROM ../c/x.rkllm")
    folder(tmp_path, "chain", "FROM b")
    folder(tmp_path, "loop-1", "FROM loop-2")
    folder(tmp_path, "loop-2", "FROM loop-1")
    folder(tmp_path, "self", "FROM self")
    assert served(tmp_path) == {"b": "c/x.rkllm", "c": "c/x.rkllm"}
    notes = ModelStore(tmp_path).left_out(".rkllm")
    assert [note.partition(":")[0] for note in notes] == ["'chain'", "'loop-1'", "'loop-2'"]
    assert all("has no file of its own" in note for note in notes)


@pytest.mark.parametrize("relative", [True, False])
def test_from_does_not_lead_out_of_the_store(tmp_path: Path, *, relative: bool) -> None:
    root, outside = tmp_path / "models", tmp_path / "outside"
    secret = write(outside / "x.rkllm")
    own = folder(root, "m", f"FROM {'../../outside/x.rkllm' if relative else secret}", "own.rkllm")
    assert served(root) == {}
    (note,) = ModelStore(root).left_out(".rkllm")
    assert note.startswith("'m': FROM leads to ")
    secret.unlink()
    assert served(root) == {"m": "m/own.rkllm"}
    write(own / "Modelfile", b"FROM ../gate/deeper/x.rkllm")
    write(outside / "deeper" / "x.rkllm")
    folder(root, "gate", "", "g.rkllm")
    (root / "gate" / "deeper").symlink_to(outside / "deeper")
    assert served(root) == {"gate": "gate/g.rkllm"}


@pytest.mark.parametrize(
    "name", ["../.m.partial/x.rkllm", "../.m/x.rkllm", "../m.partial/x.rkllm", ".hidden.rkllm", "../o/mmproj.rkllm"]
)
def test_from_does_not_lead_to_what_is_no_finished_model(tmp_path: Path, name: str) -> None:
    write(tmp_path / "m" / name)
    folder(tmp_path, "m", f"FROM {name}")
    assert "m" not in served(tmp_path)


def test_the_root_and_the_folders_may_be_links(tmp_path: Path) -> None:
    """Owners put their models on another disk."""
    disk = tmp_path / "disk"
    folder(disk / "root", "m", "FROM ../Other/y.rkllm")
    folder(disk, "far", "FROM=a.rkllm", "a.rkllm", "b.rkllm")
    write(disk / "x.rkllm")
    folder(disk, "Other", "", "x.rkllm", "y.rkllm")
    root = tmp_path / "models"
    root.symlink_to(disk / "root")
    for name in ("Other", "far"):
        (root / name).symlink_to(disk / name)
    folder(root, "file", "FROM=x.rkllm").joinpath("x.rkllm").symlink_to(disk / "x.rkllm")
    folder(root, "absolute", f"FROM={disk / 'root' / 'file' / 'own.rkllm'}")
    write(root / "file" / "own.rkllm")
    assert served(root) == {
        "Other": "Other/x.rkllm",
        "absolute": "file/own.rkllm",
        "far": "far/a.rkllm",
        "file": "file/x.rkllm",
        "m": "Other/y.rkllm",
    }


def test_a_modelfile_that_is_a_pipe_holds_nobody_up(tmp_path: Path) -> None:
    own = folder(tmp_path, "m", "", "a.rkllm")
    os.mkfifo(own / "Modelfile")
    assert served(tmp_path) == {"m": "m/a.rkllm"}


def test_a_modelfile_that_changes_is_read_again(tmp_path: Path) -> None:
    own = folder(tmp_path, "m", "FROM a.rkllm", "a.rkllm", "b.rkllm")
    store = ModelStore(tmp_path)
    for age, name in [(1e9, "a"), (1e9 + 1, "b")]:
        write(own / "Modelfile", f"FROM {name}.rkllm".encode())
        os.utime(own / "Modelfile", (age, age))
        assert [model.path.name for model in store.scan(".rkllm")] == [f"{name}.rkllm"]
    now = time.time()
    for name in "abab":  # faster than the clock of the file system
        write(own / "Modelfile", f"FROM {name}.rkllm".encode())
        os.utime(own / "Modelfile", (now, now))
        assert [model.path.name for model in store.scan(".rkllm")] == [f"{name}.rkllm"]


def test_a_modelfile_that_is_as_it_was_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = folder(tmp_path, "m", "FROM b.rkllm", "a.rkllm", "b.rkllm")
    os.utime(own / "Modelfile", (1e9, 1e9))
    store = ModelStore(tmp_path)
    first = store.scan(".rkllm")
    monkeypatch.setattr("exo.models.store.read_from", None)
    assert store.scan(".rkllm") == first


def test_unfinished_folders_are_not_named(tmp_path: Path) -> None:
    write(tmp_path / ".m.partial" / "x.rkllm")
    write(tmp_path / "m.partial" / "x.rkllm")
    store = ModelStore(tmp_path)
    assert store.scan(".rkllm") == []
    assert [note.partition(":")[0] for note in store.left_out(".rkllm")] == ["'m.partial'"]
    assert store.left_out(".gguf") == []


def test_a_file_that_is_missing_is_named_for_its_own_kind_only(tmp_path: Path) -> None:
    folder(tmp_path, "m", "FROM gone.rkllm")
    assert ModelStore(tmp_path).left_out(".gguf") == []
    (note,) = ModelStore(tmp_path).left_out(".rkllm")
    assert note == "'m': FROM names 'gone.rkllm', which is not there. Put the file there."


@pytest.mark.parametrize("name", ["auto", "AUTO"])
def test_no_model_can_be_called_auto(tmp_path: Path, name: str) -> None:
    """That leaves the choice to the node."""
    folder = tmp_path / name
    folder.mkdir()
    (folder / "m.gguf").touch()
    store = ModelStore(tmp_path)
    assert store.scan(".gguf") == []
    with pytest.raises(BadModelName, match="leaves the choice"):
        store.folder(name)
