"""Whether the weights are such that the toolkit can take them, and divide them into groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rkllm_converter.options import Options
from rkllm_converter.preflight.family import setting
from rkllm_facts.architecture import Architecture, Matrix
from rkllm_facts.chips import CHIPS, Chip, check_group_size, group_size
from rkllm_facts.errors import GroupSizeMismatch

__all__ = ["is_quantised", "judge_groups", "judge_quantised"]

_GPTQ = {4: ("w4a16", (32, 64, 128)), 8: ("w8a8", (128, 256, 512))}
"""By bits: the type that it becomes, and the groups that are taken. Source: SDK manual."""

_GEMMA3N = (
    "Gemma 3n was refused with groups: the toolkit 1.2.2 said of w4a16_g32 that the tensor shape of this model can not "
    "be evenly divided (issue 398 of airockchip/rknn-llm). On the {chip} these types have none: {types}."
)
"""Its shapes would do by the rule; Rockchip's tables have it without groups only."""

_GPTQ_LEGAL = (
    "of GPTQ the toolkit takes 4 bits in groups of 32, 64 or 128 and 8 bits in groups of 128, 256 or 512, symmetric "
    "and without desc_act"
)

_DIVIDED = {
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    "q_a_proj", "q_b_proj", "kv_a_proj", "kv_b_proj",
    "experts.gate_proj", "experts.up_proj", "experts.down_proj",
    "r_proj", "in_proj_qkv", "in_proj_z", "out_proj",
}  # fmt: skip
"""The layers that the rule about groups is taken to hold for: attention, what stands in its place, and feed-forward.

The manual says 'the linear layers'. That cannot mean the output, nor narrow ones beside these: Rockchip's own tables
have w4a16_g128 for Phi-3-mini (32064 tokens), MiniCPM4 (73448) and Qwen3.5 (in_proj_a with 16 outputs).
"""


_TOGETHER = "q_proj + k_proj + v_proj"


def is_quantised(config: Mapping[str, Any]) -> bool:
    return bool(_settings(config))


def judge_quantised(config: Mapping[str, Any], options: Options, chip: Chip) -> str:
    """What is wrong with weights that somebody has quantised before; empty if nothing is, or if nobody has."""
    settings = _settings(config)
    if not settings:
        return ""
    method = str(settings.get("quant_method", "gptq" if "desc_act" in settings else "a method that is not named"))
    if method.lower() != "gptq":
        return (
            f"Its weights are quantised already ({method}), and of such the toolkit takes only GPTQ. Take the model as "
            "its makers published it before that."
        )
    bits, groups = settings.get("bits"), settings.get("group_size")
    becomes, legal = _GPTQ.get(bits, ("", ())) if isinstance(bits, int) else ("", ())
    wrong = [] if groups in legal else [f"{bits} bits in groups of {groups}"]
    wrong += ["not symmetric"] if settings.get("sym", True) is not True else []
    wrong += ["with desc_act"] if settings.get("desc_act", False) is not False else []
    if wrong:
        return f"Its weights are GPTQ, {', '.join(wrong)}; {_GPTQ_LEGAL}. Take one like that, or the original."
    return _of_other_type(f"{becomes}_g{groups}", options, chip)


def judge_groups(architecture: Architecture | None, quant: str, chip: Chip, *, family: str = "") -> str:
    """Which layers the groups of the type do not divide, and which types would do; empty if they divide all.

    Queries, keys and values of a layer are judged together, as one matrix that has the outputs of all three: Rockchip
    has measured TinyLlama-1.1B as w8a8_g512 (table of 1.1.0), where keys and values have 256 outputs by themselves and
    2560 with the queries. So taken, no row of the tables breaks the rule.
    """
    if family == "gemma3n" and group_size(quant) is not None:
        return _GEMMA3N.format(
            chip=chip.name, types=", ".join(one for one in chip.types if group_size(one) is None) or "none"
        )
    odd = _undivided(architecture, quant)
    if not odd:
        return ""
    widths = "; ".join(f"{', '.join(names)} ({outputs} outputs)" for outputs, names in odd.items())
    good = [one for one in chip.types if not _undivided(architecture, one)]
    return (
        f"The groups of {group_size(quant)} of {quant} do not divide {widths}. On the {chip.name} these types would: "
        f"{', '.join(good) or 'none'}."
    )


def _settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    found = setting(config, "quantization_config", "compression_config", "quantization")
    return found if isinstance(found, Mapping) else {}


def _of_other_type(becomes: str, options: Options, chip: Chip) -> str:
    if options.quant == becomes:
        return ""
    if becomes in chip.types:
        return (
            f"Its weights are GPTQ and become {becomes}, not {options.quant}. Take --quant {becomes}, or the original."
        )
    others = ", ".join(dict.fromkeys(one.target_platform for one in CHIPS if becomes in one.types))
    return (
        f"Its weights are GPTQ and become {becomes}, which the {chip.name} does not run (but {others}). Take the model "
        "as its makers published it before that."
    )


def _undivided(architecture: Architecture | None, quant: str) -> dict[int, list[str]]:
    """Names of layers by their outputs."""
    odd: dict[int, list[str]] = {}
    for name, outputs in _layers(architecture.matrices if architecture else ()):
        try:
            check_group_size(quant, outputs)
        except GroupSizeMismatch:
            names = odd.setdefault(outputs, [])
            if name not in names:
                names.append(name)
    return odd


def _layers(matrices: Sequence[Matrix]) -> Iterator[tuple[str, int]]:
    """Names and outputs of what has to be divided. Layers that take the keys of another one have queries alone."""
    at = 0
    while at < len(matrices):
        three = matrices[at : at + 3]
        if tuple(one.name for one in three) == ("q_proj", "k_proj", "v_proj"):
            yield _TOGETHER, sum(one.outputs for one in three)
            if three[0].copies > three[1].copies:
                yield three[0].name, three[0].outputs
            at += 3
            continue
        if matrices[at].name in _DIVIDED:
            yield matrices[at].name, matrices[at].outputs
        at += 1
