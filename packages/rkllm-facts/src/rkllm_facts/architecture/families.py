"""From a config.json to an Architecture. Keys are those of Hugging Face's transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rkllm_facts.architecture import parts
from rkllm_facts.architecture.known_families import UNDERSTOOD, refuse_what_is_not_understood
from rkllm_facts.architecture.model import Architecture
from rkllm_facts.architecture.parts import Draft, Heads
from rkllm_facts.architecture.reading import Config

__all__ = ["architecture_of"]

_TIED_BY_DEFAULT = {
    "bloom",
    "falcon",
    "gpt2",
    "gpt_bigcode",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3n",
    "gemma4",
    "minicpm",
    "minicpm3",
}
"""Families whose configurations leave tie_word_embeddings out where it is true."""

_MOST_LAYERS = 1024

_NORMS = {"gemma2": 4, "gemma3": 4, "gemma3n": 5, "gemma4": 5}
"""Norms of the width `hidden` in a layer; two elsewhere."""


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """From the keys of a config.json. Raises IncompleteConfig, which names the key, and UnknownArchitecture.

    Only the part for text counts of a model that sees or hears: the rest is a model of its own for Rockchip's runtimes.
    """
    read = Config.of(config)
    refuse_what_is_not_understood(read)
    layers = read.number("num_hidden_layers", "n_layer", "num_layers", at_most=_MOST_LAYERS)
    draft = Draft(read.number("hidden_size", "n_embd"))
    vocabulary = read.number("vocab_size", "padded_vocab_size")
    heads = _mixers(draft, read, layers)
    intermediate = _intermediate(read, draft.hidden)
    _feed_forward(draft, read, layers, intermediate)
    per_layer = _per_layer_inputs(draft, read, layers)
    draft.vectors += (_NORMS.get(read.family, 2) * layers + 1) * draft.hidden
    draft.add("output", vocabulary, draft.hidden, copies=1)
    return Architecture(
        family=read.family,
        layers=layers,
        hidden=draft.hidden,
        intermediate=intermediate,
        heads=heads.queries,
        kv_heads=heads.kv,
        head_dim=heads.size,
        vocabulary=vocabulary,
        tied_embeddings=read.flag("tie_word_embeddings", default=read.family in _TIED_BY_DEFAULT),
        matrices=tuple(draft.matrices),
        vectors=draft.vectors,
        kv_values=draft.kv_values,
        mixing_values=draft.mixing_values,
        score_values=draft.score_values,
        state_values=draft.state_values,
        recurrent_layers=draft.recurrent_layers,
        per_layer_embedding_values=per_layer,
        is_understood=read.family in UNDERSTOOD,
    )


def _mixers(draft: Draft, config: Config, layers: int) -> Heads:
    """Attention, or what stands in its place."""
    if config.family.startswith("rwkv"):
        parts.rwkv7(draft, config, layers)
        size = config.optional("head_dim", "head_size") or 64
        return Heads(draft.hidden // size, draft.hidden // size, size, size)
    heads = Heads.of(config)
    if config.optional("kv_lora_rank") and config.flag("use_mla", default=True):
        parts.latent_attention(draft, config, layers)
    elif config.optional("linear_num_value_heads"):
        full = _layers_of(config, layers, "full_attention", every=config.optional("full_attention_interval") or 4)
        parts.attention(draft, config, full, heads)
        parts.gated_delta(draft, config, layers - full)
    elif config.optional("global_head_dim"):
        _two_sizes_of_heads(draft, config, layers, heads)
    else:
        shared = config.optional("num_kv_shared_layers", at_most=layers) or 0
        parts.attention(draft, config, layers, heads, keeps=layers - shared)
    return heads


def _two_sizes_of_heads(draft: Draft, config: Config, layers: int, heads: Heads) -> None:
    """Gemma 4: wider heads where attention is not limited to a window; the last layers use earlier keys and values."""
    wide = config.number("global_head_dim")
    kinds = (config.listed("layer_types") or _every(layers, 6))[:layers]
    kept = layers - (config.optional("num_kv_shared_layers", at_most=layers) or 0)
    for kind, size in (("full_attention", wide), ("sliding_attention", heads.size)):
        kv = heads.kv if kind != "full_attention" else config.optional("num_global_key_value_heads") or heads.kv
        own = sum(one == kind for one in kinds[:kept])
        parts.attention(
            draft, config, sum(one == kind for one in kinds), Heads(heads.queries, kv, size, size), keeps=own
        )


def _layers_of(config: Config, layers: int, kind: str, *, every: int) -> int:
    kinds = config.listed("layer_types") or _every(layers, every)
    return sum(one == kind for one in kinds[:layers])


def _every(layers: int, interval: int) -> list[str]:
    """The last one of each `interval` layers, and the last layer, attend to everything."""
    kinds = ["full_attention" if number % interval == 0 else "sliding_attention" for number in range(1, layers + 1)]
    return [*kinds[:-1], "full_attention"]


def _intermediate(config: Config, hidden: int) -> int:
    found = config.optional("intermediate_size", "ffn_hidden_size", "n_inner", "moe_intermediate_size")
    if found is None and config.family in _FOUR_TIMES_AS_WIDE:
        return 4 * hidden
    width = found or config.number("intermediate_size")
    return width // 2 if config.family == "qwen" else width  # there it is that of gate and other half together


_FOUR_TIMES_AS_WIDE = {"bloom", "falcon", "gpt2", "gpt_bigcode", "rwkv7"}


def _feed_forward(draft: Draft, config: Config, layers: int, intermediate: int) -> None:
    count = config.optional("n_routed_experts", "num_experts", "num_local_experts")
    if count is None:
        doubled = (
            (config.optional("num_kv_shared_layers", at_most=layers) or 0) if config.flag("use_double_wide_mlp") else 0
        )
        parts.mlp(draft, config, layers - doubled, intermediate)
        parts.mlp(draft, config, doubled, 2 * intermediate)
        return
    dense = config.optional("first_k_dense_replace", at_most=layers) or len(config.listed("mlp_only_layers")[:layers])
    step = config.optional("decoder_sparse_step", "moe_layer_freq") or 1
    mixtures = (layers - dense) // step
    parts.mlp(draft, config, layers - mixtures, intermediate)
    parts.experts(draft, config, mixtures, count)


def _per_layer_inputs(draft: Draft, config: Config, layers: int) -> int:
    """Gemma 3n and 4: a row of a further table enters each layer. Returns the values of that table."""
    width = config.optional("hidden_size_per_layer_input")
    if width is None:
        return 0
    draft.add("per_layer_model_projection", layers * width, draft.hidden, copies=1)
    draft.add("per_layer_input_gate", width, draft.hidden, copies=layers)
    draft.add("per_layer_projection", draft.hidden, width, copies=layers)
    draft.vectors += width
    inputs = config.optional("altup_num_inputs")
    if inputs:
        rank = config.number("laurel_rank")
        draft.add("altup_projection", draft.hidden, draft.hidden, copies=2 * (inputs - 1))
        draft.add("laurel_left", rank, draft.hidden, copies=layers)
        draft.add("laurel_right", draft.hidden, rank, copies=layers)
        draft.vectors += layers * (2 * draft.hidden + inputs * (draft.hidden + inputs + inputs**2))
        draft.mixing_values += layers * inputs * (inputs + 1) * draft.hidden
    return config.number("vocab_size_per_layer_input") * layers * width
