"""The parts that layers are made of. Each function adds its matrices to a Draft."""

from __future__ import annotations

from dataclasses import dataclass, field

from rkllm_facts.architecture.model import Matrix
from rkllm_facts.architecture.reading import Config
from rkllm_facts.errors import IncompleteConfig

__all__ = ["Draft", "Heads", "attention", "experts", "gated_delta", "latent_attention", "mlp", "rwkv7"]


@dataclass(frozen=True, slots=True)
class Heads:
    """Of attention: queries and keys have `size` values each, values have `value_size`."""

    queries: int
    kv: int
    size: int
    value_size: int

    @classmethod
    def of(cls, config: Config) -> Heads:
        heads = config.number("num_attention_heads", "n_head", "num_heads")
        kv = config.optional("num_key_value_heads", "n_head_kv", "num_kv_heads", "multi_query_group_num") or heads
        if config.flag("multi_query") and not config.flag("new_decoder_architecture"):
            kv = 1
        hidden = config.number("hidden_size", "n_embd")
        if max(heads, kv) > hidden:
            raise IncompleteConfig("num_attention_heads", f"{heads} and {kv} heads are too many for {hidden} values.")
        size = config.optional("head_dim", "kv_channels") or hidden // heads
        return cls(heads, kv, size, size)


@dataclass
class Draft:
    """What has been added so far, see Architecture."""

    hidden: int
    matrices: list[Matrix] = field(default_factory=list)
    vectors: int = 0
    kv_values: int = 0
    mixing_values: int = 0
    score_values: int = 0
    state_values: int = 0
    recurrent_layers: int = 0

    def add(self, name: str, outputs: int, inputs: int, *, copies: int, active: int | None = None) -> None:
        if copies:
            self.matrices.append(Matrix(name, outputs, inputs, copies, copies if active is None else active))

    def attends(self, heads: Heads, layers: int, *, keeps: int | None = None) -> None:
        """`keeps` of the layers have keys and values of their own; the others use those of an earlier layer."""
        pairs = heads.kv * (heads.size + heads.value_size)
        self.kv_values += (layers if keeps is None else keeps) * pairs
        self.mixing_values += layers * (heads.queries * heads.size + pairs)
        self.score_values += layers * heads.queries * (heads.size + heads.value_size)


def attention(draft: Draft, config: Config, layers: int, heads: Heads, *, keeps: int | None = None) -> None:
    """Attention with its projections. Qwen3.5 doubles the queries' with a gate."""
    kept = layers if keeps is None else keeps
    width, pairs = heads.queries * heads.size, heads.kv * heads.size
    gate = (
        2 if config.flag("attn_output_gate", default=config.family in {"qwen3_5", "qwen3_5_moe", "qwen3_next"}) else 1
    )
    draft.add("q_proj", gate * width, draft.hidden, copies=layers)
    draft.add("k_proj", pairs, draft.hidden, copies=kept)
    draft.add("v_proj", pairs, draft.hidden, copies=kept)
    draft.add("o_proj", draft.hidden, heads.queries * heads.value_size, copies=layers)
    if _has_bias(config):
        draft.vectors += layers * gate * width + kept * 2 * pairs
    if config.family in _WITH_QK_NORM:
        draft.vectors += (layers + kept) * heads.size
    draft.attends(heads, layers, keeps=keeps)


def _has_bias(config: Config) -> bool:
    named = config.flag("attention_bias") or config.flag("add_qkv_bias")
    return named or config.family == "qwen" or config.family.startswith("qwen2")


_WITH_QK_NORM = {
    "gemma3", "gemma3n", "gemma4", "qwen3", "qwen3_5", "qwen3_5_moe", "qwen3_moe", "qwen3_next", "qwen3_vl",
}  # fmt: skip


def latent_attention(draft: Draft, config: Config, layers: int) -> None:
    """Multi-head latent attention: keys and values are expanded from a short vector."""
    heads = config.number("num_attention_heads")
    plain, rotated = config.number("qk_nope_head_dim"), config.number("qk_rope_head_dim")
    value = config.optional("v_head_dim") or draft.hidden // heads
    latent, query_rank = config.number("kv_lora_rank"), config.optional("q_lora_rank")
    if query_rank is None:
        draft.add("q_proj", heads * (plain + rotated), draft.hidden, copies=layers)
    else:
        draft.add("q_a_proj", query_rank, draft.hidden, copies=layers)
        draft.add("q_b_proj", heads * (plain + rotated), query_rank, copies=layers)
        draft.vectors += layers * query_rank
    draft.add("kv_a_proj", latent + rotated, draft.hidden, copies=layers)
    draft.add("kv_b_proj", heads * (plain + value), latent, copies=layers)
    draft.add("o_proj", draft.hidden, heads * value, copies=layers)
    draft.vectors += layers * latent
    draft.attends(Heads(heads, heads, plain + rotated, value), layers)


