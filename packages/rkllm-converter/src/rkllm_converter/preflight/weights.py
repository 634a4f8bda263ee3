"""Whether the weights are such that the toolkit can take them, and divide them into groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rkllm_converter.options import Options
from rkllm_converter.preflight.family import setting
from rkllm_facts.architecture import Architecture
from rkllm_facts.chips import CHIPS, Chip, check_group_size, group_size
from rkllm_facts.errors import GroupSizeMismatch

__all__ = ["is_quantised", "judge_groups", "judge_quantised"]

_GPTQ = {4: ("w4a16", (32, 64, 128)), 8: ("w8a8", (128, 256, 512))}
"""By bits: the type that it becomes, and the groups that are taken. Source: SDK manual."""

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


def judge_groups(architecture: Architecture, quant: str, chip: Chip) -> str:
    """Which layers the groups of the type do not divide, and which types would do; empty if they divide all."""
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


def _undivided(architecture: Architecture, quant: str) -> dict[int, list[str]]:
    """Names of layers by their outputs."""
    odd: dict[int, list[str]] = {}
    for matrix in architecture.matrices:
        if matrix.name not in _DIVIDED:
            continue
        try:
            check_group_size(quant, matrix.outputs)
        except GroupSizeMismatch:
            names = odd.setdefault(matrix.outputs, [])
            if matrix.name not in names:
                names.append(matrix.name)
    return odd
