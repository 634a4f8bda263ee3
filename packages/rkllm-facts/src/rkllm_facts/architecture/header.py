"""From the header of a GGUF file to an Architecture, by way of the keys of a config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rkllm_facts.architecture.families import architecture_of
from rkllm_facts.architecture.model import Architecture
from rkllm_facts.errors import BadGguf, IncompleteConfig, UnknownArchitecture
from rkllm_facts.gguf import Header, read_header

__all__ = ["gguf_architecture"]

_FAMILIES = {
    "chatglm": "glm",
    "deepseek2": "deepseek_v2",
    "phi2": "phi",
    "qwen2moe": "qwen2_moe",
    "qwen2vl": "qwen2_vl",
    "qwen35": "qwen3_5",
    "qwen35moe": "qwen3_5_moe",
    "qwen3moe": "qwen3_moe",
    "qwen3vl": "qwen3_vl",
}
"""As config.json calls what GGUF calls otherwise."""

_KEYS = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "vocab_size": "vocab_size",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_count": "n_shared_experts",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    "leading_dense_block_count": "first_k_dense_replace",
    "wkv.head_size": "head_dim",
    "attention.decay_lora_rank": "decay_low_rank_dim",
    "attention.iclr_lora_rank": "a_low_rank_dim",
    "attention.value_residual_mix_lora_rank": "v_low_rank_dim",
    "attention.gate_lora_rank": "gate_low_rank_dim",
}
"""Of GGUF, behind the family's name, and of config.json."""

_TOKENS = "tokenizer.ggml.tokens"
_OUTPUT = "output.weight"
_TOLERANCE = 0.02


def gguf_architecture(path: Path, *further: Path) -> Architecture:
    """Of the model in a .gguf file, of which only the header is read.

    `further` are the files after the first one of a model that is split.

    Raises BadGguf, which names the file, for one that is broken, or whose tensors are not those that the header lets
    expect: a family that is not known here.
    """
    header = read_header(path)
    tensors = {**header.tensors}
    for one in further:
        tensors.update(read_header(one).tensors)
    try:
        found = architecture_of(_config(header, tied=_OUTPUT not in tensors))
    except (IncompleteConfig, UnknownArchitecture) as error:
        raise BadGguf(f"The header of {path} does not describe a language model: {error.message}") from error
    stored = sum(tensors.values())
    if not stored or abs(found.parameters / stored - 1) > _TOLERANCE:
        raise BadGguf(
            f"The tensors of {path} have {stored:,} values, and {found.parameters:,} were expected by its header: the "
            f"family {found.family!r} is not understood here. Give the config.json of the model's makers instead."
        )
    return found


def _config(header: Header, *, tied: bool) -> dict[str, Any]:
    pairs = header.pairs
    family = str(pairs.get("general.architecture", ""))
    config: dict[str, Any] = {
        name: pairs[f"{family}.{key}"] for key, name in _KEYS.items() if f"{family}.{key}" in pairs
    }
    if _TOKENS in header.lengths:
        config.setdefault("vocab_size", header.lengths[_TOKENS])
    return {**config, "model_type": _FAMILIES.get(family, family), "tie_word_embeddings": tied}
