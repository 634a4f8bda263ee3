"""Pace, abort, asynchronous runs, and what happens when calls cross a run of the simulated library."""

from __future__ import annotations

import threading
import time

import pytest
import sim_ctypes
from sim_ctypes import Bench, Call, Model, Outcome, every_release, releases, until
from sim_models import hash_answer, hash_model, script_model

libraries, bench = sim_ctypes.libraries, sim_ctypes.bench

ENDLESS = 'repeat endless "w"'


class Background:
    """A run on a thread of its own."""

    def __init__(self, model: Model, prompt: list[int], tokens: int = 1) -> None:
        self.outcomes: list[Outcome] = []
        self.model = model
        self.thread = threading.Thread(target=lambda: self.outcomes.append(model.run(prompt)))
        model.calls = []
        self.thread.start()
        until(lambda: len(model.calls) >= tokens)

    def result(self) -> Outcome:
        self.thread.join(30)
        assert not self.thread.is_alive()
        return self.outcomes[0]


@every_release
def test_abort_ends_a_run_with_finish(abi: str, bench: Bench) -> None:
    model = bench.load(abi, script_model(bench.folder, ENDLESS, settings=["decode_ms 1"]))
    run = Background(model, [1, 2])
    assert model.call("abort") == 0
    outcome = run.result()
    assert (outcome.ret, outcome.states[-1]) == (0, "finish")
    line = bench.last_run()
    assert (line["end"], line["aborted"]) == ("aborted", True)
    assert bench.calls("rkllm_abort")[0]["running"] is True


@every_release
def test_an_abort_inside_the_callback_is_the_last_token(abi: str, bench: Bench) -> None:
    model = bench.load(abi, script_model(bench.folder, ENDLESS))
    outcome = model.run([1], answer=lambda call: model.call("abort") if len(model.calls) == 3 else 0)
    assert outcome.states == ["normal", "normal", "normal", "finish"]


@every_release
def test_an_abort_when_nothing_runs_has_no_effect_later(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder))
    assert model.call("abort") == 0
    assert model.run([1]).ids == hash_answer([1])
    assert model.call("abort") == 0
    assert model.run([1]).ids == hash_answer([1])
    assert [line["running"] for line in bench.calls("rkllm_abort")] == [False, False]


@pytest.mark.slow
@releases("1.1.4", "1.3.0")
def test_an_abort_does_not_cut_a_prefill_short(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder, "prefill_ms 10"))
    run = Background(model, list(range(100)), tokens=0)
    until(lambda: bool(bench.calls("rkllm_run", "enter")))
    model.call("abort")
    outcome = run.result()
    assert outcome.states == ["finish"]
    line = bench.last_run()
    assert line["t"] - line["t_enter"] >= 1.0
    assert (line["prefilled"], line["generated"], line["aborted"]) == (100, 0, True)


@releases("1.2.3", "1.3.0")
def test_the_cache_after_an_abort_is_good_for_the_next_turn(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder))
    ids = model.run([1, 2], answer=lambda call: model.call("abort") if len(model.calls) == 5 else 0).ids
    assert ids == hash_answer([1, 2])[:5]
    assert model.cache_size() == 2 + 4
    prompt = [1, 2, *ids, 8]
    assert model.run(prompt).ids == hash_answer(prompt)
    assert bench.last_run()["reused"] == 6


@every_release
def test_only_one_run_at_a_time(abi: str, bench: Bench) -> None:
    model = bench.load(abi, script_model(bench.folder, ENDLESS, settings=["decode_ms 1"]))
    assert model.call("is_running") == 0
    run = Background(model, [1])
    assert model.call("is_running") == 1
    assert model.run([1]).ret == -1
    assert model.call("release_prompt_cache") == -1
    if abi != "1.1.4":
        assert model.clear() == -1
        assert model.call("set_chat_template", b"", b"", b"") == -1
    model.call("abort")
    run.result()
    assert model.calls[-1].state == "finish"
    assert model.call("is_running") == 0
    assert model.call("release_prompt_cache") == 0


@every_release
def test_destroying_a_running_model_waits_for_its_end(abi: str, bench: Bench) -> None:
    model = bench.load(abi, script_model(bench.folder, ENDLESS, settings=["decode_ms 1"]))
    bench.loaded.clear()
    run = Background(model, [1])
    assert model.destroy() == 0
    assert bench.last_run()["end"] == "aborted"
    assert run.result().states[-1] == "finish"
    assert bench.calls("rkllm_abort") == []
    assert model.call("abort") == -1


def test_destroying_inside_the_callback_is_refused(bench: Bench) -> None:
    model = bench.load("1.3.0", hash_model(bench.folder))
    seen: list[int] = []

    def called(call: Call) -> int:
        seen.append(model.destroy())
        return 0

    assert model.run([1], answer=called).ret == 0
    assert set(seen) == {-1}


# --- run_async ---


