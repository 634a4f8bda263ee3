from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_hub import FakeHub
from hub_puller import FILE, REPO, SHA256, TOKENIZER, WEIGHTS, Puller

from exo.models import hub_client, hub_files
from exo.models.hub import PulledModel
from exo.models.progress import Progress
from exo.types import NotEnoughDisk, PullError


def test_a_pulled_model_is_in_the_store(puller: Puller) -> None:
    pulled = puller()
    folder = puller.store.root / "model"
    assert pulled == PulledModel("model", folder, "model.rkllm", len(WEIGHTS))
    assert (folder / "model.rkllm").read_bytes() == WEIGHTS
    assert {name: (folder / name).read_bytes() for name in TOKENIZER} == TOKENIZER
    assert (folder / "Modelfile").read_text() == 'FROM="model.rkllm"\nHUGGINGFACE_PATH="maker/original"\n'
    assert puller.entries() == sorted(f"model/{name}" for name in (*TOKENIZER, "Modelfile", "model.rkllm"))
    assert [entry.name for entry in puller.store.root.iterdir()] == ["model"]
    assert puller.listed() == ["model"]


def test_the_steps_are_those_that_clients_know(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_files, "_PROGRESS_EVERY", 1000.0)
    puller()
    of_the_model = [step for step in puller.steps if step.file == "model.rkllm"]
    assert of_the_model == [
        Progress("pulling model.rkllm", "model.rkllm", len(WEIGHTS), 0),
        Progress("pulling model.rkllm", "model.rkllm", len(WEIGHTS), len(WEIGHTS)),
    ]
    assert [step.status for step in puller.steps if not step.file] == [
        "pulling manifest",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]


def test_progress_is_reported_on_the_way(puller: Puller) -> None:
    puller()
    amounts = [step.completed or 0 for step in puller.steps if step.file == "model.rkllm"]
    assert len(amounts) > 4
    assert amounts == sorted(amounts)


def test_a_cut_connection_is_resumed(puller: Puller) -> None:
    puller.hub.cut_after(0.6, 1)
    assert (puller().folder / "model.rkllm").read_bytes() == WEIGHTS
    asked = [(request.range, request.accept_encoding) for request in puller.hub.content_requests(FILE)]
    assert asked == [("", "identity"), (f"bytes={int(len(WEIGHTS) * 0.6)}-", "identity")]


def test_a_server_without_ranges_sends_all_of_it_again(puller: Puller) -> None:
    puller.hub.ignore_ranges()
    puller.hub.cut_after(0.6, 1)
    assert (puller().folder / "model.rkllm").read_bytes() == WEIGHTS
    assert len(puller.hub.content_requests(FILE)) == 2


def test_what_is_not_complete_is_never_listed_and_the_next_pull_goes_on_with_it(puller: Puller) -> None:
    puller.hub.cut_after(0.3, 1)
    puller.hub.cut_after(0.0, 5)
    with pytest.raises(PullError, match=r"after 6 attempts: .*The same command goes on where this one stopped"):
        puller()
    assert puller.listed() == []
    assert puller.store.left_out(".rkllm") == []
    assert [entry.name for entry in puller.store.root.iterdir()] == [".model.partial"]
    before = len(puller.hub.content_requests(FILE))
    assert (puller().folder / "model.rkllm").read_bytes() == WEIGHTS
    assert [one.range for one in puller.hub.content_requests(FILE)[before:]] == [f"bytes={int(len(WEIGHTS) * 0.3)}-"]
    assert [entry.name for entry in puller.store.root.iterdir()] == ["model"]


def test_attempts_that_bring_much_are_not_counted(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_files, "_MUCH", 1000)
    puller.hub.cut_after(0.2, 20)
    assert (puller().folder / "model.rkllm").read_bytes() == WEIGHTS
    assert len(puller.hub.content_requests(FILE)) == 21


def test_what_is_left_of_another_commit_is_not_continued(puller: Puller) -> None:
    puller.hub.cut_after(0.3, 6)
    with pytest.raises(PullError):
        puller()
    newer = WEIGHTS[::-1]
    puller.hub.add(REPO, {FILE: newer})
    before = len(puller.hub.content_requests(FILE))
    assert (puller().folder / "model.rkllm").read_bytes() == newer
    assert [one.range for one in puller.hub.content_requests(FILE)[before:]] == [""]
    assert puller.entries() == ["model/Modelfile", "model/model.rkllm"]


