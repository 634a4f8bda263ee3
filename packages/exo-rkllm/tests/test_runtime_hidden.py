"""Hidden states in every form in which a library may bring them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from runtime_fake import FakeRaw, fake_model, finish, wait_for

from exo_rkllm.runtime import CallFailed
from rkllm_facts.abi import SUPPORTED


@pytest.fixture(params=SUPPORTED)
def abi(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def own_state(abi: str) -> str:
    return "HIDDEN" if abi == "1.1.4" else "NORMAL"


def test_hidden_states_in_pieces_after_empty_tokens(tmp_path: Path, abi: str) -> None:
    """Issue 278: a token without hidden states comes first."""

    def play(raw: FakeRaw) -> int:
        raw.emit("NORMAL", b"", 0)
        raw.hidden([[1, 2], [3, 4]], own_state(abi))
        raw.hidden([[5, 6]], own_state(abi))
        return finish(raw)

    model, raw = fake_model(tmp_path, abi, play)
    assert list(model.embed([1, 2, 3])) == [5, 6]
    assert raw.log == ["run", "returned"] if abi == "1.1.4" else ["clear", "run", "returned"]


def test_a_library_that_goes_on_to_generate_after_the_hidden_states_is_stopped(tmp_path: Path, abi: str) -> None:
    def play(raw: FakeRaw) -> int:
        raw.hidden([[1, 2], [3, 4]], own_state(abi))
        raw.hidden([[7, 8]], own_state(abi))
        wait_for(raw.aborted)
        raw.hidden([[9, 9]], own_state(abi))
        raw.emit("NORMAL", b"x", 1)
        return finish(raw)

    model, raw = fake_model(tmp_path, abi, play)
    assert list(model.embed([1, 2])) == [3, 4]
    assert raw.log.count("abort") == 1


def test_a_token_after_the_hidden_states_stops_the_run(tmp_path: Path, abi: str) -> None:
    def play(raw: FakeRaw) -> int:
        raw.hidden([[3, 4]], own_state(abi))
        raw.emit("NORMAL", b"x", 1)
        wait_for(raw.aborted)
        return finish(raw)

    model, _ = fake_model(tmp_path, abi, play)
    assert list(model.embed([1, 2])) == [3, 4]


def test_tokens_in_place_of_hidden_states_do_not_go_on_for_ever(tmp_path: Path, abi: str) -> None:
    def play(raw: FakeRaw) -> int:
        for _ in range(1000):
            raw.emit("NORMAL", b"x", 1)
            if raw.aborted.wait(0.001):
                return finish(raw)
        return 0

    model, raw = fake_model(tmp_path, abi, play)
    with pytest.raises(CallFailed, match="No hidden states came for 2 tokens"):
        model.embed([1, 2])
    assert "abort" in raw.log


def test_empty_hidden_states_are_none(tmp_path: Path, abi: str) -> None:
    def play(raw: FakeRaw) -> int:
        raw.emit("NORMAL")
        raw.emit("HIDDEN")
        raw.emit("HIDDEN", null=True)
        return finish(raw)

    model, _ = fake_model(tmp_path, abi, play)
    with pytest.raises(CallFailed, match="No hidden states came"):
        model.embed([1, 2])


def test_an_abort_before_the_hidden_states_ends_embed(tmp_path: Path, abi: str) -> None:
    def play(raw: FakeRaw) -> int:
        raw.runs_now = 1
        threading.Thread(target=model.abort).start()
        wait_for(raw.aborted)
        return -1

    model, _ = fake_model(tmp_path, abi, play)
    with pytest.raises(CallFailed, match=r"abort\(\) ended the run before the hidden states came"):
        model.embed([1, 2])


def test_an_early_abort_of_embed_comes_with_its_first_callback(tmp_path: Path, abi: str) -> None:
    def play(raw: FakeRaw) -> int:
        thread = threading.Thread(target=model.abort)
        thread.start()
        thread.join()
        assert "abort" not in raw.log
        raw.emit("NORMAL")
        wait_for(raw.aborted)
        return finish(raw)

    model, _ = fake_model(tmp_path, abi, play)
    with pytest.raises(CallFailed, match="ended the run before"):
        model.embed([1, 2])
