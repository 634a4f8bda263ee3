from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import TOKEN, FakeHub

from exo.models import hub_client, read_modelfile
from exo.models.folder import TOKENIZER
from exo.models.hub import HubReference, PulledModel, pull_from_hub, pull_tokenizer
from exo.models.progress import Progress, ignore
from exo.types import PullError

WEIGHTS = b"weights" * 100


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr(hub_client, "PAUSES", (0.0,) * 5)
    with FakeHub() as hub:
        yield hub


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "models"


def pull(hub: FakeHub, store: Path, text: str = "owner/repo", **options: Any) -> PulledModel:
    options = {"suffix": ".rkllm", "report": ignore, "env": {"HF_ENDPOINT": hub.url}, **options}
    return pull_from_hub(HubReference.parse(text), store, **options)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_tokenizer_beside_the_model_comes_before_one_in_the_root(hub: FakeHub, store: Path) -> None:
    files = {"sub/m.rkllm": WEIGHTS, "sub/tokenizer.json": b"near", "tokenizer.json": b"far", "config.json": b"root"}
    hub.add("owner/repo", {**files, "vocab.json": b"unneeded"}, base_model="maker/unasked")
    pulled = pull(hub, store)
    assert pulled.warnings == ()
    assert names(pulled.folder) == {"m.rkllm", "tokenizer.json", "config.json", "Modelfile"}
    assert (pulled.folder / "tokenizer.json").read_bytes() == b"near"
    assert (pulled.folder / "config.json").read_bytes() == b"root"
    assert not any("maker" in request.path for request in hub.requests)


def test_a_tokenizer_in_the_root(hub: FakeHub, store: Path) -> None:
    hub.add("owner/repo", {"sub/m.rkllm": WEIGHTS, "tokenizer.json": b"root", "other/config.json": b"no"})
    pulled = pull(hub, store)
    assert names(pulled.folder) == {"m.rkllm", "tokenizer.json", "Modelfile"}
    assert read_modelfile(pulled.folder).huggingface_path == "owner/repo"


def test_the_original_that_the_caller_knows_is_asked_before_the_one_of_the_card(hub: FakeHub, store: Path) -> None:
    hub.add("owner/repo", {"m.rkllm": WEIGHTS}, base_model="maker/base")
    hub.add("maker/base", {"tokenizer.json": b"base"})
    hub.add("maker/original", {"tokenizer.json": b"original"})
    pulled = pull(hub, store, original="maker/original")
    assert (pulled.folder / "tokenizer.json").read_bytes() == b"original"
    assert read_modelfile(pulled.folder).huggingface_path == "maker/original"
    assert not any("maker/base" in request.path for request in hub.requests)


def test_an_original_without_a_tokenizer_gives_way_to_the_base_model(hub: FakeHub, store: Path) -> None:
    hub.add("owner/repo", {"m.rkllm": WEIGHTS}, base_model="maker/base")
    hub.add("maker/base", {"tokenizer.json": b"base"})
    hub.add("maker/original", {"config.json": b"{}"})
    pulled = pull(hub, store, original="maker/original")
    assert (pulled.folder / "tokenizer.json").read_bytes() == b"base"
    assert pulled.warnings == ("maker/original holds no tokenizer.",)


def test_files_that_stand_in_for_a_tokenizer_json(hub: FakeHub, store: Path) -> None:
    hub.add("owner/repo", {"m.rkllm": WEIGHTS}, base_model="maker/base")
    hub.add("maker/base", {"vocab.json": b"v", "merges.txt": b"m", "tokenizer.model": b"s", "x.json": b"x"})
    assert names(pull(hub, store).folder) == {"m.rkllm", "vocab.json", "merges.txt", "tokenizer.model", "Modelfile"}


