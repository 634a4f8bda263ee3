"""How runs and models end: failures, aborts, destroy; for all five interfaces, against the simulator."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import runtime_sim
from runtime_sim import Tokens, calls, last, since

from exo_rkllm.runtime import (
    CallFailed,
    ModelBusy,
    ModelDestroyed,
    NpuModel,
)
from rkllm_facts.abi import SUPPORTED

pytestmark = pytest.mark.slow
PROMPT = list(b"once upon a time")


@pytest.fixture(params=SUPPORTED)
def abi(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "calls.jsonl"
    monkeypatch.setenv("RKLLM_SIM_LOG", str(path))
    return path


@pytest.fixture
def model(abi: str, tmp_path: Path, log: Path) -> Iterator[NpuModel]:
    loaded = runtime_sim.load(abi, runtime_sim.write_model(tmp_path))
    yield loaded
    loaded.destroy()


# --- failures ---


@pytest.mark.parametrize(("fault", "brought"), [("error_at=4", 3), ("error_at=1", 0), ("run_fails", 0)])
def test_a_run_that_fails(abi: str, tmp_path: Path, fault: str, brought: int) -> None:
    loaded = runtime_sim.load(abi, runtime_sim.write_model(tmp_path, f'fault {fault} when "once"'))
    tokens = Tokens()
    with pytest.raises(CallFailed, match=r"rkllm_run returned -1\.") as caught:
        loaded.run(PROMPT, tokens)
    assert (caught.value.function, caught.value.code, len(tokens.ids)) == ("rkllm_run", -1, brought)
    assert loaded.run(list(b"another"), Tokens()).finished
    loaded.destroy()


def test_a_prompt_as_long_as_the_context_fails(abi: str, model: NpuModel) -> None:
    with pytest.raises(CallFailed):
        model.run([97] * 256, Tokens())
    assert model.run([97] * 255, Tokens()).tokens > 0


def test_what_the_callback_raises_ends_the_run_and_comes_out_of_it(abi: str, tmp_path: Path, log: Path) -> None:
    class Stop(BaseException):
        pass

    def then(count: int) -> None:
        if count == 3:
            raise Stop

    path = runtime_sim.write_model(tmp_path, "decode_ms 1", script=('repeat endless "x"',))
    loaded = runtime_sim.load(abi, path, max_new_tokens=-1)
    with pytest.raises(Stop):
        loaded.run(PROMPT, tokens := Tokens(then))
    assert len(tokens.ids) == 3
    left = last(log, "rkllm_run", "return")
    (abort,) = (line for line in calls(log, "rkllm_abort") if line["running"])
    assert left["aborted"]
    assert abort["tid"] != left["tid"]
    loaded.destroy()


# --- abort ---


def test_abort_from_another_thread(abi: str, tmp_path: Path, log: Path) -> None:
    path = runtime_sim.write_model(tmp_path, "decode_ms 1", script=('repeat endless "x"',))
    loaded = runtime_sim.load(abi, path, max_new_tokens=-1)
    under_way, aborted = threading.Event(), threading.Event()

    def abort() -> None:
        under_way.wait(10)
        loaded.abort()
        loaded.abort()
        aborted.set()

    thread = threading.Thread(target=abort)
    thread.start()
    outcome = loaded.run(PROMPT, Tokens(lambda count: under_way.set() if count == 5 else None))
    thread.join(10)
    assert aborted.is_set()
    assert outcome.tokens >= 5
    assert outcome.finished
    assert last(log, "rkllm_run", "return")["end"] == "aborted"
    assert len([line for line in calls(log, "rkllm_abort") if line["running"]]) == 1
    loaded.destroy()


@pytest.mark.parametrize("ends", ["finish", "nothing", "error"])
def test_the_outcome_of_an_aborted_run(abi: str, tmp_path: Path, ends: str) -> None:
    path = runtime_sim.write_model(tmp_path, "decode_ms 1", f"fault abort_ends={ends}", script=('repeat endless "x"',))
    loaded = runtime_sim.load(abi, path, max_new_tokens=-1)
    outcome = loaded.run(PROMPT, Tokens(lambda count: loaded.abort() if count == 2 else None))
    assert (outcome.finished, outcome.error) == (ends == "finish", ends == "error")
    assert outcome.tokens >= 2
    loaded.destroy()


def test_abort_without_a_run_does_not_reach_the_library(abi: str, model: NpuModel, log: Path) -> None:
    model.abort()
    whole = model.run(PROMPT, Tokens()).tokens
    model.abort()
    assert calls(log, "rkllm_abort") == []
    assert model.run(PROMPT, Tokens()).tokens == whole


# --- the end ---


def test_destroy_can_be_repeated_and_ends_all_use(abi: str, tmp_path: Path, log: Path) -> None:
    loaded = runtime_sim.load(abi, runtime_sim.write_model(tmp_path))
    loaded.destroy()
    loaded.destroy()
    assert len(calls(log, "rkllm_destroy")) == 1
    with pytest.raises(ModelDestroyed, match="Load it again"):
        loaded.run(PROMPT, Tokens())
    for use in (loaded.cache_size, loaded.switch_off_template) if since(abi, "1.2.3") else ():
        with pytest.raises(ModelDestroyed):
            use()
    made = calls(log)
    loaded.abort()
    assert calls(log) == made
    assert calls(log, "rkllm_run") == []


def test_nothing_but_abort_is_possible_during_a_run(abi: str, tmp_path: Path, log: Path) -> None:
    path = runtime_sim.write_model(tmp_path, script=('repeat 3 "x"',))
    loaded = runtime_sim.load(abi, path)
    refused: list[str] = []

    def then(_count: int) -> None:
        uses = [lambda: loaded.run(PROMPT, Tokens()), lambda: loaded.embed(PROMPT), loaded.destroy]
        uses += [loaded.clear_cache, loaded.switch_off_template] if since(abi, "1.2.0") else []
        uses += [loaded.cache_size] if since(abi, "1.2.3") else []
        for use in uses:
            with pytest.raises(ModelBusy) as caught:
                use()
            refused.append(caught.value.what)

    loaded.run(PROMPT, Tokens(then))
    assert set(refused[:3]) <= {"run", "embed", "clear_cache", "destroy"}
    assert len(refused) == 3 * (3 + 2 * since(abi, "1.2.0") + since(abi, "1.2.3"))
    assert calls(log, "rkllm_destroy") == []
    loaded.destroy()


def test_two_handles_at_once(abi: str, tmp_path: Path) -> None:
    path = runtime_sim.write_model(tmp_path)
    one, other = runtime_sim.load(abi, path), runtime_sim.load(abi, path)
    answers = [Tokens(), Tokens()]
    one.run(PROMPT, answers[0])
    one.destroy()
    other.run(PROMPT, answers[1])
    other.destroy()
    assert answers[0].text == answers[1].text


def test_nothing_is_left_behind_by_many_runs(model: NpuModel) -> None:
    """Not even something that waits for the cycle collector."""
    gc.collect()
    gc.disable()
    try:
        before = sys.getallocatedblocks()
        for _ in range(200):
            model.run(PROMPT, _nothing)
        assert gc.collect() == 0
        assert sys.getallocatedblocks() - before < 100
    finally:
        gc.enable()


def _nothing(_text: bytes, _token_id: int) -> None:
    pass
