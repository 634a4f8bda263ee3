from __future__ import annotations

import json
import threading

import pytest
from fake_hub import STRANGER, TOKEN, FakeHub
from hub_puller import FILE, REPO, TOKENIZER, WEIGHTS, Puller

from exo.models import hub_client
from exo.types import NothingToPull, PullError


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
    with pytest.raises(NothingToPull, match=said):
        puller(text)
    assert not puller.store.root.exists()


def test_a_missing_repository_is_told_to_those_who_have_a_token(puller: Puller) -> None:
    puller.env["HF_TOKEN"] = TOKEN
    with pytest.raises(NothingToPull, match="There is no repository no/body"):
        puller("no/body")


def test_a_repository_with_one_model(puller: Puller) -> None:
    assert puller(f"{REPO}:mine").folder.name == "mine"
    puller.hub.add(REPO, {"a.rkllm": b"a", "b.rkllm": b"b", "mmproj-c.rkllm": b"c"})
    with pytest.raises(PullError, match=r"several models: .*They are: a.rkllm, b.rkllm\."):
        puller(REPO)


def test_a_model_in_several_files_is_refused(puller: Puller) -> None:
    parts = {f"q8/m-0000{number}-of-00002.rkllm": b"part" for number in (1, 2)}
    puller.hub.add(REPO, parts)
    said = r"'q8/m-00001-of-00002.rkllm' of owner/repo is one part of a model in several files"
    for text in (REPO, f"{REPO}/q8/m-00001-of-00002.rkllm"):
        with pytest.raises(PullError, match=said):
            puller(text)
    assert not puller.store.root.exists()
    puller.hub.add(REPO, {**parts, "m-00001-of-00001.rkllm": b"whole"})
    assert (puller(REPO).folder / "m-00001-of-00001.rkllm").read_bytes() == b"whole"


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


def test_names_in_a_repository_that_lead_elsewhere_are_left_out(puller: Puller) -> None:
    puller.hub.add(
        REPO, {"../../evil.rkllm": b"x", "/abs.rkllm": b"x", "a\\b.rkllm": b"x", ".c.rkllm": b"x", FILE: b"ok"}
    )
    assert (puller(REPO).folder / "model.rkllm").read_bytes() == b"ok"
