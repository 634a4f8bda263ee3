from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest
from hub_puller import FILE, REPO, TOKENIZER, WEIGHTS, Puller

from exo.models import changes, read_modelfile
from exo.models.hub import PulledModel
from exo.models.progress import Progress
from exo.types import BadModelName, ModelExists, PullError


def test_two_pulls_of_one_name(puller: Puller) -> None:
    puller.hub.stall_after(0.5)
    half_way = threading.Event()
    pulled: list[PulledModel] = []

    def report(step: Progress) -> None:
        if step.completed:
            half_way.set()

    thread = threading.Thread(target=lambda: pulled.append(puller(report=report)))
    thread.start()
    assert half_way.wait(10)
    with pytest.raises(PullError, match="model is being pulled already"):
        puller()
    assert puller("owner/repo:other").name == "other"
    puller.hub.released.set()
    thread.join(20)
    assert [one.name for one in pulled] == ["model"]
    assert (puller.store.root / "model" / "model.rkllm").read_bytes() == WEIGHTS
    assert sorted(entry.name for entry in puller.store.root.iterdir()) == ["model", "other"]


def test_a_name_that_is_taken(puller: Puller) -> None:
    (puller.store.root / "model").mkdir(parents=True)
    with pytest.raises(ModelExists, match="'model' is there already"):
        puller()
    with pytest.raises(ModelExists):
        puller(REPO)  # the name comes from the hub
    assert len(puller.hub.requests) == 1
    assert list((puller.store.root / "model").iterdir()) == []


def test_a_name_that_no_model_may_have(puller: Puller) -> None:
    with pytest.raises(BadModelName):
        puller(f"{REPO}/{FILE}:..")
    assert puller.hub.requests == []


def older(puller: Puller) -> Path:
    folder = puller.store.root / "model"
    folder.mkdir(parents=True)
    (folder / "older.rkllm").write_bytes(b"older")
    (folder / "Modelfile").write_text('FROM="older.rkllm"\nSYSTEM="Be kind."\n')
    return folder


def test_force_replaces_a_model_and_keeps_its_modelfile(puller: Puller) -> None:
    folder = older(puller)
    (warning,) = puller(force=True).warnings
    assert warning == "The Modelfile of model was kept and names older.rkllm, not model.rkllm."
    assert read_modelfile(folder).system == "Be kind."
    assert (folder / "model.rkllm").read_bytes() == WEIGHTS
    assert not (folder / "older.rkllm").exists()
    assert [entry.name for entry in puller.store.root.iterdir()] == ["model"]


def test_force_keeps_what_is_not_the_stores_and_a_tokenizer_that_does_not_come(puller: Puller) -> None:
    puller.hub.add(REPO, {FILE: WEIGHTS})
    folder = older(puller)
    for name in ("tokenizer.json", "config.json", "LICENSE", "notes.txt"):
        (folder / name).write_text(f"my {name}")
    (folder / "sub").mkdir()
    (folder / "sub" / "x").write_text("mine")
    puller(force=True)
    assert puller.entries() == sorted(
        f"model/{name}" for name in ("Modelfile", "config.json", "model.rkllm", "notes.txt", "sub/x", "tokenizer.json")
    )
    assert (folder / "tokenizer.json").read_text() == "my tokenizer.json"
    assert [entry.name for entry in puller.store.root.iterdir()] == ["model"]


def test_force_takes_the_tokenizer_that_comes_and_mixes_it_with_no_other(puller: Puller) -> None:
    folder = older(puller)
    for name in (*TOKENIZER, "vocab.json", "config.json"):
        (folder / name).write_text("mine")
    puller(force=True)
    assert {name: (folder / name).read_bytes() for name in TOKENIZER} == TOKENIZER
    assert not (folder / "vocab.json").exists()
    assert (folder / "config.json").read_text() == "mine"


@pytest.mark.parametrize("entry", ["model/mine.rkllm", "model.rkllm"])
def test_a_model_that_was_made_meanwhile_stays(puller: Puller, entry: str) -> None:
    made = puller.store.root / entry

    def report(step: Progress) -> None:
        if step.status == "writing manifest":
            made.parent.mkdir(exist_ok=True)
            made.write_bytes(b"mine")

    with pytest.raises(ModelExists, match="'model' is there already"):
        puller(report=report)
    assert made.read_bytes() == b"mine"
    assert [model.path for model in puller.store.scan(".rkllm")] == [made]
    before = len(puller.hub.content_requests(FILE))
    assert (puller(force=True).folder / "model.rkllm").read_bytes() == WEIGHTS
    assert len(puller.hub.content_requests(FILE)) == before  # what had come was kept
    assert [model.path for model in puller.store.scan(".rkllm")] == [puller.store.root / "model" / "model.rkllm"]


def test_a_pull_waits_for_another_change_and_looks_again(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_lock_of", lambda root: threading.Lock())  # as if the change were another process's
    ready, held, asked, errors = threading.Event(), threading.Event(), threading.Event(), list[ModelExists]()
    real_flock = fcntl.flock

    def report(step: Progress) -> None:
        if step.status == "writing manifest":
            ready.set()
            assert held.wait(20)

    def flock(descriptor: int, operation: int) -> None:
        asked.set()
        real_flock(descriptor, operation)

    def pull() -> None:
        try:
            puller(report=report)
        except ModelExists as error:
            errors.append(error)

    thread = threading.Thread(target=pull)
    thread.start()
    assert ready.wait(20)
    with changes.changing(puller.store.root):
        monkeypatch.setattr(fcntl, "flock", flock)
        held.set()
        assert asked.wait(20)
        (puller.store.root / "model").mkdir()
    thread.join(20)
    assert len(errors) == 1
    assert list((puller.store.root / "model").iterdir()) == []


def test_force_leaves_the_model_until_the_new_one_is_complete(puller: Puller) -> None:
    folder = older(puller)
    puller.hub.cut_after(0.5, 6)
    with pytest.raises(PullError):
        puller(force=True)
    assert (folder / "older.rkllm").read_bytes() == b"older"
    assert [model.path.name for model in puller.store.scan(".rkllm")] == ["older.rkllm"]


def test_a_pull_that_was_killed_between_two_names_is_undone(puller: Puller) -> None:
    older(puller).rename(puller.store.root / ".model.old")
    with pytest.raises(ModelExists):
        puller(REPO)
    assert (puller.store.root / "model" / "older.rkllm").read_bytes() == b"older"
    (puller.store.root / ".model.old").mkdir()
    assert puller(force=True).name == "model"
    assert [entry.name for entry in puller.store.root.iterdir()] == ["model"]