def test_a_gated_original_costs_a_warning_and_not_the_model(hub: FakeHub, store: Path) -> None:
    hub.add("owner/repo", {"m.rkllm": WEIGHTS}, base_model="maker/gated")
    hub.add("maker/gated", {"tokenizer.json": b"secret"}, gated=True)
    steps: list[Progress] = []
    pulled = pull(hub, store, report=steps.append)
    assert names(pulled.folder) == {"m.rkllm", "Modelfile"}
    (warning,) = pulled.warnings
    assert "maker/gated is gated: accept its terms" in warning
    assert f"warning: {warning}" in [step.status for step in steps]
    again = pull(hub, store, force=True, env={"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN})
    assert again.warnings == ()
    assert (again.folder / "tokenizer.json").read_bytes() == b"secret"


def test_a_tokenizer_that_came_in_part_is_not_in_the_store(hub: FakeHub, store: Path) -> None:
    hub.add("owner/repo", {"m.rkllm": WEIGHTS, "tokenizer.json": b"t" * 200_000})
    hub.cut_after(1.0, 1)  # of the model
    hub.cut_after(0.5, 1)
    hub.cut_after(0.0, 5)
    pulled = pull(hub, store)
    assert "Not all tokenizer files could be brought" in pulled.warnings[0]
    assert names(pulled.folder) == {"m.rkllm", "Modelfile"}


@pytest.mark.parametrize("original", ["maker/gone", "no repository at all", "a/b/c"])
def test_an_original_that_is_not_there(hub: FakeHub, store: Path, original: str) -> None:
    hub.add("owner/repo", {"m.rkllm": WEIGHTS})
    pulled = pull(hub, store, original=original)
    assert len(pulled.warnings) == 2
    assert original in pulled.warnings[0]
    assert "Put those of the original model, at least tokenizer.json" in pulled.warnings[1]


def test_a_file_with_its_own_tokenizer_needs_none(hub: FakeHub, store: Path) -> None:
    hub.add("owner/repo", {"m.gguf": WEIGHTS, "tokenizer.json": b"t"}, base_model="maker/unasked")
    pulled = pull(hub, store, suffix=".gguf")
    assert pulled.warnings == ()
    assert names(pulled.folder) == {"m.gguf", "Modelfile"}
    assert not any("maker" in request.path for request in hub.requests)


def test_a_cancelled_pull_is_no_pull_with_a_warning(hub: FakeHub, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("owner/repo", {"m.rkllm": WEIGHTS, "tokenizer.json": b"t"})
    cancelled = threading.Event()
    steps: list[str] = []

    def report(step: Progress) -> None:
        steps.append(step.status)
        if step.file == "tokenizer.json":
            cancelled.set()

    with pytest.raises(PullError, match="was cancelled"):
        pull(hub, store, report=report, cancelled=cancelled)
    assert names(store) == {".m.partial"}
    assert steps[-1] == "pulling tokenizer.json"


def test_the_modelfile_of_a_name_with_quotes(hub: FakeHub, store: Path) -> None:
    hub.add("owner/repo", {'a "b".rkllm': WEIGHTS, "tokenizer.json": b"t"})
    assert read_modelfile(pull(hub, store).folder).from_ == 'a "b".rkllm'


@pytest.fixture
def folder(store: Path) -> Path:
    folder = store / "mine"
    folder.mkdir(parents=True)
    (folder / "m.rkllm").write_bytes(WEIGHTS)
    (folder / "config.json").write_text("own")
    return folder


def bring(hub: FakeHub, folder: Path, repository: str = "maker/base", *, force: bool = False) -> list[str]:
    return pull_tokenizer(folder, repository, env={"HF_ENDPOINT": hub.url}, report=ignore, force=force)


def test_tokenizer_files_come_to_a_model_that_has_none(hub: FakeHub, folder: Path) -> None:
    hub.add("maker/base", {"tokenizer.json": b"t" * 200_000, "config.json": b"theirs", "big.safetensors": b"no"})
    hub.cut_after(0.5, 1)
    assert bring(hub, folder) == ["tokenizer.json"]
    assert (folder / "tokenizer.json").read_bytes() == b"t" * 200_000
    assert (folder / "config.json").read_text() == "own"
    assert names(folder) == {"m.rkllm", "config.json", "tokenizer.json"}
    assert bring(hub, folder) == []
    assert bring(hub, folder, "https://huggingface.co/maker/base", force=True) == ["tokenizer.json", "config.json"]
    assert (folder / "config.json").read_text() == "theirs"


def test_a_tokenizer_json_that_is_there_needs_no_older_files(hub: FakeHub, folder: Path) -> None:
    (folder / "tokenizer.json").write_text("own")
    hub.add("maker/base", {"vocab.json": b"v", "merges.txt": b"m", "tokenizer_config.json": b"c"})
    assert bring(hub, folder) == ["tokenizer_config.json"]
    assert TOKENIZER in names(folder)


def test_tokenizer_files_that_do_not_arrive_leave_the_folder_as_it_was(hub: FakeHub, folder: Path) -> None:
    hub.add("maker/base", {"tokenizer.json": b"t" * 200_000})
    hub.cut_after(0.0, 6)
    with pytest.raises(PullError, match="after 6 attempts"):
        bring(hub, folder)
    assert {"m.rkllm", "config.json"} == {name for name in names(folder) if not name.startswith(".")}


def test_where_no_tokenizer_can_come_from_or_go_to(hub: FakeHub, folder: Path) -> None:
    hub.add("maker/base", {"config.json": b"{}"})
    with pytest.raises(PullError, match="maker/base holds no tokenizer"):
        bring(hub, folder)
    with pytest.raises(PullError, match="name only the repository, maker/base"):
        bring(hub, folder, "maker/base/tokenizer.json")
    with pytest.raises(PullError, match=r"There is no folder .*absent: pull the model first"):
        bring(hub, folder.parent / "absent")
