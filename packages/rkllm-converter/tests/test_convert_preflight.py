"""Weights, groups, memory, disk and the board; each with the machine that is told of."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from converter_configs import ROOMY, config, machine, model
from converter_gguf import write_gguf

from rkllm_converter.errors import PreflightFailed
from rkllm_converter.options import Options
from rkllm_converter.preflight import KINDS, Disk, Machine, Preflight, preflight, refuse
from rkllm_converter.source import Source, look
from rkllm_converter.toolkit.versions import toolkit
from rkllm_facts.architecture import known_model
from rkllm_facts.chips import chip

SMALL = "qwen2.5-1.5b-instruct"
MB = 1 << 20


def judged(
    source: Source,
    platform: str = "rk3588",
    quant: str = "w8a8",
    *,
    here: Machine = ROOMY,
    ram: float = 8192,
    **more: Any,
) -> Preflight:
    options = Options(platform=platform, quant=quant, **more)
    return preflight(source, options, toolkit("1.3.0"), output=Path("/out/m"), ram_mb=ram, machine=here)


def gptq(bits: int = 4, group_size: int = 128, **more: Any) -> Source:
    settings = {"quant_method": "gptq", "bits": bits, "group_size": group_size, "sym": True, "desc_act": False, **more}
    return model(config(SMALL, quantization_config=settings))


@pytest.mark.parametrize(
    ("platform", "quant", "bits", "groups"),
    [
        ("rk3576", "w4a16_g32", 4, 32),
        ("rk3576", "w4a16_g64", 4, 64),
        ("rk3576", "w4a16_g128", 4, 128),
        ("rk3588", "w8a8_g128", 8, 128),
        ("rk3588", "w8a8_g256", 8, 256),
    ],
)
def test_gptq_that_is_taken_over(platform: str, quant: str, bits: int, groups: int) -> None:
    assert judged(gptq(bits, groups), platform, quant).problems == {}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"group_size": 256}, "4 bits in groups of 256"),
        ({"group_size": -1}, "groups of -1"),
        ({"bits": 3}, "3 bits"),
        ({"bits": 8, "group_size": 32}, "8 bits in groups of 32"),
        ({"bits": None}, "None bits"),
        ({"sym": False}, "not symmetric"),
        ({"desc_act": True}, "with desc_act"),
    ],
)
def test_gptq_that_is_not_taken(changed: dict[str, Any], says: str) -> None:
    found = judged(gptq(**changed), "rk3576", "w4a16_g128")
    assert says in found.problems["architecture"]
    assert not found.is_supported


def test_gptq_of_another_type_says_which_to_take() -> None:
    assert "Take --quant w4a16_g64" in judged(gptq(4, 64), "rk3576", "w4a16_g128").problems["architecture"]
    said = judged(gptq(4, 64), "rk3588", "w8a8").problems["architecture"]
    assert "RK3588 does not run" in said
    assert "rk3576, rk3562" in said
    assert "--quant" not in said


@pytest.mark.parametrize("method", ["awq", "bitsandbytes", "fp8", "mxfp4", "compressed-tensors"])
def test_other_quantised_weights(method: str) -> None:
    source = model(config(SMALL, quantization_config={"quant_method": method}))
    assert f"({method})" in judged(source).problems["architecture"]
    nested = model({"model_type": "gemma3", "text_config": dict(source.config)})
    assert f"({method})" in judged(nested).problems["architecture"]


def test_quantised_weights_of_no_name() -> None:
    assert "not named" in judged(model(config(SMALL, quantization={"bits": 4}))).problems["architecture"]


@pytest.mark.parametrize(
    ("name", "quant", "odd"),
    [
        (SMALL, "w8a8_g512", " divide gate_proj, up_proj (8960 outputs). On "),
        ("gemma-3-1b-it", "w8a8_g256", "o_proj, down_proj (1152 outputs)"),
        (
            "gemma-3-1b-it",
            "w8a8_g512",
            "divide o_proj, down_proj (1152 outputs); gate_proj, up_proj (6912 outputs).",
        ),
    ],
)
def test_groups_that_do_not_divide(name: str, quant: str, odd: str) -> None:
    said = judged(model(config(name)), "rk3588", quant).problems["groups"]
    assert odd in said
    offered = said.rpartition("these types would: ")[2].rstrip(".").split(", ")
    assert offered
    for one in chip("rk3588").types:
        assert (one in offered) is ("groups" not in judged(model(config(name)), "rk3588", one).problems)
    assert not any("do not divide" in note for note in judged(model(config(name)), "rk3588", quant).notes)


@pytest.mark.parametrize(
    ("name", "platform"),
    [
        ("phi-3-mini-4k-instruct", "rk3576"),
        ("minicpm4-0.5b", "rv1126b"),
        ("qwen3-0.6b", "rv1126b"),
        ("qwen3.5-0.8b", "rv1126b"),
        ("internlm2-chat-1_8b", "rk3576"),
        ("gemma-2-2b-it", "rk3576"),
        ("telechat2-3b", "rk3576"),
    ],
)
def test_what_rockchip_has_measured_is_not_refused(name: str, platform: str) -> None:
    assert judged(model(config(name)), platform, "w4a16_g128").problems == {}


def test_queries_keys_and_values_are_divided_together() -> None:
    tiny = config("llama-3.2-1b-instruct", num_key_value_heads=4, intermediate_size=5632, head_dim=64)
    assert judged(model(tiny), quant="w8a8_g512").problems == {}
    odd = judged(model({**tiny, "num_key_value_heads": 5}), quant="w8a8_g512").problems["groups"]
    assert "divide q_proj + k_proj + v_proj (2688 outputs). On" in odd


def test_layers_without_keys_of_their_own_have_queries_alone() -> None:
    known = config("gemma-4-e2b-it")
    odd_heads = {**known, "text_config": {**known["text_config"], "num_attention_heads": 9}}
    assert judged(model(odd_heads), quant="w8a8_g256").problems == {}
    said = judged(model(odd_heads), quant="w8a8_g512").problems["groups"]
    assert "divide q_proj + k_proj + v_proj (5632" not in said  # 11 x 512
    assert "q_proj (2304 outputs)" in said


def test_gemma_3n_is_refused_with_groups_as_reported() -> None:
    for of in ({"model_type": "gemma3n"}, {"model_type": "gemma3n", "text_config": config("gemma-3-1b-it")}):
        for quant in ("w4a16_g32", "w4a16_g128"):
            said = judged(model(of), "rk3576", quant).problems["groups"]
            assert "issue 398 of airockchip/rknn-llm" in said
            assert said.endswith("these types have none: w4a16, w8a8.")
        assert judged(model(of), "rk3576", "w4a16").problems == {}


def test_gptq_that_is_described_beside_the_config(tmp_path: Path) -> None:
    settings = {"bits": 4, "group_size": 128, "sym": True, "desc_act": True}
    (tmp_path / "quantize_config.json").write_text(json.dumps(settings), encoding="utf-8")
    plain = model(config(SMALL), path=tmp_path, files={"model.safetensors": 1 << 40})
    assert "with desc_act" in judged(plain, "rk3576", "w4a16_g128").problems["architecture"]
    assert judged(plain, "rk3576", "w4a16_g128").parameters == 1_543_714_304
    both = model({**gptq().config}, path=tmp_path)
    assert judged(both, "rk3576", "w4a16_g128").problems == {}
    (tmp_path / "quantize_config.json").write_text("{", encoding="utf-8")
    assert "architecture" not in judged(plain).problems


def test_a_repository_that_may_be_quantised_is_noticed() -> None:
    def notes(of: Source) -> str:
        return " ".join(judged(of, "rk3576", "w4a16_g128").notes)

    files = {"config.json": 1, "quantize_config.json": 1}
    assert "may be quantised" in notes(model(config(SMALL), kind="hub", files=files))
    assert "may be quantised" not in notes(model(gptq().config, kind="hub", files=files))
    assert "may be quantised" not in notes(model(config(SMALL), kind="hub"))


def test_memory_is_that_of_the_loaded_weights_and_the_result() -> None:
    found = judged(model(config(SMALL)))
    assert found.board is not None
    assert found.parameters == 1_543_714_304
    assert found.memory_mb == pytest.approx(1_543_714_304 * 4 / MB + found.board.file_mb + 2048)
    halved = judged(model(config(SMALL)), dtype="bfloat16").memory_mb
    assert halved == pytest.approx(1_543_714_304 * 2 / MB + found.board.file_mb + 2048)
    assert judged(model(config(SMALL)), dtype="float16").memory_mb == found.memory_mb
    on_gpu = judged(model(config(SMALL)), device="cuda")
    assert on_gpu.memory_mb == pytest.approx(found.board.file_mb + 2048)
    assert any("memory of the GPU" in note for note in on_gpu.notes)


def test_weights_beside_the_text_are_loaded_too() -> None:
    stored = 3 << 30
    more = judged(model(config(SMALL), files={"model.safetensors": stored})).memory_mb
    alone = judged(model(config(SMALL))).memory_mb
    assert more is not None
    assert alone is not None
    assert more - alone == pytest.approx((stored // 2 - 1_543_714_304) * 4 / MB)


def test_too_little_memory() -> None:
    needed = judged(model(config(SMALL))).memory_mb
    assert needed is not None
    assert judged(model(config(SMALL)), here=machine(needed)).problems == {}
    said = judged(model(config(SMALL)), here=machine(needed - 1)).problems
    assert [*said] == ["memory"]
    assert "bfloat16" in said["memory"]
    assert "bfloat16" not in judged(model(config(SMALL)), here=machine(100)).problems["memory"]


def test_a_gguf_file_is_not_offered_another_dtype(tmp_path: Path) -> None:
    source = look(str(write_gguf(tmp_path / "m.gguf")))
    needed = judged(source).memory_mb
    assert needed is not None
    said = judged(source, here=machine(needed - 0.1)).problems["memory"]
    assert "bfloat16" not in said


def far(download: int, disks: dict[str, Disk]) -> Preflight:
    source = model(config(SMALL), kind="hub", to_download=download, cache=Path("/cache/hub"))
    return judged(source, here=machine(disks=disks))


def test_disk_for_download_and_result_adds_up_on_one() -> None:
    found = far(4096 * MB, {})
    assert found.board is not None
    assert found.disk_mb == pytest.approx(found.board.file_mb * 1.05 + 1024 + 4096)
    assert found.download_mb == 4096
    assert far(0, {}).disk_mb == pytest.approx(found.disk_mb - 4096)
    one = Disk(7, found.disk_mb - 1)
    said = far(4096 * MB, {"out": one, "cache": one}).problems
    assert [*said] == ["disk"]
    assert "4.0 GB to download" in said["disk"]


def test_two_disks_are_judged_by_themselves() -> None:
    enough = {"out": Disk(1, 3500), "cache": Disk(2, 4096)}
    assert far(4096 * MB, enough).problems == {}
    cache = far(4096 * MB, {**enough, "cache": Disk(2, 4095)})
    assert "/cache/hub" in cache.problems["disk"]
    assert (cache.disk_mb, cache.disk_there_mb) == (4096, 4095)
    output = far(4096 * MB, {**enough, "out": Disk(1, 1000)}).problems["disk"]
    assert "/out/m" in output
    assert "download" not in output


def test_the_disk_of_the_toolkit_holds_the_weights_while_it_quantises() -> None:
    def with_free(free: float, quant: str = "w8a8") -> Preflight:
        here = machine(disks={"venv": Disk(9, free)})
        return judged(model(config(SMALL)), quant=quant, here=dataclasses.replace(here, toolkit=Path("/venv/bin")))

    needed = 1_543_714_304 * 4 / MB
    assert with_free(needed).problems == {}
    short = with_free(needed - 1)
    assert "/venv/bin" in short.problems["disk"]
    assert short.disk_mb == pytest.approx(needed)
    assert with_free(needed - 1, quant="none").problems == {}


def test_a_model_that_rkllama_would_refuse_by_its_margin() -> None:
    known = dict(known_model("Qwen2.5-7B-Instruct").config)
    large = judged(model(known))
    assert large.board is not None
    assert large.board.fits is True
    assert large.as_json()["board"]["margin_fits"] is False
    assert any("It fits the board by a hair: rkllama asks for 7.5 GB" in note for note in large.notes)
    assert "of 8.0 GB (--ram; only just: rkllama refuses it)" in told(large)
    roomy = judged(model(known), ram=16384)
    assert roomy.as_json()["board"]["margin_fits"] is True
    assert not any("by a hair" in note for note in roomy.notes)
    assert "(--ram; fits)" in told(roomy)


def test_what_is_told_of_a_gguf_of_sixteen_bits(tmp_path: Path) -> None:
    source = look(str(write_gguf(tmp_path / "m.gguf")))
    assert source.gguf_type == "f16"
    assert any("refused to quantise a GGUF" in note for note in judged(source).notes)
    assert not any("refused to quantise a GGUF" in note for note in judged(source, quant="none").notes)


def test_what_to_expect_on_the_board() -> None:
    found = judged(model(config(SMALL)), max_context=2048)
    assert found.board is not None
    assert (found.board.platform, found.board.quant, found.board.context) == ("RK3588", "w8a8", 2048)
    assert found.board.fits is True
    assert found.notes == ()


def test_a_board_that_is_too_small_gets_remedies_and_no_problem() -> None:
    found = judged(model(config("phi-3-mini-4k-instruct")), ram=4096)
    assert found.problems == {}
    note = next(note for note in found.notes if "does not fit on the board" in note)
    assert "of 4.0 GB (--ram) the system leaves 3.6 GB" in note
    assert "a board with RK3588 and 8 GB" in note


@pytest.mark.parametrize(
    ("name", "context", "trained"),
    [
        ("phi-3-mini-4k-instruct", 4096, None),
        ("phi-3-mini-4k-instruct", 4128, 4096),
        ("chatglm3-6b", 16384, 8192),
        ("qwen3.5-0.8b", 16384, None),
    ],
)
def test_more_context_than_the_model_was_trained_for(name: str, context: int, trained: int | None) -> None:
    notes = " ".join(judged(model(config(name)), max_context=context).notes)
    assert ("was trained for" in notes) is (trained is not None)
    assert f"the {trained} tokens" in notes or trained is None


def test_the_part_for_text_comes_before_the_rest() -> None:
    text = config("phi-3-mini-4k-instruct")
    found = judged(
        model({"model_type": "phi3", "max_position_embeddings": 99999, "text_config": text}), max_context=8192
    )
    assert any("the 4096 tokens" in note for note in found.notes)


def test_the_shortest_context_can_be_planned() -> None:
    found = judged(model(config(SMALL)), max_context=32)
    assert found.board is not None
    assert found.board.context == 32


def test_without_quantisation_there_is_no_plan() -> None:
    found = judged(model(config(SMALL)), quant="none")
    assert found.problems == {}
    assert found.board is None
    assert found.memory_mb == pytest.approx(1_543_714_304 * 6 / MB + 2048)
    assert any("not quantised" in note for note in found.notes)


def test_a_model_of_which_nothing_is_known() -> None:
    found = judged(model({"model_type": "qwen2"}))
    assert (found.memory_mb, found.parameters, found.board) == (None, None, None)
    assert found.problems == {}
    assert any("'num_hidden_layers'" in note for note in found.notes)
    with_weights = judged(model({"model_type": "qwen2"}, files={"model.safetensors": 2000 * MB}))
    assert with_weights.parameters == 1000 * MB
    assert with_weights.memory_mb == 4000 + 1000 + 2048


def test_problems_are_refused_unless_they_are_ignored() -> None:
    found = judged(model(config("mistral-7b-instruct-v0.3")), here=machine(10))
    assert {*found.problems} == {"architecture", "memory"}
    with pytest.raises(PreflightFailed) as raised:
        refuse(found, {"memory"})
    assert raised.value.problems == (found.problems["architecture"],)
    refuse(found, {"memory", "architecture"})
    refuse(judged(model(config(SMALL))), ())


def told(found: Preflight) -> str:
    return " ".join(" ".join(found.lines()).split())


def test_lines_tell_what_was_found() -> None:
    source = model(config("mistral-7b-instruct-v0.3"), kind="hub", to_download=900 * MB, cache=Path("/cache/hub"))
    here = machine(10, disks={"out": Disk(1, 1e6), "cache": Disk(2, 800)})
    found = judged(source, here=here, ram=4096)
    text = told(found)
    for words in (
        "model: m: mistral, 7.25 billion parameters",
        "download: 0.9 GB",
        "this computer: memory: 35.9 GB ",
        "GB needed, 0.0 GB there disk of /cache/hub: 0.9 GB needed, 0.8 GB there",
        "board: RK3588 as w8a8",
        "of 4.0 GB (--ram; does not fit)",
        *(f"problem: {kind}: {sentence}" for kind, sentence in found.problems.items()),
        *(f"note: {note}" for note in found.notes),
    ):
        assert words in text
    assert {*found.problems} == {"architecture", "memory", "disk"} < {*KINDS}
    assert found.as_json()["disk_folder"] == "/cache/hub"


@pytest.mark.parametrize(("columns", "widest"), [(20, 60), (60, 60), (80, 80), (120, 120), (400, 120)])
def test_lines_fit_the_terminal_and_break_no_word(columns: int, widest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    found = judged(model(config("mistral-7b-instruct-v0.3")), here=machine(10), ram=4096)
    lines = found.lines()
    assert widest - 20 < max(map(len, lines)) <= widest
    assert lines == found.lines(columns)
    assert lines != found.lines(90)
    folder = Path("/out") / "long-name" / ("x" * 150)
    there = dataclasses.replace(found, disk_folder=folder).lines()
    assert any(str(folder) in line for line in there)


def test_small_models_have_millions() -> None:
    assert "m: Qwen3, 596 million parameters" in told(judged(model(config("qwen3-0.6b"))))


def test_lines_of_a_model_of_which_nothing_is_known() -> None:
    assert "need not known" in " ".join(judged(model({})).lines())


def test_as_json_is_json() -> None:
    found = judged(model(config("mistral-7b-instruct-v0.3")), ram=4096)
    read = json.loads(json.dumps(found.as_json()))
    assert read["board"]["fits"] is False
    assert read["problems"] == dict(found.problems)
    assert read["memory_mb"] == round(found.memory_mb or 0)
    assert json.loads(json.dumps(judged(model({})).as_json()))["board"] is None