def mlp(draft: Draft, config: Config, layers: int, intermediate: int) -> None:
    """A feed-forward part with a gate, but for the families that have none."""
    if config.family not in _WITHOUT_GATE:
        draft.add("gate_proj", intermediate, draft.hidden, copies=layers)
    draft.add("up_proj", intermediate, draft.hidden, copies=layers)
    draft.add("down_proj", draft.hidden, intermediate, copies=layers)
    if config.flag("mlp_bias"):
        draft.vectors += layers * (draft.hidden + 2 * intermediate)


_WITHOUT_GATE = {
    "bloom", "falcon", "gpt2", "gpt_bigcode", "gpt_neox", "nemotron", "opt", "phi", "rwkv7", "starcoder2",
}  # fmt: skip


def experts(draft: Draft, config: Config, layers: int, count: int) -> None:
    """A mixture of `count` experts in each of the layers, with those that every token goes through."""
    width = config.number("moe_intermediate_size", "expert_intermediate_size", "intermediate_size")
    chosen = config.number("num_experts_per_tok", "num_experts_per_token", "top_k_experts")
    shared = config.optional("shared_expert_intermediate_size") or width * (config.optional("n_shared_experts") or 0)
    draft.add("router", count, draft.hidden, copies=layers)
    for name, outputs, inputs in (
        ("gate_proj", width, draft.hidden),
        ("up_proj", width, draft.hidden),
        ("down_proj", draft.hidden, width),
    ):
        draft.add(f"experts.{name}", outputs, inputs, copies=layers * count, active=layers * chosen)
    if shared:
        mlp(draft, config, layers, shared)
    if config.optional("shared_expert_intermediate_size"):
        draft.add("shared_gate", 1, draft.hidden, copies=layers)


def gated_delta(draft: Draft, config: Config, layers: int) -> None:
    """Linear attention of Qwen3.5: a matrix for each head of values in place of a cache."""
    key_heads, value_heads = config.number("linear_num_key_heads"), config.number("linear_num_value_heads")
    key_size, value_size = config.number("linear_key_head_dim"), config.number("linear_value_head_dim")
    keys, values = key_heads * key_size, value_heads * value_size
    kernel = config.number("linear_conv_kernel_dim")
    draft.add("in_proj_qkv", 2 * keys + values, draft.hidden, copies=layers)
    draft.add("in_proj_z", values, draft.hidden, copies=layers)
    draft.add("in_proj_b", value_heads, draft.hidden, copies=layers)
    draft.add("in_proj_a", value_heads, draft.hidden, copies=layers)
    draft.add("out_proj", draft.hidden, values, copies=layers)
    draft.vectors += layers * (kernel * (2 * keys + values) + 2 * value_heads + value_size)
    draft.mixing_values += layers * (2 * keys + values)
    draft.state_values += layers * (value_heads * key_size * value_size + (kernel - 1) * (2 * keys + values))
    draft.recurrent_layers += layers


def rwkv7(draft: Draft, config: Config, layers: int) -> None:
    """Time mixing of RWKV7: four wide projections and four of low rank, whose ranks grow with the width."""
    hidden = draft.hidden
    head = config.optional("head_dim", "head_size") or 64
    for name in ("r_proj", "k_proj", "v_proj", "o_proj"):
        draft.add(name, hidden, hidden, copies=layers)
    for kind, usual in (("decay", 64), ("a", 64), ("v", 16), ("gate", 128)):
        rank = config.optional(f"{kind}_low_rank_dim") or usual
        kept = layers - 1 if kind == "v" else layers
        draft.add(f"{kind}_lora_a", rank, hidden, copies=kept)
        draft.add(f"{kind}_lora_b", hidden, rank, copies=kept)
        draft.vectors += kept * hidden if kind != "gate" else 0
    draft.vectors += (
        layers * 10 * hidden + (4 * layers + 3) * hidden
    )  # norms have biases, and there are two more of them
    draft.mixing_values += layers * 4 * hidden
    draft.state_values += layers * (hidden * head + 2 * hidden)
    draft.recurrent_layers += layers
