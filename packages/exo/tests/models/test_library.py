from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from model_folders import MODELFILE, TOKENIZER, is_linked, tree, write

from exo.models import Modelfile, ModelLibrary, ModelParameters, ModelStore, Progress, library, read_modelfile
from exo.types import BadModelfile, BadModelName, ModelExists, StoreError


def test_a_created_model_stands_alone(root: Path, lib: ModelLibrary) -> None:
    before = tree(root)
    steps: list[Progress] = []
    made = lib.create("pirate", 'FROM Base\nSYSTEM """Be a\npirate."""\nPARAMETER stop c\nTOP_K 9', report=steps.append)
    assert made == lib.store.find("pirate", ".rkllm")
    assert (made.path, made.folder) == (root / "pirate" / "x.rkllm", root / "pirate")
    assert read_modelfile(root / "pirate") == Modelfile(
        from_="x.rkllm",
        huggingface_path="Qwen/Qwen2.5-1.5B",
        system="Be a\npirate.",
        parameters=ModelParameters(temperature=0.5, top_k=9, stop=("c",)),
        unknown=(("VISION_ENCODER", "v.rknn"),),
        problems=(f"{root / 'pirate' / 'Modelfile'}:8: VISION_ENCODER is not known and has no effect.",),
    )
    assert all(is_linked(root / "pirate" / name, root / "Base" / name) for name in ("x.rkllm", *TOKENIZER))
    assert {path: text for path, text in tree(root).items() if not path.startswith("pirate/")} == before
    assert sorted(path.name for path in (root / "pirate").iterdir()) == ["Modelfile", *sorted([*TOKENIZER, "x.rkllm"])]
    assert [steps[0].status, steps[-2].status, steps[-1].status] == [
        "gathering model components",
        "writing manifest",
        "success",
    ]
    lib.delete("Base")
    assert made.path.read_text(encoding="utf-8") == "the x.rkllm of Base"


def test_what_is_not_said_comes_from_the_base_as_a_whole(root: Path, lib: ModelLibrary) -> None:
    write(root / "Base" / "Modelfile", f"{MODELFILE}MESSAGE user one\nMESSAGE assistant two\nLICENSE MIT\n")
    base = read_modelfile(root / "Base")
    lib.create("same", "FROM Base")
    same = read_modelfile(root / "same")
    assert dataclasses.replace(same, problems=()) == dataclasses.replace(base, problems=())
    lib.create("other", 'FROM Base\nMESSAGE user three\nVISION_ENCODER w.rknn\nSYSTEM ""')
    other = read_modelfile(root / "other")
    assert [message.content for message in other.messages] == ["three"]
    assert (other.unknown, other.system, other.licence) == ((("VISION_ENCODER", "w.rknn"),), "", "MIT")


@pytest.mark.parametrize("from_", ["../Base/x.rkllm", "Base/x.rkllm", "./Base/x.rkllm", "{root}/Base/x.rkllm"])
def test_a_file_of_the_store_brings_its_tokenizer_and_no_settings(root: Path, lib: ModelLibrary, from_: str) -> None:
    lib.create("new", f"FROM {from_.format(root=root)}\nNUM_CTX 512")
    assert read_modelfile(root / "new") == Modelfile(from_="x.rkllm", parameters=ModelParameters(num_ctx=512))
    assert all(is_linked(root / "new" / name, root / "Base" / name) for name in ("x.rkllm", *TOKENIZER))


def test_a_model_in_the_root_can_be_the_base(root: Path, lib: ModelLibrary) -> None:
    write(root / "old.rkllm", "weights")
    for name, from_ in [("by-name", "old"), ("by-file", "old.rkllm")]:
        lib.create(name, f"FROM {from_}")
        assert sorted(path.name for path in (root / name).iterdir()) == ["Modelfile", "old.rkllm"]


