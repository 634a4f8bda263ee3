"""Models in folders and in GGUF files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from converter_gguf import write_gguf

from rkllm_converter.errors import ModelNotFound, SourceError
from rkllm_converter.source import Source, fetch, look

CONFIG = {"model_type": "qwen2", "hidden_size": 64}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "Small-1B"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(CONFIG))
    (made / "tokenizer.json").write_text("{}")
    (made / "model.safetensors").write_bytes(b"x" * 4096)
    (made / "notes.md").write_text("mine")
    return made


def brought(source: Source) -> Path:
    return fetch(source, report=lambda done, total: None)


def test_a_folder(folder: Path) -> None:
    source = look(str(folder))
    assert (source.kind, source.name, source.path, source.config) == ("folder", "Small-1B", folder, CONFIG)
    assert (source.repository, source.revision, source.gguf_type, source.to_download) == (None, None, None, 0)
    assert [*source.files] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert source.weights_bytes == 4096
    seen: list[tuple[int, int]] = []
    assert fetch(source, report=lambda done, total: seen.append((done, total))) == folder
    assert seen == []  # nothing comes from anywhere


def test_the_home_folder_may_be_written_short(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert look("~/Small-1B") == look(str(folder))
    with pytest.raises(ModelNotFound, match="no such user"):
        look("~nobody-of-that-name/x")


def test_a_folder_comes_before_a_repository_of_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "maker").mkdir()
    folder.rename(folder.parent / "maker/Small-1B")
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert look("maker/Small-1B").kind == "folder"
    with pytest.raises(SourceError, match="--revision main"):
        look("maker/Small-1B", revision="main")


def test_a_folder_of_the_hubs_cache_has_the_models_name(folder: Path) -> None:
    snapshots = folder.parent / "models--ma--ker--Small-1B-it/snapshots"
    snapshots.mkdir(parents=True)
    assert look(str(folder.rename(snapshots / ("0123456789" * 4)))).name == "Small-1B-it"


def test_the_fingerprint_tells_of_every_change_of_what_is_used(folder: Path) -> None:
    seen = {look(str(folder)).fingerprint}

    def is_new() -> bool:
        before = len(seen)
        seen.add(look(str(folder)).fingerprint)
        return len(seen) > before

    (folder / "notes.md").write_text("others")
    assert not is_new()
    (folder / "model.safetensors").write_bytes(b"x" * 4097)
    assert is_new()
    os.utime(folder / "tokenizer.json", ns=(1, 1))
    assert is_new()
    (folder / "merges.txt").write_text("")
    assert is_new()
    assert look(str(folder)).fingerprint == look(str(folder)).fingerprint


def test_a_config_is_enough_to_look_at_but_not_to_convert(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    source = look(str(folder))
    assert source.config == CONFIG
    assert source.weights_bytes == 0
    with pytest.raises(ModelNotFound, match="has no weights"):
        brought(source)
    assert fetch(source, report=lambda done, total: None, tokenizer_only=True) == folder


def test_shards_that_the_index_names_have_to_be_there(folder: Path) -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (folder / "model.safetensors").rename(folder / names[0])
    with pytest.raises(ModelNotFound, match=names[1]):
        brought(look(str(folder)))
    (folder / names[1]).write_bytes(b"x")
    assert brought(look(str(folder))) == folder
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": names[0], "b": "head.safetensors"}}))
    with pytest.raises(ModelNotFound, match=r"head\.safetensors"):
        brought(look(str(folder)))
    index.write_text("[]")
    with pytest.raises(SourceError, match="no index"):
        brought(look(str(folder)))


def test_pointers_of_git_are_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ModelNotFound, match="git lfs pull"):
        brought(look(str(folder)))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a.gguf": b""}, r"a\.gguf"),
        ({"adapter_config.json": b"{}"}, "--lora"),
        ({"model.safetensors": b"x"}, r"no config\.json"),
    ],
)
def test_folders_of_something_else(tmp_path: Path, files: dict[str, bytes], says: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelNotFound, match=says):
        look(str(tmp_path))


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000, "\xff"])
def test_a_config_that_makes_no_sense(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(SourceError, match=r"config\.json"):
        look(str(folder))


@pytest.mark.parametrize("number", [None, 0, 1, 2, 15, 999])
def test_gguf_files(tmp_path: Path, number: int | None) -> None:
    path = write_gguf(tmp_path / "small-f16.gguf", general__file_type=number)
    names = {None: "unknown", 0: "f32", 1: "f16", 2: "q4_0", 15: "q4_k_m", 999: "type 999"}
    source = look(str(path))
    assert (source.kind, source.name, source.path, source.config) == ("gguf", "small-f16", path, {})
    assert source.gguf_type == names[number]
    assert source.files == {path.name: path.stat().st_size}
    assert brought(source) == path
    with pytest.raises(ModelNotFound, match="has the tokenizer"):
        fetch(source, report=lambda done, total: None, tokenizer_only=True)
    with pytest.raises(ModelNotFound, match="has the tokenizer"):
        look(str(path), needs_weights=False)


def test_gguf_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="one of 3 parts"):
        look(str(write_gguf(tmp_path / "a-00001-of-00003.gguf", split__count=3)))
    (tmp_path / "broken.gguf").write_bytes(b"GGML")
    with pytest.raises(SourceError, match=r"broken\.gguf"):
        look(str(tmp_path / "broken.gguf"))


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("", "No model was named"),
        ("small", "no folder or file small"),
        ("./maker/small", "no folder or file"),
        ("/nowhere/at/all", "no folder or file"),
        ("maker/small.gguf", "no folder or file"),
        ("https://huggingface.co/maker/Small-1B/tree/main", "the name of the model: maker/Small-1B"),
    ],
)
def test_what_is_nowhere_is_not_looked_for_in_the_hub(model: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(ModelNotFound, match=says):
        look(model)


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelNotFound, match="neither a folder nor"):
        look(str(tmp_path / "model.safetensors"))
