"""Which families of models are understood, and which are certainly something else."""

from __future__ import annotations

import re

from rkllm_facts.architecture.reading import Config
from rkllm_facts.errors import UnknownArchitecture

__all__ = ["UNDERSTOOD", "refuse_what_is_not_understood"]

UNDERSTOOD = frozenset({
    "chatglm", "deepseek_v2", "deepseek_v3", "gemma", "gemma2", "gemma3", "gemma3n", "gemma4", "glm", "internlm2",
    "llama", "minicpm", "minicpm3", "mistral", "mixtral", "olmoe", "phi3", "qwen", "qwen2", "qwen2_5_vl", "qwen2_moe",
    "qwen2_vl", "qwen3", "qwen3_5", "qwen3_moe", "qwen3_vl", "rwkv7", "telechat",
})  # fmt: skip
"""By model_type. Any other one is planned as a plain decoder, which the plan says."""

_NO_DECODERS = {
    "albert", "bart", "bert", "camembert", "chinese_clip", "clip", "deberta", "distilbert", "electra", "ernie",
    "longformer", "m2m_100", "marian", "mbart", "modernbert", "mpnet", "mt5", "nomic_bert", "pegasus", "roberta",
    "siglip", "siglip2", "t5", "vit", "wav2vec2", "whisper", "xlm",
}  # fmt: skip
_STATES = re.compile(r"(?:mamba|ssm)_.*|state_size|conv_L_cache|(?:attn|expert)_layer_period|layers_block_type")
_KINDS = {"full_attention", "sliding_attention", "chunked_attention", "attention"}
_READ_EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts")


def refuse_what_is_not_understood(config: Config) -> None:
    """Raises UnknownArchitecture, which says why."""
    why = _why_not(config)
    if why:
        raise UnknownArchitecture(config.text("model_type"), why)


def _why_not(config: Config) -> str:
    """A sentence; empty if nothing speaks against it."""
    family = config.family.replace("-", "_")
    encoder = any(family == one or family.startswith((f"{one}_", f"{one}v")) for one in _NO_DECODERS)
    if encoder or config.flag("is_encoder_decoder"):
        return "they are no decoders, which is what Rockchip's runtime for language models runs."
    if family.startswith("rwkv") and family != "rwkv7":
        return "of RWKV only version 7 is known here."
    states = sorted(key for key in config.values if _STATES.fullmatch(key))
    if states or family in {"jamba", "mamba", "mamba2", "falcon_mamba"}:
        return f"they have layers of a kind that is not known here{f' ({states[0]})' if states else ''}."
    recurrent = {"linear_attention"} if config.optional("linear_num_value_heads") else set()
    odd = [kind for kind in map(str, config.listed("layer_types")) if kind not in _KINDS | recurrent]
    if odd:
        return f"layers of the kind {odd[0][:40]!r} are not known here."
    if not any(config.optional(key) for key in _READ_EXPERTS):
        experts = [key for key, value in config.values.items() if _is_count_of_experts(key, value)]
        if experts:
            return f"{experts[0]!r} tells of experts in a way that is not known here."
    return ""


def _is_count_of_experts(key: str, value: object) -> bool:
    return re.search(r"(?:num|n|routed)_experts$", key) is not None and isinstance(value, int) and value > 1
