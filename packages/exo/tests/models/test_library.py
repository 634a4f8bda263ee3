from __future__ import annotations

import dataclasses
import fcntl
import os
import threading
from pathlib import Path

import pytest

from exo.models import Modelfile, ModelLibrary, ModelParameters, ModelStore, Progress, library, read_modelfile
from exo.types import BadModelfile, BadModelName, ModelExists, StoreError

MODELFILE = (
    'FROM="x.rkllm"\nHUGGINGFACE_PATH="Qwen/Qwen2.5-1.5B"\nSYSTEM="Be brief."\nTEMPERATURE=0.5\nTOP_K=7\n'
    'STOP="a"\nSTOP="b"\nVISION_ENCODER="v.rknn"\n'
)
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def tree(root: Path) -> dict[str, str]:
    """Content of every file by its path; links are shown as such."""
    return {
        str(path.relative_to(root)): f"-> {path.readlink()}" if path.is_symlink() else path.read_text(encoding="utf-8")
        for path in sorted(root.rglob("*"))
        if path.is_symlink() or not path.is_dir()
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    for name in ("x.rkllm", *TOKENIZER):
        write(root / "Base" / name, f"the {name} of Base")
    write(root / "Base" / "Modelfile", MODELFILE)
    write(root / "Base" / "notes.txt", "not the store's")
    return root


@pytest.fixture
def lib(root: Path) -> ModelLibrary:
    return ModelLibrary(ModelStore(root), ".rkllm")


def is_linked(one: Path, other: Path) -> bool:
    return one.samefile(other) and not one.is_symlink()


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
    before = tree(root)
    with pytest.raises(BadModelfile, match=problem):
        lib.create("new", text.format(outside=outside))
    assert tree(root) == before


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


def test_a_model_that_came_meanwhile_is_not_touched(root: Path, lib: ModelLibrary) -> None:
    def pull(step: Progress) -> None:
        if step.status == "writing manifest":
            write(root / "new" / "x.rkllm", "pulled")

    with pytest.raises(ModelExists):
        lib.create("new", "FROM Base", report=pull)
    assert tree(root / "new") == {"x.rkllm": "pulled"}
    assert sorted(path.name for path in root.iterdir()) == ["Base", "new"]


@pytest.mark.parametrize("at_once", [True, False])
def test_force_replaces_and_keeps_what_is_not_the_stores(
    root: Path, lib: ModelLibrary, monkeypatch: pytest.MonkeyPatch, *, at_once: bool
) -> None:
    if not at_once:
        monkeypatch.setattr(library, "_exchange_at_once", lambda new, old: False)
    for name in ("old.rkllm", "tokenizer.model", "Modelfile", "my.txt", "m.gguf", "sub/y"):
        write(root / "new" / name, "old")
    lib.create("new", "FROM Base", force=True)
    assert sorted(tree(root / "new")) == sorted(["Modelfile", *TOKENIZER, "m.gguf", "my.txt", "sub/y", "x.rkllm"])
    assert sorted(path.name for path in root.iterdir()) == ["Base", "new"]
    lib.create("new", "FROM new\nTOP_K=1", force=True)
    found = read_modelfile(root / "new")
    assert (found.parameters.top_k, found.parameters.temperature) == (1, 0.5)
    assert (root / "new" / "x.rkllm").read_text(encoding="utf-8") == "the x.rkllm of Base"
    assert (root / "new" / "my.txt").read_text(encoding="utf-8") == "old"


def test_force_replaces_links_and_files_in_the_root(root: Path, lib: ModelLibrary) -> None:
    far = root.parent / "disk" / "far"
    write(far / "x.rkllm", "far")
    (root / "far").symlink_to(far)
    write(root / "old.rkllm", "old")
    assert lib.create("far", "FROM far", force=True).folder == root / "far"
    assert lib.create("old", "FROM old", force=True).path == root / "old" / "old.rkllm"
    assert not (root / "far").is_symlink()
    assert tree(far) == {"x.rkllm": "far"}
    assert sorted(path.name for path in root.iterdir()) == ["Base", "far", "old"]
    write(root / "plain", "no folder")
    with pytest.raises(StoreError, match="plain is a file"):
        lib.create("plain", "FROM Base", force=True)


@pytest.mark.parametrize("step", ["rename 2", "write", "link"])
def test_a_failure_leaves_the_old_model(
    root: Path, lib: ModelLibrary, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(library, "_exchange_at_once", lambda new, old: False)
    lib.copy("Base", "new")
    before = tree(root)
    real_rename = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if target == root / "new" and self.name.endswith("~1.partial"):
            raise OSError(28, "No space left on device", str(self))
        return real_rename(self, target)

    def fail(*_given: object) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    if step == "rename 2":
        monkeypatch.setattr(Path, "rename", rename)
    else:
        monkeypatch.setattr(library, f"_{step}", fail)
    with pytest.raises(StoreError, match="could not be changed: No space left on device"):
        lib.create("new", "FROM Base\nTOP_K=1", force=True)
    assert tree(root) == before


def test_what_a_killed_process_left_is_cleared_but_not_what_is_strange(root: Path, lib: ModelLibrary) -> None:
    write(root / ".new~1.partial" / "x.rkllm", "half")
    write(root / ".new~1.partial" / "mine.txt", "mine")
    write(root / ".new~2.partial" / "x.rkllm", "half")
    write(root / ".new.partial" / "x.rkllm", "a pull that goes on")
    lib.create("new", "FROM Base")
    assert sorted(tree(root)) == sorted(
        [
            ".new.partial/x.rkllm",
            ".new~1.partial/mine.txt",
            *(f"{model}/{name}" for model in ("Base", "new") for name in ("Modelfile", "x.rkllm", *TOKENIZER)),
            "Base/notes.txt",
        ]
    )


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


def test_a_model_is_never_listed_half_made(root: Path, lib: ModelLibrary) -> None:
    listed: list[list[str]] = []

    def look(_step: Progress) -> None:
        listed.append([model.id for model in lib.store.scan(".rkllm")])

    lib.create("new", "FROM Base", report=look)
    assert listed[:-1] == [["Base"]] * (len(listed) - 1)
    assert listed[-1] == ["Base", "new"]


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


def test_changes_come_one_after_the_other(root: Path, lib: ModelLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits for the first, also in another library, as in another process: it finds what the first made."""
    asked, go_on, made = threading.Semaphore(0), threading.Event(), []
    real_flock = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        asked.release()
        real_flock(descriptor, operation)

    def hold(_step: Progress) -> None:
        assert go_on.wait(30)

    def second() -> None:
        made.append(ModelLibrary(ModelStore(root), ".rkllm").copy("first", "second").id)

    monkeypatch.setattr(fcntl, "flock", flock)
    threads = [
        threading.Thread(target=lib.create, args=("first", "FROM Base"), kwargs={"report": hold}),
        threading.Thread(target=second),
    ]
    for thread in threads:
        thread.start()
        assert asked.acquire(timeout=30)
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert made == ["second"]


def test_changes_in_one_library_wait_where_the_file_system_knows_no_locks(
    root: Path, lib: ModelLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    held: list[bool] = []
    lib.create("new", "FROM Base", report=lambda _step: held.append(lib._lock.locked()))
    assert all(held)
    assert not lib._lock.locked()


def test_a_report_that_raises_leaves_nothing(root: Path, lib: ModelLibrary) -> None:
    def stop(step: Progress) -> None:
        if step.status == "writing manifest":
            raise KeyboardInterrupt

    before = tree(root)
    with pytest.raises(KeyboardInterrupt):
        lib.create("new", "FROM Base", report=stop)
    assert tree(root) == before
    assert lib.create("new", "FROM Base").id == "new"
