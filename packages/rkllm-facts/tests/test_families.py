"""Families of models: what is told of them, and which are refused."""

from __future__ import annotations

from typing import Any

import pytest

from rkllm_facts.architecture import Architecture, architecture_of, known_models
from rkllm_facts.errors import IncompleteConfig, UnknownArchitecture
from rkllm_facts.planner import plan

PLAIN = {
    "model_type": "llama",
    "num_hidden_layers": 8,
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
}
MIXTURE = {**PLAIN, "model_type": "qwen3_moe", "num_experts": 16, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LATENT = {
    "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "model_type": "deepseek_v2",
}  # fmt: skip


def of(**changes: Any) -> Architecture:
    return architecture_of({**PLAIN, **changes})


def copies(architecture: Architecture, name: str) -> int:
    return sum(one.copies for one in architecture.matrices if one.name == name)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "bert"}, "no decoders"),
        ({"model_type": "xlm-roberta"}, "no decoders"),
        ({"model_type": "clip_text_model"}, "no decoders"),
        ({"model_type": "new", "is_encoder_decoder": True}, "no decoders"),
        ({"model_type": "mamba"}, "a kind that is not known"),
        ({"model_type": "new", "state_size": 16}, "state_size"),
        ({"model_type": "granitemoehybrid", "mamba_d_state": 128}, "mamba_d_state"),
        ({"model_type": "lfm2", "layer_types": ["full_attention", "conv"]}, "'conv'"),
        ({"model_type": "new", "layer_types": ["linear_attention"]}, "'linear_attention'"),
        ({"model_type": "new", "layer_types": [["conv"]]}, "conv"),
        ({"model_type": "ernie4_5_moe", "moe_num_experts": 64}, "moe_num_experts"),
        ({"model_type": "rwkv6"}, "only version 7"),
    ],
)
def test_what_is_no_decoder_as_they_are_known_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UnknownArchitecture, match=said) as caught:
        of(**changes)
    assert caught.value.family == changes["model_type"]


@pytest.mark.parametrize("changes", [{"num_attention_heads": 65}, {"num_key_value_heads": 65}])
def test_more_heads_than_values_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(IncompleteConfig, match="num_attention_heads"):
        of(**changes)


def test_another_family_is_planned_as_a_plain_decoder_and_the_plan_says_so() -> None:
    new = of(model_type="new_family")
    assert (new.matrices, new.is_understood) == (of().matrices, False)
    (note,) = (note for note in plan(new, platform="rk3588", dtype="w8a8").notes if "plain decoder" in note)
    assert "'new_family'" in note
    assert all("plain decoder" not in note for note in plan(of(), platform="rk3588", dtype="w8a8").notes)


def test_every_known_model_is_understood() -> None:
    assert [one.repository for one in known_models() if not one.architecture.is_understood] == []


def test_the_first_qwen_counts_both_halves_of_its_feed_forward_part() -> None:
    """Qwen-7B has 7,721,324,544 parameters, as published."""
    found = architecture_of(
        {
            "model_type": "qwen",
            "hidden_size": 4096,
            "intermediate_size": 22016,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "vocab_size": 151936,
        }
    )
    assert found.parameters == 7_721_324_544


def test_all_queries_may_share_one_head_of_keys() -> None:
    assert of(num_key_value_heads=None, num_kv_heads=8, multi_query=True).kv_heads == 1
    assert of(num_key_value_heads=None, num_kv_heads=4, multi_query=True, new_decoder_architecture=True).kv_heads == 4
    assert of(num_key_value_heads=None, multi_query=False).kv_heads == 8


def test_a_list_of_layers_counts_as_their_mean() -> None:
    assert of(num_key_value_heads=[0, 4] * 4).kv_values == of(num_key_value_heads=2).kv_values
    assert of(intermediate_size=[128, 384] * 4).matrices == of().matrices


def test_layers_without_experts() -> None:
    every, half, but_two = (
        architecture_of({**MIXTURE, **changes})
        for changes in ({}, {"decoder_sparse_step": 2}, {"mlp_only_layers": [0, 5]})
    )
    assert [copies(one, "router") for one in (every, half, but_two)] == [8, 4, 6]
    assert [copies(one, "gate_proj") for one in (every, half, but_two)] == [0, 4, 2]


def test_latent_attention_without_a_short_vector_for_queries_has_them_in_one_matrix() -> None:
    (queries,) = (one for one in of(**LATENT).matrices if one.name == "q_proj")
    assert (queries.outputs, queries.inputs, queries.copies) == (8 * 12, 64, 8)
    assert copies(of(**LATENT, q_lora_rank=32), "q_proj") == 0


def test_wider_heads_where_attention_is_not_limited_to_a_window() -> None:
    """Each sixth layer, and the last one; their keys may have another number of heads."""
    gemma = {"model_type": "gemma4", "head_dim": 8, "global_head_dim": 16}
    assert of(**gemma).kv_values == 2 * 2 * (6 * 8 + 2 * 16)
    assert of(**gemma, num_global_key_value_heads=1).kv_values == 2 * (2 * 6 * 8 + 2 * 16)


def test_biases_of_the_feed_forward_part_are_parameters() -> None:
    assert of(mlp_bias=True).parameters - of().parameters == 8 * (64 + 2 * 256)


def test_families_without_a_gate_have_two_matrices() -> None:
    assert copies(of(model_type="starcoder2"), "gate_proj") == 0
    assert copies(of(), "gate_proj") == 8
