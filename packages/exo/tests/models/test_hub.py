from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_hub import STRANGER, TOKEN, FakeHub

from exo.models import ModelStore, hub_client, hub_files, read_modelfile
from exo.models.hub import HubReference, PulledModel, pull_from_hub
from exo.models.progress import Progress
from exo.types import BadModelName, ModelExists, NotEnoughDisk, PullError

WEIGHTS = random.Random(1).randbytes(3_000_000)
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
TOKENIZER = {"tokenizer.json": b'{"version": "1.0"}', "tokenizer_config.json": b"{}", "chat_template.jinja": b"{{ x }}"}
REPO = "owner/repo"
FILE = "sub/model.rkllm"


@dataclass
class Puller:
    """Pulls REPO from the fake hub into a store; `steps` is what was reported."""

    hub: FakeHub
    store: ModelStore
    env: dict[str, str]
    steps: list[Progress] = field(default_factory=list)

    def __call__(self, text: str = f"{REPO}/{FILE}", *, suffix: str = ".rkllm", **options: Any) -> PulledModel:
        report: Callable[[Progress], None] = self.steps.append
        options = {"report": report, **options}
        return pull_from_hub(HubReference.parse(text), self.store.root, suffix=suffix, env=self.env, **options)

    def listed(self) -> list[str]:
        return [model.id for model in self.store.scan(".rkllm")]

    def entries(self) -> list[str]:
        """Everything in the store, hidden or not."""
        return sorted(str(path.relative_to(self.store.root)) for path in self.store.root.rglob("*") if path.is_file())


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


def test_the_token_goes_to_the_hub_and_nowhere_else(puller: Puller) -> None:
    puller.hub.add(REPO, {FILE: WEIGHTS, **TOKENIZER}, gated=True)
    puller.env["HF_TOKEN"] = f" {TOKEN}\n"
    puller.hub.cut_after(0.5, 1)
    assert puller().warnings == ()
    sent = {(request.server, request.authorization) for request in puller.hub.requests}
    assert sent == {("hub", f"Bearer {TOKEN}"), ("cdn", "")}


@pytest.mark.parametrize("token", ["", STRANGER])
def test_a_gated_repository(puller: Puller, token: str) -> None:
    puller.hub.add(REPO, {FILE: WEIGHTS, **TOKENIZER}, gated=True)
    puller.env["HF_TOKEN"] = token
    with pytest.raises(PullError, match=f"is gated: accept its terms at {puller.hub.url}/owner/repo, and set HF_TOKEN"):
        puller()
    assert list(puller.store.root.iterdir()) == []


def test_a_token_that_is_not_known(puller: Puller) -> None:
    puller.env["HF_TOKEN"] = "hf_nobody"
    with pytest.raises(PullError, match=r"refused owner/repo \(401\): set HF_TOKEN to another token"):
        puller()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no/body/model.rkllm", "There is no repository no/body at http.*or set HF_TOKEN"),
        ("hf.co/owner/repo/resolve/v2/sub/model.rkllm", "owner/repo has no revision 'v2'"),
        ("owner/repo/model.rkllm", f"has no file 'model.rkllm'. Its model files: {FILE}"),
        ("owner/repo/README.md", "'README.md' does not end in .rkllm"),
        ("maker/original", "maker/original has no file that ends in .rkllm"),
    ],
)
def test_what_is_not_there(puller: Puller, text: str, said: str) -> None:
    with pytest.raises(PullError, match=said):
        puller(text)
    assert not puller.store.root.exists()


def test_a_missing_repository_is_told_to_those_who_have_a_token(puller: Puller) -> None:
    puller.env["HF_TOKEN"] = TOKEN
    with pytest.raises(PullError, match="There is no repository no/body"):
        puller("no/body")


def test_a_repository_with_one_model(puller: Puller) -> None:
    assert puller(f"{REPO}:mine").folder.name == "mine"
    puller.hub.add(REPO, {"a.rkllm": b"a", "b.rkllm": b"b", "mmproj-c.rkllm": b"c"})
    with pytest.raises(PullError, match=r"several models: .*They are: a.rkllm, b.rkllm\."):
        puller(REPO)


def test_another_revision(puller: Puller) -> None:
    assert puller(f"https://huggingface.co/{REPO}/blob/refs%2Fpr%2F1/{FILE}?download=true").name == "model"
    assert puller.hub.requests[0].path == f"/api/models/{REPO}/revision/refs/pr/1"


def test_a_hub_that_cannot_be_reached(puller: Puller) -> None:
    with FakeHub() as gone:
        pass
    puller.env["HF_ENDPOINT"] = gone.url
    with pytest.raises(PullError, match=f"The hub {gone.url} cannot be reached: .*HF_ENDPOINT"):
        puller()


def test_an_endpoint_that_is_no_address(puller: Puller) -> None:
    puller.env["HF_ENDPOINT"] = "localhost:8000"
    with pytest.raises(PullError, match="HF_ENDPOINT is 'localhost:8000'"):
        puller()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_is_busy_is_asked_again(puller: Puller, status: int) -> None:
    puller.hub.fail(status, 5)
    assert puller().name == "model"


def test_a_hub_that_stays_busy(puller: Puller) -> None:
    puller.hub.fail(503, 6)
    with pytest.raises(PullError, match="after 6 attempts: the hub answered 503"):
        puller()


def test_pauses_grow_and_the_hub_may_ask_for_longer_ones(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(threading.Event):
        pauses: list[float | None] = []  # noqa: RUF012 - there is one

        def wait(self, timeout: float | None = None) -> bool:
            self.pauses.append(timeout)
            return False

    monkeypatch.setattr(hub_client, "PAUSES", (1.0, 2.0, 4.0, 8.0, 16.0))
    puller.hub.fail(503, 3)
    puller.hub.fail(429, 1, retry_after="30")
    puller.hub.fail(429, 1, retry_after="86400")
    puller(cancelled=Clock())
    assert Clock.pauses == [1.0, 2.0, 4.0, 30.0, 60.0]


def test_a_page_instead_of_a_hub(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "dumps", lambda value: "<html>please log in</html>")
    with pytest.raises(PullError, match="something that is no description of a model"):
        puller()


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
    with pytest.raises(ModelExists, match="has a model model already"):
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


def test_names_in_a_repository_that_lead_elsewhere_are_left_out(puller: Puller) -> None:
    puller.hub.add(
        REPO, {"../../evil.rkllm": b"x", "/abs.rkllm": b"x", "a\\b.rkllm": b"x", ".c.rkllm": b"x", FILE: b"ok"}
    )
    assert (puller(REPO).folder / "model.rkllm").read_bytes() == b"ok"


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