def test_a_base_without_a_file_of_its_own_lends_its_settings(root: Path, lib: ModelLibrary) -> None:
    write(root / "thin" / "Modelfile", "FROM Base\nTOP_K=3")
    lib.create("new", "FROM thin")
    assert tree(root / "new") == {
        **{name: f"the {name} of Base" for name in ("x.rkllm", *TOKENIZER)},
        "Modelfile": "FROM x.rkllm\nPARAMETER top_k 3\n",
    }


def test_friendly_names_are_resolved(root: Path) -> None:
    lib = ModelLibrary(ModelStore(root), ".rkllm", resolve={"qwen2.5:1.5b": "Base"}.get)
    assert lib.create("a", "FROM qwen2.5:1.5b").id == "a"
    assert lib.copy("qwen2.5:1.5b", "b").id == "b"
    assert lib.copy("Base", "c").id == "c"
    with pytest.raises(StoreError, match="no model 'other'"):
        lib.copy("other", "d")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "FROM is missing"),
        ("FROM=", "FROM is missing"),
        ("FROM Qwen/Qwen2.5-1.5B", "neither a model of"),
        ("FROM base", "neither a model of"),
        ("FROM Base/notes.txt", "neither a model of"),
        ("FROM gone.rkllm", "neither a model of"),
        ("FROM ../../outside.rkllm", "no finished file of the store"),
        ("FROM ../outside.rkllm", "no finished file of the store"),
        ("FROM {outside}", "no finished file of the store"),
        ("FROM .hidden.partial/x.rkllm", "no finished file of the store"),
        ("FROM Base\nNUM_CTX many", "^Modelfile:2: NUM_CTX has to be"),
        ("FROM Base\0", "NUL"),
    ],
)
def test_a_modelfile_that_leads_nowhere_changes_nothing(root: Path, lib: ModelLibrary, text: str, problem: str) -> None:
    outside = write(root.parent / "outside.rkllm", "secret")
    write(root / ".hidden.partial" / "x.rkllm", "half")
    before, steps = tree(root), list[Progress]()
    with pytest.raises(BadModelfile, match=problem):
        lib.create("new", text.format(outside=outside), report=steps.append)
    assert tree(root) == before
    assert steps == []  # whoever is told of steps over HTTP has been sent a status


def test_a_faulty_modelfile_of_the_base_is_named(root: Path, lib: ModelLibrary) -> None:
    write(root / "Base" / "Modelfile", "NUM_CTX=many")
    with pytest.raises(BadModelfile, match=f"^{root}/Base/Modelfile:1"):
        lib.create("new", "FROM Base")


@pytest.mark.parametrize("name", ["../x", "a/b", ".x", "x.partial", "a\0b", ""])
def test_bad_names_are_refused(root: Path, lib: ModelLibrary, name: str) -> None:
    before = tree(root.parent)
    with pytest.raises(BadModelName):
        lib.create(name, "FROM Base")
    with pytest.raises(BadModelName):
        lib.copy("Base", name)
    assert tree(root.parent) == before


@pytest.mark.parametrize("entry", ["new/other.txt", "new/x.rkllm", "new.rkllm"])
def test_what_is_there_is_not_touched_without_force(root: Path, lib: ModelLibrary, entry: str) -> None:
    write(root / entry, "mine")
    before = tree(root)
    with pytest.raises(ModelExists, match="'new' is there already"):
        lib.create("new", "FROM Base")
    with pytest.raises(ModelExists, match="'new' is there already"):
        lib.copy("Base", "new")
    assert tree(root) == before


