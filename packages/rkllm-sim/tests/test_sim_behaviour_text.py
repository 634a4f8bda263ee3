"""Text prompts of the simulated library: templates, tools, and how text is cut into tokens."""

from __future__ import annotations

import pytest
import sim_ctypes
from sim_ctypes import Bench, every_release
from sim_models import ACCENTED, EOS, FIRST_WORD, SPECIAL, hash_answer, hash_model, text_of

libraries, bench = sim_ctypes.libraries, sim_ctypes.bench

TEMPLATE = ['system "<|user|>be kind"', 'prefix "<|user|>"', 'postfix "<|end|>"']


def logged_text(bench: Bench) -> str:
    return text_of(*bench.calls("rkllm_run", "enter")[-1]["tokens"])


@every_release
def test_text_goes_through_the_models_template_and_tokens_do_not(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder, *TEMPLATE))
    outcome = model.run("hé w1")
    assert logged_text(bench) == "<|user|>be kind<|user|>hé w1<|end|>"
    ids = bench.calls("rkllm_run", "enter")[-1]["tokens"]
    assert ids[0] == SPECIAL
    assert ids[-2:] == [FIRST_WORD + 1, EOS]
    assert outcome.ids == hash_answer(ids)
    assert model.run(ids).ids == outcome.ids
    line = bench.calls("rkllm_run", "enter")[0]
    assert (line["input"], line["text"], line["n_tokens"]) == ("prompt", "hé w1", len(ids))


def test_text_is_cut_into_the_longest_tokens(bench: Bench) -> None:
    bench.load("1.3.0", hash_model(bench.folder)).run(" w1 w12 w é")
    tokens = bench.calls("rkllm_run", "enter")[0]["tokens"]
    assert tokens == [FIRST_WORD + 1, FIRST_WORD + 12, 32, ord("w"), ACCENTED]


def test_a_template_can_be_replaced_and_switched_off(bench: Bench) -> None:
    model = bench.load("1.3.0", hash_model(bench.folder, *TEMPLATE))
    model.run("x")
    assert model.cache_size() > 0
    assert model.call("set_chat_template", b"S", b"<", b">") == 0
    assert model.cache_size() == 0
    model.run("x")
    assert logged_text(bench) == "S<x>"
    assert model.call("set_chat_template", b"", b"", b"") == 0
    model.run("x")
    assert logged_text(bench) == "x"


def test_tools_stand_in_the_system_prompt_of_the_models_template(bench: Bench) -> None:
    model = bench.load("1.3.0", hash_model(bench.folder, *TEMPLATE))
    assert model.call("set_function_tools", b"use tools", b"[1]", b"tool_response") == 0
    model.run("x")
    assert logged_text(bench) == "use tools\n[1]\n<|user|>x<|end|>"
    model.run("4", role=b"tool")
    assert logged_text(bench).endswith("<|user|><tool_response>\n4\n</tool_response><|end|>")


def test_tools_need_the_models_template(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    model = bench.load("1.2.3", hash_model(bench.folder, *TEMPLATE))
    model.call("set_chat_template", b"", b"", b"")
    assert model.call("set_function_tools", b"a", b"[]", b"b") == -1
    model.call("set_chat_template", b"S", b"", b"")
    assert model.call("set_function_tools", b"a", b"[]", b"b") == 0
    model.run("x")
    assert logged_text(bench) == "Sx"
    assert "tools are not inserted" in capfd.readouterr().out


def test_a_byte_without_a_token_is_refused(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    text = hash_model(bench.folder).read_text(encoding="utf-8").replace("\n7a\n", "\n-\n")
    (bench.folder / "no_z.rkllm").write_text(text, encoding="utf-8")
    assert bench.load("1.3.0", bench.folder / "no_z.rkllm").run("az").ret == -1
    assert "no token for the byte 0x7a" in capfd.readouterr().out
