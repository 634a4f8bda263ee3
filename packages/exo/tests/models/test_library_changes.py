from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest
from model_folders import TOKENIZER, tree, write

from exo.models import ModelLibrary, ModelStore, Progress, changes, library, read_modelfile
from exo.types import ModelExists, StoreError


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
        monkeypatch.setattr(changes, "_exchange_at_once", lambda new, old: False)
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
    monkeypatch.setattr(changes, "_exchange_at_once", lambda new, old: False)
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


def test_a_model_is_never_listed_half_made(root: Path, lib: ModelLibrary) -> None:
    listed: list[list[str]] = []

    def look(_step: Progress) -> None:
        listed.append([model.id for model in lib.store.scan(".rkllm")])

    lib.create("new", "FROM Base", report=look)
    assert listed[:-1] == [["Base"]] * (len(listed) - 1)
    assert listed[-1] == ["Base", "new"]


def test_an_exchange_in_which_a_process_was_killed_is_undone(root: Path, lib: ModelLibrary) -> None:
    (root / "Base").rename(root / ".Base.old")
    with pytest.raises(ModelExists):
        lib.create("Base", "FROM Base")
    assert sorted(path.name for path in root.iterdir()) == ["Base"]


def test_an_exchange_in_which_a_process_was_killed_is_ended(root: Path, lib: ModelLibrary) -> None:
    (root / "Base").rename(root / ".new.old")
    write(root / "new" / "x.rkllm", "new")
    with pytest.raises(ModelExists):
        lib.create("new", "FROM new")
    assert tree(root) == {"new/x.rkllm": "new", "new/notes.txt": "not the store's"}


def test_changes_come_one_after_the_other(root: Path, lib: ModelLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits for the first, also in another process, which has other locks: it finds what the first made."""
    asked, holds, go_on, made = threading.Semaphore(0), threading.Event(), threading.Event(), []
    real_flock = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        asked.release()
        real_flock(descriptor, operation)

    def hold(_step: Progress) -> None:
        holds.set()
        assert go_on.wait(30)

    def second() -> None:
        made.append(ModelLibrary(ModelStore(root), ".rkllm").copy("first", "second").id)

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(changes, "_lock_of", lambda root: threading.Lock())
    threads = [
        threading.Thread(target=lib.create, args=("first", "FROM Base"), kwargs={"report": hold}),
        threading.Thread(target=second),
    ]
    for thread in threads:
        thread.start()
        assert asked.acquire(timeout=30)
        assert holds.wait(30)
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert made == ["second"]


def test_changes_in_one_process_wait_where_the_file_system_knows_no_locks(
    root: Path, lib: ModelLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (root.parent / "same").symlink_to(root)
    lock = changes._lock_of(root.parent / "same")
    held: list[bool] = []
    lib.create("new", "FROM Base", report=lambda _step: held.append(lock.locked()))
    assert all(held)
    assert not lock.locked()


def test_a_report_that_raises_leaves_nothing(root: Path, lib: ModelLibrary) -> None:
    def stop(step: Progress) -> None:
        if step.status == "writing manifest":
            raise KeyboardInterrupt

    before = tree(root)
    with pytest.raises(KeyboardInterrupt):
        lib.create("new", "FROM Base", report=stop)
    assert tree(root) == before
    assert lib.create("new", "FROM Base").id == "new"