def test_a_wrong_sha256_removes_the_file(puller: Puller) -> None:
    puller.hub.send_wrong_bytes(FILE)
    with pytest.raises(PullError, match=f"model.rkllm of owner/repo arrived damaged.*{SHA256}"):
        puller()
    assert puller.listed() == []
    assert not any("model.rkllm" in name for name in puller.entries())
    puller.hub.send_wrong_bytes(FILE, wrong=False)
    assert (puller().folder / "model.rkllm").read_bytes() == WEIGHTS


def test_a_full_disk_is_told_before_the_first_byte(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(WEIGHTS) + sum(map(len, TOKENIZER.values()))
    needed = size + size // 20 + (64 << 20)
    free = needed - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    with pytest.raises(NotEnoughDisk, match=rf"needs {needed} bytes .* {free} are free"):
        puller()
    assert puller.hub.content_requests(FILE) == []
    assert list(puller.store.root.iterdir()) == []
    free = needed
    assert puller().name == "model"


def test_a_disk_that_fills_up_on_the_way(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PullError, match="could not be written: No space left on device"):
        puller()
    assert puller.listed() == []


def test_a_cancelled_pull_ends_while_the_hub_says_nothing(puller: Puller) -> None:
    puller.hub.stall_after(0.5)
    cancelled, half_way = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def report(step: Progress) -> None:
        if step.completed:
            half_way.set()

    def pull() -> None:
        try:
            puller(report=report, cancelled=cancelled)
        except PullError as error:
            errors.append(error)

    thread = threading.Thread(target=pull)
    thread.start()
    assert half_way.wait(10)
    cancelled.set()
    thread.join(10)  # the client would wait 30 s for the next byte
    assert not thread.is_alive()
    assert "was cancelled" in str(errors[0])
    assert [entry.name for entry in puller.store.root.iterdir()] == [".model.partial"]
    puller.hub.released.set()
    assert (puller().folder / "model.rkllm").read_bytes() == WEIGHTS
    assert puller.hub.content_requests(FILE)[-1].range.startswith("bytes=")


def test_a_file_of_unknown_size(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    known = hub_client._file
    monkeypatch.setattr(
        hub_client, "_file", lambda *entry: hub_client.HubFile(known(*entry).path, None, "", known(*entry).key)
    )
    puller.hub.cut_after(0.5, 2)
    assert (puller().folder / "model.rkllm").read_bytes() == WEIGHTS


@pytest.mark.parametrize(("more", "said"), [(1, "after 6 attempts"), (-1, "sent more than the 2999999 bytes")])
def test_a_file_of_another_size_than_listed(
    puller: Puller, monkeypatch: pytest.MonkeyPatch, more: int, said: str
) -> None:
    known = hub_client._file

    def other(entry: Any, origin: str) -> hub_client.HubFile:
        return dataclasses.replace(known(entry, origin), size=entry.size + more, sha256="")

    monkeypatch.setattr(hub_client, "_file", other)
    with pytest.raises(PullError, match=said):
        puller()
    assert puller.listed() == []


PROGRAM = """
import sys
from pathlib import Path
from exo.models.hub import HubReference, pull_from_hub
root, url = sys.argv[1:]
pull_from_hub(
    HubReference.parse("owner/repo"), Path(root), suffix=".rkllm", env={"HF_ENDPOINT": url}, report=lambda step: None
)
assert "hf_xet" not in sys.modules
"""


@pytest.mark.slow
def test_the_environment_of_the_process_and_the_home_of_its_user_are_left_alone(puller: Puller, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    command = [sys.executable, "-B", "-W", "error", "-c", PROGRAM, str(puller.store.root), puller.hub.url]
    with FakeHub() as other:
        env = {"HOME": str(home), "HF_TOKEN": "hf_of_the_process", "HF_ENDPOINT": other.url, "PATH": ""}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(home.rglob("*")) == []
    assert other.requests == []
    assert {request.authorization for request in puller.hub.requests} == {""}
    assert {request.user_agent.split("/")[0] for request in puller.hub.requests} == {"exo"}