def test_without_hard_links_files_are_copied_with_progress(
    root: Path, lib: ModelLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link", str(source))

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(library, "_CHUNK", 10)
    steps: list[Progress] = []
    made = lib.create("new", "FROM Base", report=steps.append)
    assert not made.path.samefile(root / "Base" / "x.rkllm")
    assert made.path.read_text(encoding="utf-8") == "the x.rkllm of Base"
    assert [step for step in steps if step.file == "x.rkllm"] == [
        Progress("copying x.rkllm", "x.rkllm", 19, 10),
        Progress("copying x.rkllm", "x.rkllm", 19, 19),
    ]


def test_a_copy_shares_the_weights_and_nothing_else(root: Path, lib: ModelLibrary) -> None:
    write(root / "Base" / "y.rkllm", "second")
    made = lib.copy("Base", "copy")
    assert made.id == "copy"
    expected = {name: text for name, text in tree(root / "Base").items() if name != "notes.txt"}
    assert tree(root / "copy") == expected
    assert is_linked(made.path, root / "Base" / "x.rkllm")
    assert is_linked(root / "copy" / "y.rkllm", root / "Base" / "y.rkllm")
    write(root / "copy" / "Modelfile", "TOP_K=1")
    assert (root / "Base" / "Modelfile").read_text(encoding="utf-8") == MODELFILE
    assert lib.copy("copy", "copy", force=True) == lib.store.find("copy", ".rkllm")
    write(root / "Base" / "x.rkllm.new", "new")
    (root / "Base" / "x.rkllm.new").rename(root / "Base" / "x.rkllm")
    lib.copy("Base", "copy", force=True)
    assert (root / "copy" / "x.rkllm").read_text(encoding="utf-8") == "new"


def test_a_copy_of_a_model_without_a_file_of_its_own_gets_one(root: Path, lib: ModelLibrary) -> None:
    write(root / "thin" / "Modelfile", "FROM ../Base/x.rkllm")
    lib.copy("thin", "copy")
    lib.delete("Base")
    found = lib.store.find("copy", ".rkllm")
    assert found is not None
    assert found.path == root / "copy" / "x.rkllm"


def test_a_linked_file_is_copied_not_the_link(root: Path, lib: ModelLibrary) -> None:
    far = write(root.parent / "far.rkllm", "far")
    (root / "linked").mkdir()
    (root / "linked" / "x.rkllm").symlink_to(far)
    assert is_linked(lib.copy("linked", "copy").path, far)


def test_delete_removes_what_the_store_knows(root: Path, lib: ModelLibrary) -> None:
    write(root / "Base" / "m.gguf", "another kind")
    (root / "Base" / "LICENSE").mkdir()
    far = write(root.parent / "far.json", "far")
    (root / "Base" / "config.json").symlink_to(far)
    (root / "Base" / "z.rkllm").symlink_to(far)
    (root / "Base" / "strange").symlink_to(far)
    assert lib.delete("Base") == ["LICENSE", "m.gguf", "notes.txt", "strange"]
    assert sorted(path.name for path in (root / "Base").iterdir()) == ["LICENSE", "m.gguf", "notes.txt", "strange"]
    assert far.read_text(encoding="utf-8") == "far"


def test_delete_removes_an_empty_folder(root: Path, lib: ModelLibrary) -> None:
    (root / "Base" / "notes.txt").unlink()
    for name in ("LICENSE", "README.md", "conversion.json", "merges.txt"):
        write(root / "Base" / name, "")
    assert lib.delete("Base") == []
    assert list(root.iterdir()) == []


def test_delete_follows_no_links(root: Path, lib: ModelLibrary) -> None:
    far = root.parent / "disk" / "far"
    write(far / "x.rkllm", "far")
    (root / "far").symlink_to(far)
    write(root / "thin" / "Modelfile", "FROM Base")
    write(root / "old.rkllm", "old")
    for name in ("far", "thin", "old"):
        assert lib.delete(name) == []
    assert tree(far) == {"x.rkllm": "far"}
    assert [path.name for path in root.iterdir()] == ["Base"]
    assert (root / "Base" / "x.rkllm").exists()


@pytest.mark.parametrize("name", ["gone", "..", "Base/../Base", "empty", "base"])
def test_only_models_are_deleted(root: Path, lib: ModelLibrary, name: str) -> None:
    write(root / "empty" / "README.md", "no model")
    before = tree(root)
    with pytest.raises(StoreError, match="There is no model"):
        lib.delete(name)
    assert tree(root) == before
