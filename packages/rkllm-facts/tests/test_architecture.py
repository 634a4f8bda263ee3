"""What models consist of: by config.json, by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rkllm_facts import benchmark
from rkllm_facts.architecture import Architecture, KnownModel, architecture_of, known_architecture, known_models
from rkllm_facts.architecture.known import known_model
from rkllm_facts.errors import FactsError, IncompleteConfig, UnknownModel

QWEN2 = {
    "model_type": "qwen2",
    "num_hidden_layers": 24,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}


def matrices(architecture: Architecture) -> dict[str, tuple[int, int, int, int]]:
    return {one.name: (one.outputs, one.inputs, one.copies, one.active) for one in architecture.matrices}


@pytest.mark.parametrize("known", [one for one in known_models() if one.parameters], ids=lambda one: one.repository)
def test_parameters_come_out_as_published(known: KnownModel) -> None:
    assert known.architecture.parameters == known.parameters


def test_at_least_twenty_counts_are_published() -> None:
    assert sum(one.parameters is not None for one in known_models()) >= 20


def test_a_plain_model() -> None:
    found = architecture_of(QWEN2)
    assert matrices(found) == {
        "q_proj": (896, 896, 24, 24),
        "k_proj": (128, 896, 24, 24),
        "v_proj": (128, 896, 24, 24),
        "o_proj": (896, 896, 24, 24),
        "gate_proj": (4864, 896, 24, 24),
        "up_proj": (4864, 896, 24, 24),
        "down_proj": (896, 4864, 24, 24),
        "output": (151936, 896, 1, 1),
    }
    assert (found.layers, found.heads, found.kv_heads, found.head_dim) == (24, 14, 2, 64)
    assert found.kv_values == 24 * 2 * 2 * 64
    assert found.mixing_values == 24 * (14 + 2 * 2) * 64
    assert found.score_values == 24 * 14 * 2 * 64
    assert found.multiplications == 24 * 7 + 1
    assert (found.state_values, found.is_mixture) == (0, False)


def test_a_tied_output_is_multiplied_but_counted_once() -> None:
    tied, apart = architecture_of(QWEN2), architecture_of({**QWEN2, "tie_word_embeddings": False})
    assert tied.weight_values == apart.weight_values == tied.active_values
    assert apart.parameters - tied.parameters == 151936 * 896 == tied.output_values


def test_the_part_for_text_counts_of_a_model_that_sees() -> None:
    inner = {key: value for key, value in QWEN2.items() if key != "model_type"}
    nested = {"model_type": "some_vl", "hidden_size": 7, "text_config": {**inner, "model_type": "qwen2_text"}}
    assert architecture_of(nested) == architecture_of(QWEN2)


def test_what_makers_leave_out_is_filled_in() -> None:
    """As in the config.json of Gemma 3 4B, whose text model has 3,880 million parameters."""
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34}
    found = architecture_of({"model_type": "gemma3", "text_config": text})
    assert (found.heads, found.kv_heads, found.head_dim, found.tied_embeddings) == (8, 4, 256, True)
    assert found.parameters == pytest.approx(3_880e6, rel=0.001)


def test_a_mixture_reads_only_the_chosen_experts() -> None:
    found = known_architecture("deepseek-ai/DeepSeek-OCR")
    assert found.is_mixture
    assert matrices(found)["experts.gate_proj"] == (896, 1280, 11 * 64, 11 * 6)
    assert found.active_values == pytest.approx(570e6, rel=0.01)  # as the paper says
    assert found.weight_values > 4 * found.active_values


def test_latent_attention_counts_expanded_keys_and_values() -> None:
    found = known_architecture("MiniCPM3-4B")
    assert matrices(found)["kv_b_proj"] == (40 * 128, 256, 62, 62)
    assert found.kv_values == 62 * 40 * (96 + 64)


def test_recurrent_layers_have_a_state_and_no_cache() -> None:
    hybrid, rwkv = known_architecture("Qwen3.5-0.8B"), known_architecture("RWKV7-1.5B")
    assert (hybrid.layers, hybrid.recurrent_layers) == (24, 18)
    assert hybrid.kv_values == 6 * 2 * 2 * 256
    assert matrices(hybrid)["q_proj"] == (2 * 8 * 256, 1024, 6, 6)  # with the gate of its output
    assert (rwkv.recurrent_layers, rwkv.kv_values) == (24, 0)
    assert rwkv.state_values == 24 * (32 * 64 * 64 + 2 * 2048)


def test_layers_that_share_keys_have_none_of_their_own() -> None:
    third, fourth = known_architecture("gemma-3n-E2B"), known_architecture("gemma-4-E2B")
    assert third.kv_values == 20 * 2 * 2 * 256
    assert third.per_layer_embedding_values == 262144 * 30 * 256
    assert fourth.kv_values == (12 * 256 + 3 * 512) * 2
    assert fourth.per_layer_embedding_values == 262144 * 35 * 256


@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size"])
def test_what_is_missing_is_named(key: str) -> None:
    config: dict[str, Any] = {name: value for name, value in QWEN2.items() if name != key}
    with pytest.raises(IncompleteConfig, match=key) as caught:
        architecture_of(config)
    assert isinstance(caught.value, FactsError)


@pytest.mark.parametrize("value", ["24", 24.5, -1, True, 1 << 40, {"a": 1}])
def test_what_is_no_number_is_named(value: object) -> None:
    with pytest.raises(IncompleteConfig, match="num_hidden_layers"):
        architecture_of({**QWEN2, "num_hidden_layers": value})


@pytest.mark.parametrize(
    ("key", "value"), [("num_hidden_layers", 1 << 20), ("num_kv_shared_layers", 25), ("first_k_dense_replace", 25)]
)
def test_more_than_there_can_be_is_named(key: str, value: int) -> None:
    mixture = {"num_experts": 4, "num_experts_per_tok": 2}
    with pytest.raises(IncompleteConfig, match=key):
        architecture_of({**QWEN2, **mixture, key: value})


@pytest.mark.parametrize(
    "name",
    [
        "Qwen/Qwen2.5-1.5B-Instruct",
        "Qwen2.5-1.5B-Instruct",
        "qwen2.5-1.5b",
        "qwen2.5:1.5b",
        "Qwen2.5-1.5B-Instruct-rk3588-w8a8-opt-0",
        "Qwen2.5-1.5B_W8A8_RK3588.rkllm",
        "qwen2.5-1.5b-w8a8_g128-rk3588-hybrid-ratio-0.5",
    ],
)
def test_a_model_is_known_by_many_names(name: str) -> None:
    assert known_model(name).repository == "Qwen/Qwen2.5-1.5B-Instruct"


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("Phi-3-mini", "microsoft/Phi-3-mini-4k-instruct"),
        ("DeepSeek-R1-1.5B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"),
        ("gemma2:2b", "google/gemma-2-2b-it"),
        ("llama3.2:1b", "meta-llama/Llama-3.2-1B-Instruct"),
        ("Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ("llama3.1:8b", "meta-llama/Llama-3.1-8B-Instruct"),
        ("gemma-3-1b", "google/gemma-3-1b-it"),
        ("internlm2_5-1_8b", "internlm/internlm2_5-1_8b-chat"),
        ("InternLM2.5:1.8B", "internlm/internlm2_5-1_8b-chat"),
    ],
)
def test_further_names(name: str, repository: str) -> None:
    assert known_model(name).repository == repository


@pytest.mark.parametrize(
    "name", ["Qwen2.5-14B", "Qwen2.5-15B", "Qwen2-57B", "gemma-31b", "Llama-3-21B", "nonsense", "", "w8a8", "Qwen2.5"]
)
def test_an_unknown_model_is_not_taken_for_another(name: str) -> None:
    with pytest.raises(UnknownModel, match=r"config\.json"):
        known_architecture(name)


def test_near_names_are_given() -> None:
    with pytest.raises(UnknownModel) as caught:
        known_architecture("Qwen2.5-8B")
    assert "Qwen/Qwen2.5-7B-Instruct" in caught.value.near


WEAK = {"openbmb/MiniCPM4-0.5B", "deepseek-ai/DeepSeek-OCR", "Qwen/Qwen2.5-VL-3B-Instruct"}
"""Nobody can look them up: docs/PLANNER.md names them."""


def test_every_source_is_a_file_that_can_be_found_or_said_to_be_weak() -> None:
    for model in known_models():
        found = re.search(r"[\w.-]+/[\w.-]+(?:/[\w.-]+)* |[\w.-]+ \(PyPI\), |litgpt|huggingface\.co ", model.source)
        assert (found and not model.source.startswith("WEAK: ")) or model.repository in WEAK, model.source
        assert "a public file" not in model.source
    page = (Path(__file__).parents[3] / "docs/PLANNER.md").read_text(encoding="utf-8")
    assert [name for name in sorted(WEAK) if name.partition("/")[2] not in page] == []


def test_every_name_is_of_one_model() -> None:
    for model in known_models():
        assert all(known_model(name) is model for name in (model.repository, *model.names))


def test_models_of_the_tables_are_named_as_there() -> None:
    for model in known_models():
        if model.benchmark:
            name, params = model.benchmark
            assert benchmark.find(model=name, params=params)
