"""What a run of the simulated library delivers, release by release."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path

import pytest
import sim_ctypes
from sim_ctypes import Bench, every_release, releases
from sim_models import (
    EOS,
    NOTHING,
    PAD,
    SPECIAL,
    hash_answer,
    hash_model,
    script_model,
    text_of,
)

from rkllm_facts.abi import SUPPORTED

libraries, bench = sim_ctypes.libraries, sim_ctypes.bench

WITH_PERF = ("1.2.3", "1.3.0")


@every_release
def test_the_hash_language_is_the_same_everywhere(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder))
    for prompt in ([5], [1, 2, 3], list(range(100))):
        outcome = model.run(prompt)
        assert outcome.ret == 0
        assert outcome.states == ["normal"] * (len(outcome.calls) - 1) + ["finish"]
        assert outcome.ids == hash_answer(prompt)
        assert outcome.text == text_of(*outcome.ids)


def test_the_seed_and_every_token_of_the_prompt_change_the_answer(bench: Bench) -> None:
    model = bench.load("1.3.0", hash_model(bench.folder))
    other = bench.load("1.3.0", hash_model(bench.folder, "seed 2", name="other.rkllm"))
    prompt = [1, 2, 3, 4]
    answers = {tuple(model.run(one).ids) for one in (prompt, [9, 2, 3, 4], [1, 2, 4, 3], [1, 2, 3, 4, 4])}
    assert len({*answers, tuple(other.run(prompt).ids)}) == 5
    assert other.run(prompt).ids == hash_answer(prompt, seed=2)


def test_the_length_of_an_answer_lies_between_the_two_numbers(bench: Bench) -> None:
    model = bench.load("1.2.3", hash_model(bench.folder, "answer 3 6"))
    lengths = {len(model.run([number]).ids) for number in range(60)}
    assert lengths == {3, 4, 5, 6}


@every_release
def test_callbacks_come_on_the_thread_that_runs(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder))
    seen: list[int] = []

    def run() -> None:
        seen.append(threading.get_native_id())
        model.run([1, 2])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert {call.thread for call in model.calls} == set(seen)
    assert bench.last_run()["tid"] == seen[0]


@every_release
def test_an_unfinished_character_waits(abi: str, bench: Bench) -> None:
    emoji = "😀"
    model = bench.load(abi, script_model(bench.folder, 'text "a"', f"bytes {emoji.encode().hex()}", "bytes ff41"))
    outcome = model.run([1])
    assert outcome.states == ["normal", "waiting", "waiting", "waiting", "normal", "normal", "normal", "finish"]
    waiting = [call for call in outcome.calls if call.state == "waiting"]
    assert {(call.text, call.token) for call in waiting} == {(None, -1)}
    assert [call.text for call in outcome.calls if call.state == "normal"] == [b"a", emoji.encode(), b"\xff", b"A"]
    assert outcome.ids[1] == emoji.encode()[-1]
    assert bench.last_run()["generated"] == 7


def test_the_end_of_a_run_has_neither_text_nor_token(bench: Bench) -> None:
    outcome = bench.load("1.3.0", hash_model(bench.folder)).run([1])
    assert (outcome.calls[-1].text, outcome.calls[-1].token) == (None, -1)


def test_the_text_is_valid_in_the_callback_only(bench: Bench) -> None:
    model = bench.load("1.3.0", hash_model(bench.folder))
    seen: list[tuple[bytes, bytes]] = []
    place = 0

    def called(result: int, userdata: int, state: int) -> int:
        nonlocal place
        if place:
            seen.append((model.calls[-1].text or b"", ctypes.string_at(place)))
        place = ctypes.c_void_p.from_address(result).value or 0
        return model._called(result, userdata, state)

    assert model.types.Result.text.offset == 0
    model.struct.result_callback = ctypes.cast(keep := model.types.callback(called), ctypes.c_void_p)
    handle = ctypes.c_void_p()
    assert model.lib.rkllm_init(ctypes.byref(handle), ctypes.byref(model.param), ctypes.byref(model.struct)) == 0
    made, infer = model.input([1, 2]), model.infer()
    assert model.lib.rkllm_run(handle, ctypes.byref(made), ctypes.byref(infer), None) == 0
    assert model.lib.rkllm_destroy(handle) == 0
    assert keep
    before, after = seen[-1]  # the last token's text, at the time of FINISH
    assert len(before) == len(after) > 0
    assert set(after) == set(b"#")


@releases(*WITH_PERF)
def test_perf_comes_with_finish_only(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder, "prefill_ms 2", "decode_ms 1", "memory_mb 1234", "answer 5 5"))
    *others, last = model.run(list(range(10))).calls
    assert all(call.perf.prefill_tokens == call.perf.memory_usage_mb == 0 for call in others)
    assert (last.perf.prefill_tokens, last.perf.generate_tokens, last.perf.memory_usage_mb) == (10, 5, 1234)
    assert last.perf.prefill_time_ms >= 20
    assert last.perf.generate_time_ms >= 5


# --- limits and sampling ---


@every_release
def test_the_cap_of_the_load_ends_the_answer(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder), max_new_tokens=4)
    outcome = model.run([1, 2, 3])
    assert outcome.ids == hash_answer([1, 2, 3])[:4]
    assert outcome.states[-1] == "finish"
    assert bench.last_run()["end"] == "cap"
    assert model.run([1, 2, 3]).ids == outcome.ids


def test_a_cap_of_one_run_wins_over_that_of_the_load(bench: Bench) -> None:
    model = bench.load("1.3.0", hash_model(bench.folder), max_new_tokens=6)
    assert [len(model.run([1], max_new_tokens=cap).ids) for cap in (2, 7, 0, -1)] == [2, 7, 6, 6]


def test_sampling_of_load_and_run_is_in_the_call_log(bench: Bench) -> None:
    model = bench.load("1.3.0", hash_model(bench.folder), top_k=7, temperature=0.5)
    sampling = bench.calls("rkllm_init")[0]["sampling"]
    assert (sampling["top_k"], sampling["temperature"], sampling["top_p"], sampling["mirostat_eta"]) == (
        7,
        0.5,
        0.9,
        0.1,
    )
    model.run([1], sampling_params=model.types.SamplingParam(top_k=3, top_p=0.25, temperature=float("nan"), mirostat=2))
    model.run([1])
    first, second = bench.calls("rkllm_run", "enter")
    assert (first["sampling"]["top_k"], first["sampling"]["top_p"], first["sampling"]["mirostat"]) == (3, 0.25, 2)
    assert first["sampling"]["temperature"] is None
    assert second["sampling"] is None


@every_release
def test_special_tokens_come_only_if_wanted(abi: str, bench: Bench) -> None:
    path = script_model(bench.folder, f"token {SPECIAL}", 'text "yes"', f"token {NOTHING}", "pad 1")
    plain = bench.load(abi, path).run([1])
    assert plain.text == f"<|user|>yes[PAD{NOTHING}][PAD{PAD}]"
    assert bench.last_run()["generated"] == 6
    skipped = bench.load(abi, path, skip_special_token=True).run([1])
    assert skipped.text == f"yes[PAD{NOTHING}][PAD{PAD}]"
    assert bench.last_run()["generated"] == 6


def test_an_ignored_eos_is_one_more_token(bench: Bench) -> None:
    model = bench.load("1.3.0", hash_model(bench.folder, "answer 3 3"), ignore_eos_token=True, max_new_tokens=9)
    ids = model.run([1]).ids
    assert len(ids) == 9
    assert ids[3] == EOS
    assert ids[:3] == hash_answer([1], shortest=3, longest=3)
    assert EOS not in ids[4:]


# --- hidden states and logits ---


@every_release
def test_hidden_states_of_the_prefilled_positions(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder, "embd 16"))
    outcome = model.run([1, 2, 3], mode=1)
    expected = {"1.1.4": ["get_last_hidden_layer"], "1.2.1b1": ["normal", "normal"]}.get(abi, ["normal"])
    assert outcome.states == [*expected, "finish"]
    rows = outcome.calls[-2].hidden
    assert [len(row) for row in rows] == [16] * 3
    assert all(-1 <= value <= 1 for row in rows for value in row)
    assert len({tuple(row) for row in rows}) == 3
    again = model.run([1, 2, 3, 4], mode=1).calls[-2].hidden
    assert len(again) == (4 if abi == "1.1.4" else 1)
    if abi == "1.1.4":
        assert again[:3] == rows
    assert model.run([1, 2, 9, 4], mode=1).calls[-2].hidden[-1] != again[-1]


@releases(*SUPPORTED[1:])
def test_logits_without_finish(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder))
    outcome = model.run([1, 2, 3], mode=2)
    assert (outcome.ret, outcome.states) == (0, ["normal"])
    rows = outcome.calls[0].logits
    assert [len(row) for row in rows] == [324] * 3
    last = rows[-1]
    assert max(range(len(last)), key=last.__getitem__) == hash_answer([1, 2, 3])[0]
    assert model.run([1, 2, 3]).ids == hash_answer([1, 2, 3])


@pytest.mark.parametrize(("abi", "mode"), [pytest.param("1.1.4", 2, marks=pytest.mark.slow), ("1.3.0", 3)])
def test_an_unknown_mode_is_refused(abi: str, mode: int, bench: Bench) -> None:
    outcome = bench.load(abi, hash_model(bench.folder)).run([1], mode=mode)
    assert (outcome.ret, outcome.calls) == (-1, [])
    assert bench.calls("rkllm_run")[-1]["event"] == "refused"


@releases("1.2.3", "1.3.0")
def test_a_callback_that_returns_two_goes_on(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder))
    assert model.run([1], answer=lambda call: 2).ids == hash_answer([1])


# --- what is refused ---


@every_release
def test_a_prompt_as_long_as_the_context_is_an_error(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder), max_context_len=32)
    outcome = model.run(list(range(32)))
    assert (outcome.ret, outcome.states) == (-1, ["error"])
    line = bench.last_run()
    assert (line["end"], line["prefilled"], line["generated"], line["t_first"]) == ("context", 0, 0, None)
    assert model.run(list(range(31))).ret == 0


@every_release
def test_arguments_that_make_no_sense_are_refused(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder))
    made, infer = model.input([1]), model.infer()
    assert model.call("run", None, ctypes.byref(infer), None) == -1
    assert model.call("run", ctypes.byref(made), None, None) == -1
    assert model.run([]).ret == -1
    assert model.run([-1]).ret == -1
    made.input_type = 9
    assert model.call("run", ctypes.byref(made), ctypes.byref(infer), None) == -1
    empty = model.types.Input()
    for kind in range(4):
        empty.input_type = kind
        assert model.call("run", ctypes.byref(empty), ctypes.byref(infer), None) == -1
    assert model.calls == []
    assert {line["event"] for line in bench.calls("rkllm_run")} == {"refused"}


def test_a_handle_that_is_none_is_refused_everywhere(bench: Bench) -> None:
    model = bench.load("1.3.0", hash_model(bench.folder))
    good = model.handle
    for wrong in (None, 4096):
        model.handle = ctypes.c_void_p(wrong)
        names = set(model.types.layout.functions) - {"rkllm_createDefaultParam", "rkllm_init", "rkllm_is_running"}
        for name in names:
            assert model.call(name.removeprefix("rkllm_"), None, None, None) == -1
        assert model.call("is_running") == 0
    model.handle = good
    assert model.run([1]).ret == 0


def test_a_model_is_destroyed_once(bench: Bench) -> None:
    model = bench.load("1.3.0", hash_model(bench.folder))
    assert (model.destroy(), model.destroy()) == (0, -1)
    bench.loaded.clear()


# --- LoRA and cross attention ---


def lora(model: sim_ctypes.Model, path: Path | None, name: str | None) -> int:
    one = model.types.LoraAdapter(str(path).encode() if path else None, name.encode() if name else None, 1.0)
    return model.call("load_lora", ctypes.byref(one))


@every_release
def test_adapters_go_by_name(abi: str, bench: Bench) -> None:
    path = hash_model(bench.folder)
    model = bench.load(abi, path)
    assert lora(model, path, "one") == 0
    assert lora(model, path, "one") == -1
    assert lora(model, bench.folder / "missing", "two") == -1
    assert lora(model, path, "two") == 0
    assert lora(model, path, None) == -1
    assert model.run([1], lora_params=model.types.LoraParam(b"two")).ret == 0
    assert bench.calls("rkllm_run", "enter")[0]["lora"] == "two"
    assert model.run([1], lora_params=model.types.LoraParam(b"three")).ret == -1


@releases(*WITH_PERF)
def test_cross_attention_has_to_be_switched_on(abi: str, bench: Bench) -> None:
    floats = (ctypes.c_float * 4)()
    for switched in (0, 1):
        model = bench.load(abi, hash_model(bench.folder), use_cross_attn=switched)
        place = ctypes.cast(floats, ctypes.c_void_p)
        params = model.types.CrossAttnParam(place, place, place, place, 1)
        assert model.call("set_cross_attn_params", ctypes.byref(params)) == switched - 1
        assert model.call("set_cross_attn_params", None) == -1


# --- several models, userdata ---


def test_several_models_in_one_process(bench: Bench) -> None:
    path = hash_model(bench.folder)
    models = [bench.load("1.3.0", path) for _ in range(4)]
    threads = [threading.Thread(target=model.run, args=([number + 1],)) for number, model in enumerate(models)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, model in enumerate(models):
        assert [call.token for call in model.calls[:-1]] == hash_answer([number + 1])
    assert len({line["handle"] for line in bench.calls("rkllm_run", "enter")}) == 4


def test_userdata_of_the_load_counts_where_the_run_has_none(bench: Bench) -> None:
    model = bench.load("1.3.0", hash_model(bench.folder))
    seen: list[int | None] = []

    def called(result: int, userdata: int | None, state: int) -> int:
        seen.append(userdata)
        return 0

    callback = model.types.callback(called)
    struct = model.types.Callback(result_callback=ctypes.cast(callback, ctypes.c_void_p), result_userdata=111)
    handle = ctypes.c_void_p()
    assert model.lib.rkllm_init(ctypes.byref(handle), ctypes.byref(model.param), ctypes.byref(struct)) == 0
    made, infer = model.input([1]), model.infer()
    for userdata in (None, 222):
        model.lib.rkllm_run(handle, ctypes.byref(made), ctypes.byref(infer), ctypes.c_void_p(userdata))
    model.lib.rkllm_destroy(handle)
    assert set(seen) == {111, 222}


def test_every_call_is_logged_with_time_and_place(bench: Bench) -> None:
    model = bench.load("1.3.0", hash_model(bench.folder, name='odd "nameé.rkllm'))
    model.run([1])
    lines = bench.calls()
    assert [line["call"] for line in lines] == ["rkllm_createDefaultParam", "rkllm_init", "rkllm_run", "rkllm_run"]
    assert all({"t", "pid", "tid", "call"} <= line.keys() for line in lines)
    assert lines[1]["model_path"].endswith('odd "nameé.rkllm')
    assert all("ret" in line for line in lines if line.get("event") != "enter")
    back = lines[-1]
    assert lines[2]["t"] >= lines[1]["t"]
    assert back["t_enter"] <= back["t_first"] <= back["t"]
