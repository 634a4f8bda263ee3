"""A model in the library: one list of tests for all five interfaces, against the simulator."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import runtime_sim
from runtime_sim import Tokens, calls, last, since

from exo_rkllm.runtime import (
    CallFailed,
    LoadFailed,
    NotInThisVersion,
    NpuModel,
    SamplingOptions,
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


# --- loading ---


def test_the_load_passes_what_was_given_and_leaves_the_rest(abi: str, tmp_path: Path, log: Path) -> None:
    sampling = SamplingOptions(top_k=1, temperature=0.25, mirostat=2)
    path = runtime_sim.write_model(tmp_path)
    loaded = runtime_sim.load(abi, path, max_new_tokens=-1, sampling=sampling, skip_special_token=False)
    init = last(log, "rkllm_init")
    assert (init["model_path"], init["max_context_len"], init["max_new_tokens"]) == (str(path), 256, -1)
    assert (init["skip_special_token"], init["is_async"], init["base_domain_id"]) == (False, False, 0)
    given = {"top_k": 1, "temperature": 0.25, "mirostat": 2}
    assert init["sampling"] == pytest.approx({**init["sampling"], **given, "top_p": 0.9, "repeat_penalty": 1.1})
    assert loaded.sampling == SamplingOptions(1, 0.9, 0.25, 1.1, 0.0, 0.0, 2, 5.0, 0.1)
    if since(abi, "1.2.0"):
        assert (init["n_keep"], init["embed_flash"]) == (-1, 1)
        assert (init["enabled_cpus_num"], init["enabled_cpus_mask"]) == (4, 0xF0)
    loaded.destroy()
    runtime_sim.load(abi, path).destroy()
    assert last(log, "rkllm_init")["skip_special_token"]


def test_what_1_1_lacks_cannot_be_set_there(abi: str, tmp_path: Path, log: Path) -> None:
    path = runtime_sim.write_model(tmp_path)
    changes: list[dict[str, Any]] = [{"n_keep": 16}, {"cpus": (5, 6, 7)}]
    for change in changes:
        if since(abi, "1.2.0"):
            runtime_sim.load(abi, path, **change).destroy()
        else:
            with pytest.raises(NotInThisVersion, match=r"librkllmrt 1\.1\.4 does not have (n_keep|a choice of CPUs)"):
                runtime_sim.load(abi, path, **change)
    if since(abi, "1.2.0"):
        runtime_sim.load(abi, path, n_keep=8, cpus=(4, 6, 7), embed_flash=False, base_domain_id=1).destroy()
        init = last(log, "rkllm_init")
        assert (init["n_keep"], init["embed_flash"], init["base_domain_id"]) == (8, 0, 1)
        assert (init["enabled_cpus_num"], init["enabled_cpus_mask"]) == (3, 0b11010000)


@pytest.mark.parametrize("cpus", [(), (4, 4, 5), (-1, 2, 3), (4, 5, 32)])
def test_cpus_that_are_none(tmp_path: Path, cpus: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="give different numbers of CPUs"):
        runtime_sim.load("1.2.3", runtime_sim.write_model(tmp_path), cpus=cpus)


@pytest.mark.parametrize(
    ("fault", "code"),
    [("load_fails", -1), ("null_handle", 0), ("model_newer", -1), ("wrong_platform", -1), ("cpu_mask", -1)],
)
def test_a_load_that_fails(abi: str, tmp_path: Path, fault: str, code: int, log: Path) -> None:
    path = runtime_sim.write_model(tmp_path, f"fault {fault}")
    with pytest.raises(LoadFailed) as caught:
        runtime_sim.load(abi, path)
    assert (caught.value.code, caught.value.model) == (code, path)
    assert str(path) in str(caught.value)
    assert ("gave no handle" in str(caught.value)) == (fault == "null_handle")
    assert calls(log, "rkllm_destroy") == []


def test_a_model_file_that_is_not_there_is_not_given_to_the_library(abi: str, tmp_path: Path, log: Path) -> None:
    with pytest.raises(LoadFailed, match="there is no such file"):
        runtime_sim.load(abi, tmp_path / "none.rkllm")
    assert calls(log, "rkllm_init") == []


# --- runs ---


def test_a_run_brings_each_token_with_its_text(abi: str, model: NpuModel, log: Path) -> None:
    tokens = Tokens()
    outcome = model.run(PROMPT, tokens)
    enter, left = last(log, "rkllm_run", "enter"), last(log, "rkllm_run", "return")
    assert (enter["input"], enter["tokens"], enter["mode"]) == ("tokens", PROMPT, "generate")
    assert not enter["keep_history"]
    assert enter["sampling"] is None
    assert (outcome.finished, outcome.error) == (True, False)
    assert outcome.tokens == len(tokens.ids) == left["generated"] > 0
    assert [ord(piece) for piece in tokens.pieces] == tokens.ids
    assert enter["pid"] == left["pid"]


def test_all_versions_say_the_same(tmp_path: Path) -> None:
    path = runtime_sim.write_model(tmp_path)
    answers = set()
    for name in SUPPORTED:
        tokens = Tokens()
        loaded = runtime_sim.load(name, path)
        loaded.run(array("i", PROMPT), tokens)
        loaded.destroy()
        answers.add(tokens.text)
    assert len(answers) == 1


def test_a_text_prompt_goes_through_the_template_unless_it_is_off(abi: str, tmp_path: Path, log: Path) -> None:
    path = runtime_sim.write_model(tmp_path, 'prefix "<u>"', 'postfix "<a>"')
    loaded = runtime_sim.load(abi, path)
    loaded.run("grüß dich", Tokens())
    enter = last(log, "rkllm_run", "enter")
    assert (enter["input"], enter["text"]) == ("prompt", "grüß dich")
    assert enter["role"] == ("user" if since(abi, "1.2.3") else None)
    assert bytes(enter["tokens"]).decode() == "<u>grüß dich<a>"
    loaded.switch_off_template()
    loaded.run("grüß dich", Tokens())
    off = bytes(last(log, "rkllm_run", "enter")["tokens"]).decode()
    assert off == ("grüß dich" if since(abi, "1.2.0") else "<u>grüß dich<a>")
    assert len(calls(log, "rkllm_set_chat_template")) == since(abi, "1.2.0")
    loaded.destroy()


def test_perf_comes_from_1_2_1_on(abi: str, model: NpuModel) -> None:
    perf = model.run(PROMPT, tokens := Tokens()).perf
    if not since(abi, "1.2.3"):
        assert perf is None
        return
    assert perf is not None
    assert (perf.prefill_tokens, perf.generate_tokens) == (len(PROMPT), len(tokens.ids))
    assert perf.memory_mb > 0
    assert perf.prefill_ms >= 0
    assert perf.generate_ms > 0


@pytest.mark.parametrize("prompt", [[], "", "a\0b", [1 << 31], ["x"]])
def test_a_prompt_that_cannot_be_passed(prompt: Any, tmp_path: Path, log: Path) -> None:
    loaded = runtime_sim.load("1.2.3", runtime_sim.write_model(tmp_path))
    with pytest.raises(ValueError, match="The prompt"):
        loaded.run(prompt, Tokens())
    assert calls(log, "rkllm_run") == []
    loaded.destroy()


def test_the_cap_of_the_load_holds(abi: str, tmp_path: Path) -> None:
    loaded = runtime_sim.load(abi, runtime_sim.write_model(tmp_path), max_new_tokens=3)
    assert loaded.run(PROMPT, Tokens()).tokens == 3
    loaded.destroy()


def test_sampling_and_cap_of_one_run_come_with_1_3(abi: str, model: NpuModel, log: Path) -> None:
    if not since(abi, "1.3.0"):
        with pytest.raises(NotInThisVersion, match="max_new_tokens for one run"):
            model.run(PROMPT, Tokens(), max_new_tokens=2)
        with pytest.raises(NotInThisVersion, match="top_k, temperature for one run"):
            model.run(PROMPT, Tokens(), sampling=SamplingOptions(top_k=3, temperature=0.5))
        assert calls(log, "rkllm_run") == []
        assert model.run(PROMPT, Tokens(), sampling=SamplingOptions()).tokens > 2
        return
    outcome = model.run(PROMPT, Tokens(), max_new_tokens=2, sampling=SamplingOptions(top_k=3, temperature=0.5))
    sampling = last(log, "rkllm_run", "enter")["sampling"]
    assert outcome.tokens == 2
    assert sampling == pytest.approx({**sampling, "top_k": 3, "temperature": 0.5, "top_p": 0.9, "mirostat_tau": 5.0})
    assert model.run(PROMPT, Tokens()).tokens > 2
    assert last(log, "rkllm_run", "enter")["sampling"] is None
    with pytest.raises(ValueError, match="max_new_tokens is 0"):
        model.run(PROMPT, Tokens(), max_new_tokens=0)


def test_characters_in_pieces_come_as_waiting_tokens(abi: str, tmp_path: Path) -> None:
    played = ('text "né 日本"', "bytes f09fa680")
    loaded = runtime_sim.load(abi, runtime_sim.write_model(tmp_path, script=played))
    outcome = loaded.run(PROMPT, tokens := Tokens())
    assert tokens.text == "né 日本🦀"
    assert outcome.tokens == len(tokens.ids) == len("né 日本🦀".encode())
    waiting = [index for index, piece in enumerate(tokens.pieces) if not piece]
    assert len(waiting) == 1 + 2 + 2 + 3
    assert all(tokens.ids[index] == -1 for index in waiting)
    loaded.destroy()


def test_a_token_without_text_is_empty(abi: str, tmp_path: Path) -> None:
    played = ('text "a"', "null", 'text "b"')
    loaded = runtime_sim.load(abi, runtime_sim.write_model(tmp_path, script=played))
    loaded.run(PROMPT, tokens := Tokens())
    assert (tokens.pieces, tokens.ids) == ([b"a", b"", b"b"], [97, 0, 98])
    loaded.destroy()


def test_text_that_is_kept_stays_as_it_came(abi: str, tmp_path: Path) -> None:
    """The simulator overwrites its buffer after each callback."""
    loaded = runtime_sim.load(abi, runtime_sim.write_model(tmp_path, script=('text "hello there"',)))
    loaded.run(PROMPT, tokens := Tokens())
    assert tokens.text == "hello there"
    loaded.destroy()


def test_the_prefix_in_the_cache_is_used_again_from_1_2_0(abi: str, model: NpuModel, log: Path) -> None:
    model.run(PROMPT, tokens := Tokens())
    longer = PROMPT + tokens.ids + list(b" and then")
    model.run(longer, Tokens())
    left = last(log, "rkllm_run", "return")
    known = len(PROMPT) + len(tokens.ids)  # the last token may not have been evaluated
    assert left["reused"] in ((known, known - 1) if since(abi, "1.2.0") else (0,))
    assert left["reused"] + left["prefilled"] == len(longer)


def test_the_cache_can_be_cleared_and_measured(abi: str, model: NpuModel, log: Path) -> None:
    model.run(PROMPT, tokens := Tokens())
    if not since(abi, "1.2.0"):
        with pytest.raises(NotInThisVersion, match="rkllm_clear_kv_cache"):
            model.clear_cache()
    held = len(PROMPT) + len(tokens.ids)
    assert model.cache_size() in ((held, held - 1) if since(abi, "1.2.3") else (None,))
    if since(abi, "1.2.0"):
        model.clear_cache()
        assert model.cache_size() == (0 if since(abi, "1.2.3") else None)
        model.run(PROMPT, Tokens())
        assert last(log, "rkllm_run", "return")["reused"] == 0


# --- hidden states ---


def test_embed_gives_the_last_position_of_the_prompt(abi: str, tmp_path: Path, log: Path) -> None:
    loaded = runtime_sim.load(abi, runtime_sim.write_model(tmp_path, embd=48))
    first = loaded.embed(PROMPT)
    assert (first.typecode, len(first)) == ("f", 48)
    assert last(log, "rkllm_run", "enter")["mode"] == "hidden"
    assert loaded.embed([*PROMPT, 33]) != first
    loaded.run([*PROMPT, 1, 2], Tokens())
    assert loaded.embed(PROMPT) == first
    assert last(log, "rkllm_run", "return")["reused"] == 0
    assert loaded.embed(PROMPT[:1]) != first
    loaded.destroy()
    assert [line for line in calls(log, "rkllm_abort") if line["running"]] == []


def test_the_same_prompt_has_the_same_hidden_state_in_every_version(tmp_path: Path) -> None:
    path = runtime_sim.write_model(tmp_path)
    rows = set()
    for name in SUPPORTED:
        loaded = runtime_sim.load(name, path)
        rows.add(loaded.embed(PROMPT).tobytes())
        loaded.destroy()
    assert len(rows) == 1


def test_embed_of_nothing_and_of_a_run_that_fails(abi: str, tmp_path: Path) -> None:
    loaded = runtime_sim.load(abi, runtime_sim.write_model(tmp_path, "fault run_fails"))
    with pytest.raises(ValueError, match="The prompt is empty"):
        loaded.embed([])
    with pytest.raises(CallFailed, match="rkllm_run returned -1"):
        loaded.embed(PROMPT)
    loaded.destroy()
