"""A store with a model, and a hub to pull from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub
from hub_puller import FILE, REPO, TOKENIZER, WEIGHTS, Puller
from model_folders import MODELFILE, write
from model_folders import TOKENIZER as TOKENIZER_NAMES

from exo.models import ModelLibrary, ModelStore, hub_client, hub_files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    for name in ("x.rkllm", *TOKENIZER_NAMES):
        write(root / "Base" / name, f"the {name} of Base")
    write(root / "Base" / "Modelfile", MODELFILE)
    write(root / "Base" / "notes.txt", "not the store's")
    return root


@pytest.fixture
def lib(root: Path) -> ModelLibrary:
    return ModelLibrary(ModelStore(root), ".rkllm")


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.add(REPO, {FILE: WEIGHTS, "README.md": b"card"}, base_model="maker/original")
        hub.add("maker/original", {**TOKENIZER, "model.safetensors": b"large"})
        yield hub


@pytest.fixture
def puller(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Puller:
    monkeypatch.setattr(hub_files, "_PROGRESS_EVERY", 0.0)
    monkeypatch.setattr(hub_client, "PAUSES", (0.0,) * 5)
    return Puller(hub, ModelStore(tmp_path / "models"), {"HF_ENDPOINT": hub.url})