@every_release
def test_an_asynchronous_run_has_a_thread_of_its_own(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder, "decode_ms 1"))
    assert model.run([1, 2, 3], asynchronous=True).ret == 0
    model.kept.clear()  # the input has been copied
    until(lambda: bool(bench.calls("rkllm_run", "return")))
    assert [call.token for call in model.calls[:-1]] == hash_answer([1, 2, 3])
    assert model.calls[-1].state == "finish"
    assert {call.thread for call in model.calls}.isdisjoint({threading.get_native_id()})
    until(lambda: model.call("is_running") == 0)
    assert model.run([1, 2], asynchronous=True, mode=7).ret == -1


def test_an_asynchronous_run_can_be_aborted_and_destroyed(bench: Bench) -> None:
    path = script_model(bench.folder, ENDLESS, settings=["decode_ms 1"])
    model = bench.load("1.3.0", path)
    assert model.run([1], asynchronous=True).ret == 0
    assert model.call("is_running") == 1
    assert model.call("abort") == 0
    until(lambda: model.call("is_running") == 0)
    assert bench.last_run()["end"] == "aborted"
    assert model.run([1], asynchronous=True).ret == 0
    assert model.destroy() == 0
    bench.loaded.clear()
    assert len(bench.calls("rkllm_run", "return")) == 2


# --- pace ---


def test_the_pace_of_the_model_is_kept_without_drift(bench: Bench) -> None:
    model = bench.load("1.3.0", hash_model(bench.folder, "prefill_ms 3", "decode_ms 5", "answer 40 40"))

    def slowly(call: Call) -> int:
        time.sleep(0.001)
        return 0

    start = time.monotonic()
    model.run(list(range(20)), answer=slowly)
    took = time.monotonic() - start
    line = bench.last_run()
    assert line["t_first"] - line["t_enter"] >= 0.060 + 0.005
    assert took >= 0.060 + 40 * 0.005


def test_the_environment_sets_another_pace(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bench.load("1.3.0", hash_model(bench.folder, "prefill_ms 100000", "decode_ms 100000"))
    monkeypatch.setenv("RKLLM_SIM_PACE", "20,0")
    model.run([1, 2, 3])
    line = bench.last_run()
    assert line["t_first"] - line["t_enter"] >= 0.060


def test_only_new_positions_take_time(bench: Bench) -> None:
    model = bench.load("1.3.0", hash_model(bench.folder, "prefill_ms 10", "answer 2 2"))
    ids = model.run(list(range(30))).ids
    model.run([*range(30), *ids, 5])
    assert bench.last_run()["prefilled"] == 1


# --- script ---


def test_a_script_plays_its_records(bench: Bench) -> None:
    path = script_model(
        bench.folder,
        'text "<|user|> w3x"',
        "token 65",
        "pad 2",
        "pad 1 66",
        'repeat 2 "ab"',
        "wait 20",
        "null",
        'text "\\u00e9\\n"',
    )
    outcome = bench.load("1.3.0", path).run([1])
    assert outcome.text == "<|user|> w3xA[PAD151935][PAD151935]Bababé\n"
    assert outcome.ids[:5] == [321, 259, 120, 65, 151935]
    nulls = [call for call in outcome.calls if call.state == "normal" and call.text is None]
    assert [call.token for call in nulls] == [0]
    line = bench.last_run()
    assert line["t"] - line["t_first"] >= 0.020


def test_an_error_record_ends_the_run(bench: Bench) -> None:
    outcome = bench.load("1.2.3", script_model(bench.folder, 'text "ab"', "error", 'text "c"')).run([1])
    assert (outcome.ret, outcome.states) == (-1, ["normal", "normal", "error"])
    assert bench.last_run()["end"] == "error"


@every_release
def test_the_first_block_whose_words_are_in_the_prompt_plays(abi: str, bench: Bench) -> None:
    blocks = ['when "cat"', 'text "meow"', 'when "dog"', 'text "woof"', "otherwise", 'text "..."']
    model = bench.load(abi, script_model(bench.folder, 'text "I say "', *blocks))
    said = [model.run(prompt).text for prompt in ("a dog", "cat or dog", "a bird", [*b"the cat"])]
    assert said == ["I say woof", "I say meow", "I say ...", "I say meow"]
    alone = bench.load(abi, script_model(bench.folder, 'when "cat"', 'text "meow"', name="alone.rkllm"))
    assert [alone.run(prompt).states for prompt in ("dog", "cat")] == [["finish"], ["normal"] * 4 + ["finish"]]


def test_an_endless_script_ends_with_the_cap_and_shifts_the_window(bench: Bench) -> None:
    model = bench.load("1.3.0", script_model(bench.folder, "pad endless"), max_new_tokens=1000, max_context_len=64)
    outcome = model.run([1, 2])
    assert set(outcome.ids) == {151935}
    assert len(outcome.ids) == 1000
    assert model.cache_size() <= 64
