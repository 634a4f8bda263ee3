"""Which models each release of the toolkit converts: config.json files of real models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from converter_configs import CONFIGS, ROOMY, config, model
from converter_gguf import write_gguf

from rkllm_converter.options import Options
from rkllm_converter.preflight import Preflight, preflight
from rkllm_converter.source import Source, look
from rkllm_converter.toolkit.versions import TOOLKITS, toolkit

YES, NEWER = ("yes", "yes"), ("came with the toolkit 1.3.0", "yes")


def no(words: str) -> tuple[str, str]:
    return words, words


# By file: what 1.2.3 says, and what 1.3.0 says; "yes", or words of the reason.
ANSWERS = {
    "qwen2.5-1.5b-instruct": YES,
    "deepseek-r1-distill-qwen-1.5b": YES,
    "llama-3.2-1b-instruct": YES,
    "phi-3-mini-4k-instruct": YES,
    "gemma-2-2b-it": YES,
    "gemma-3-1b-it": YES,
    "internlm2-chat-1_8b": YES,
    "minicpm4-0.5b": YES,
    "rwkv7-goose-world3-1.5b": YES,
    "telechat2-3b": YES,
    "qwen3-0.6b": YES,
    "chatglm3-6b": YES,
    "qwen2-vl-2b-instruct": YES,
    "qwen3.5-0.8b": NEWER,
    "gemma-4-e2b-it": NEWER,
    "smollm3-3b": NEWER,
    "mistral-7b-instruct-v0.3": no("'mistral'"),
    "mixtral-8x7b-instruct-v0.1": no("mixture of 8 experts"),
    "qwen3-30b-a3b": no("mixture of 128 experts"),
    "phi-3.5-moe-instruct": no("mixture of 16 experts"),
    "mamba-130m-hf": no("state in place of attention"),
    "gpt2": no("LayerNorm"),
    "deepseek-v3": no("mixture of 256 experts"),
    "gpt-oss-20b": no("mixture of 32 experts"),
    "bert-base-uncased": no("encoder"),
    "t5-small": no("encoder"),
    "glm-4-9b-chat": no("GLM-4"),
}


def judged(source: Source, version: str = "1.3.0", quant: str = "w8a8", **more: Any) -> Preflight:
    options = Options(platform="rk3588", quant=quant)
    return preflight(source, options, toolkit(version), output=Path("/out"), ram_mb=16384.0, machine=ROOMY, **more)


def test_every_stored_config_has_its_answer() -> None:
    assert {path.stem for path in CONFIGS.glob("*.json")} == {*ANSWERS}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("number", range(len(TOOLKITS)))
def test_the_answer_of_each_release(name: str, number: int) -> None:
    expected = ANSWERS[name][number]
    found = judged(model(config(name)), TOOLKITS[number].version)
    assert found.is_supported is (expected == "yes")
    if expected == "yes":
        assert found.problems == {}
        assert found.label in TOOLKITS[number].families.values()
    else:
        assert [*found.problems] == ["architecture"]
        assert expected in found.problems["architecture"]


@pytest.mark.parametrize("name", [name for name, answer in ANSWERS.items() if answer == NEWER])
def test_a_family_of_a_newer_release_names_that_release(name: str) -> None:
    said = judged(model(config(name)), "1.2.3").problems["architecture"]
    assert "Install 1.3.0" in said


def test_a_refusal_lists_what_is_converted() -> None:
    said = judged(model(config("mistral-7b-instruct-v0.3"))).problems["architecture"]
    assert all(label in said for label in toolkit("1.3.0").families.values())
    assert "--custom-config" in said
    assert "--custom-config" not in judged(model(config("bert-base-uncased"))).problems["architecture"]


def test_the_family_of_a_nested_part_is_that_of_the_model() -> None:
    nested = {"model_type": "gemma3", "text_config": {**config("gemma-3-1b-it"), "model_type": "gemma3_text"}}
    assert judged(model(nested)).family == "gemma3"
    assert judged(model(nested)).is_supported
    assert judged(model(config("gemma-3-1b-it"))).family == "gemma3"
    other = {"model_type": "llava", "text_config": config("llama-3.2-1b-instruct")}
    assert "'llava'" in judged(model(other)).problems["architecture"]


def test_a_mixture_is_refused_whatever_its_family_is_called() -> None:
    of = config("minicpm4-0.5b", num_experts=8, num_experts_per_tok=2)
    assert "mixture of 8 experts" in judged(model(of)).problems["architecture"]
    ocr = {"model_type": "deepseek_vl_v2", "language_config": {"n_routed_experts": 64}}
    assert judged(model(ocr)).is_supported


def test_another_glm_is_not_chatglm3() -> None:
    assert "130528 tokens" in judged(model(config("chatglm3-6b", padded_vocab_size=130528))).problems["architecture"]


@pytest.mark.parametrize("of", [{}, {"model_type": None}, {"hidden_size": 64}])
def test_a_config_without_a_family(of: dict[str, Any]) -> None:
    assert "no model_type" in judged(model(of)).problems["architecture"]


def test_a_custom_config_is_the_users_word() -> None:
    source = model(config("mistral-7b-instruct-v0.3"))
    found = judged(source, has_custom_config=True)
    assert found.problems == {}
    assert not found.is_supported
    assert any("as --custom-config says" in note for note in found.notes)
    quantised = model(config("mistral-7b-instruct-v0.3", quantization_config={"quant_method": "awq"}))
    assert "awq" in judged(quantised, has_custom_config=True).problems["architecture"]


def test_rwkv7_needs_python_3_12() -> None:
    source = model(config("rwkv7-goose-world3-1.5b"))
    assert any("Python 3.12" in note for note in judged(source).notes)
    assert "Python 3.12" in judged(source, python_version=(3, 10)).problems["architecture"]
    assert judged(source, python_version=(3, 10), has_custom_config=True).problems
    assert judged(source, python_version=(3, 12)).problems == {}
    assert not any("Python" in note for note in judged(source, python_version=(3, 12)).notes)
    assert judged(model(config("qwen3-0.6b")), python_version=(3, 10)).problems == {}


def test_what_sees_is_converted_in_part() -> None:
    assert any(".rknn" in note for note in judged(model(config("qwen2-vl-2b-instruct"))).notes)
    assert not any(".rknn" in note for note in judged(model(config("qwen3-0.6b"))).notes)


def test_a_classifier_is_noticed() -> None:
    of = config("qwen3-0.6b", architectures=["Qwen3ForSequenceClassification"])
    assert any("Qwen3ForSequenceClassification" in note for note in judged(model(of)).notes)
    for name in ANSWERS:
        assert not any("was published as" in note for note in judged(model(config(name))).notes)


@pytest.mark.parametrize(
    ("pairs", "answer"),
    [
        ({}, YES),
        ({"general__architecture": "phi2"}, YES),
        ({"general__architecture": "qwen2vl"}, YES),
        ({"general__architecture": "qwen35"}, NEWER),
        ({"general__architecture": "qwen"}, YES),
        ({"general__architecture": "gemma"}, YES),
        ({"general__architecture": "glm4"}, no("MiniCPM, ")),
        ({"general__architecture": "qwen3moe", "qwen3moe__expert_count": 128}, no("mixture of 128")),
        ({"llama__expert_count": 8}, no("mixture of 8")),
        ({"general__architecture": "nomic-bert"}, no("encoder")),
        ({"general__architecture": None}, no("no model_type")),
    ],
)
def test_gguf_files(tmp_path: Path, pairs: dict[str, Any], answer: tuple[str, str]) -> None:
    source = look(str(write_gguf(tmp_path / "m.gguf", **pairs)))
    for one, expected in zip(TOOLKITS, answer):
        found = judged(source, one.version)
        assert found.is_supported is (expected == "yes")
        assert expected == "yes" or expected in found.problems["architecture"]


@pytest.mark.parametrize(
    ("family", "label"),
    [("qwen2vl", "Qwen2-VL"), ("gemma3n", "Gemma 3n"), ("qwen35", "Qwen3.5"), ("qwen3", ""), ("gemma", "")],
)
def test_families_of_which_no_gguf_file_is_known_to_be_taken(tmp_path: Path, family: str, label: str) -> None:
    found = judged(look(str(write_gguf(tmp_path / "m.gguf", general__architecture=family))))
    assert found.is_supported
    notes = " ".join(found.notes)
    assert f"takes {label} from a GGUF file; 1.2.2 did not" in notes if label else "from a GGUF file" not in notes


def test_what_only_gguf_files_may_be_of(tmp_path: Path) -> None:
    assert "first Gemma" in judged(model({"model_type": "gemma"})).problems["architecture"]
    refused = judged(look(str(write_gguf(tmp_path / "m.gguf", general__architecture="olmo"))))
    assert "RWKV7" not in refused.problems["architecture"]
    assert "from a GGUF file" not in " ".join(judged(model(config("qwen3.5-0.8b"))).notes)


@pytest.mark.parametrize("named", ["DeepseekVLV2ForCausalLM", "DeepseekOCR2ForCausalLM"])
def test_another_model_of_the_type_of_deepseek_ocr(named: str) -> None:
    of = {"model_type": "deepseek_vl_v2", "language_config": {"n_routed_experts": 64}}
    assert f"It is {named}" in judged(model({**of, "architectures": [named]})).problems["architecture"]
    assert judged(model({**of, "architectures": ["DeepseekOCRForCausalLM"]})).is_supported


def test_a_gguf_file_that_is_understood_is_planned(tmp_path: Path) -> None:
    found = judged(look(str(write_gguf(tmp_path / "m.gguf"))))
    assert found.board is not None
    assert found.parameters == 160_128
    unknown = judged(look(str(write_gguf(tmp_path / "p.gguf", general__architecture="phi2"))))
    assert unknown.board is None
    assert unknown.parameters == 160_128
    assert any("What to expect on the board is not known" in note for note in unknown.notes)
