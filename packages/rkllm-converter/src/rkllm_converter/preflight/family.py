"""Whether a release of the toolkit converts models of a family, and why not."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from rkllm_converter.toolkit.versions import TOOLKITS, Toolkit
from rkllm_facts.gguf import Header

__all__ = ["Verdict", "config_of_gguf", "family_of", "judge", "setting"]

_NESTED = ("text_config", "language_config", "llm_config")

_GGUF_FAMILIES = {
    "deepseek2": "deepseek_v2",
    "gpt-oss": "gpt_oss",
    "phi2": "phi",
    "qwen2moe": "qwen2_moe",
    "qwen2vl": "qwen2_vl",
    "qwen35": "qwen3_5",
    "qwen35moe": "qwen3_5_moe",
    "qwen3moe": "qwen3_moe",
    "qwen3vl": "qwen3_vl",
}
"""As config.json calls what GGUF calls otherwise. Source: llama.cpp, src/llama-arch.cpp."""

_TAKEN_AS_GGUF = {
    "chatglm": "ChatGLM3",
    "chatglm3": "ChatGLM3",
    "gemma": "Gemma",
    "gemma2": "Gemma 2",
    "gemma3": "Gemma 3",
    "internlm2": "InternLM2",
    "llama": "Llama",
    "minicpm": "MiniCPM",
    "minicpm3": "MiniCPM3",
    "phi": "Phi-2",
    "phi3": "Phi-3",
    "qwen": "Qwen",
    "qwen2": "Qwen2, Qwen2.5",
    "qwen3": "Qwen3",
    "telechat": "TeleChat2",
}
"""Not those of Hugging Face's form. Source: what the toolkit 1.2.2 says when it refuses one, in issue 398 of
airockchip/rknn-llm; taken to hold for the later releases too."""

_RWKV_PYTHON = (3, 12)
_CHATGLM3_VOCABULARY = 65024
_GLM4_VOCABULARY = 151552
_MIXTURES = {"deepseek_vl_v2"}
"""The families of the list that are mixtures of experts: DeepSeek-OCR."""

_DEEPSEEK_OCR = "DeepseekOCRForCausalLM"

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_ENCODERS = re.compile(r"\w*bert\w*|electra|mpnet|u?m?t5|m?bart|whisper|marian|clip")
_STATES = re.compile(r"(?:falcon_)?mamba2?|jamba|bamba|zamba2?|lfm2|granitemoehybrid|nemotron_h|recurrent_gemma")
_OTHER_NORMS = {"bloom", "falcon", "gpt2", "gpt_bigcode", "gpt_neox", "gptj", "mpt", "opt", "stablelm", "starcoder2"}

_WITHOUT_TEXT = re.compile(
    r"(?:Classification|QuestionAnswering|RewardModel|Embedding)$|^(?!.*(?:Chat|LMHead)).*Model$"
)
"""Names of classes in `architectures` of models that judge or embed texts."""

_NEAR = {
    "gemma": "It is the first Gemma; Gemma 2 and 3 are converted.",
    "glm": "It is GLM-4; of GLM only ChatGLM3 is converted.",
    "glm4": "It is GLM-4; of GLM only ChatGLM3 is converted.",
    "internlm": "It is the first InternLM; InternLM2 and 2.5 are converted.",
    "internlm3": "InternLM2 and 2.5 are converted, InternLM3 is not.",
    "internvl": "It is InternVL as transformers has it; take the repository of its makers without -hf in the name.",
    "mistral": "Its layers are like those of Llama, so a --custom-config may do.",
    "phi3_v": "It is Phi-3-vision; only the Phi-3 and Phi-3.5 for text are converted.",
    "phi3small": "It is Phi-3-small; Phi-3-mini and Phi-3-medium are converted.",
    "phi4mm": "It is Phi-4-multimodal; the models of type phi3 are converted.",
    "qwen": "It is the first Qwen; Qwen2 and later are converted.",
    "rwkv": "Of RWKV only version 7 is converted.",
    "rwkv5": "Of RWKV only version 7 is converted.",
    "rwkv6": "Of RWKV only version 7 is converted.",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """`unknown`: why the family is not converted, which a --custom-config may make up for; `other`: what stays a
    problem all the same. Both are empty if there is none."""

    family: str
    label: str
    unknown: str
    other: str
    notes: tuple[str, ...]


def judge(
    config: Mapping[str, Any], toolkit: Toolkit, python_version: tuple[int, int] | None, *, is_gguf: bool = False
) -> Verdict:
    """By the keys of a config.json. `python_version` is of the Python that has the toolkit, None if not known."""
    family = family_of(config)
    # Of those that came later it is not known whether they are taken from a GGUF file.
    families = {**toolkit.families, **_TAKEN_AS_GGUF} if is_gguf else toolkit.families
    listed = set(_TAKEN_AS_GGUF.values()) if is_gguf else set(families.values())
    unknown, notes = _why_not(family, config, toolkit, families, listed), []
    label = "" if unknown else families[family]
    if is_gguf and not unknown and family not in _TAKEN_AS_GGUF:
        notes.append(
            f"It is not known whether the toolkit {toolkit.version} takes {label} from a GGUF file; 1.2.2 did not. If "
            "it does not, take the model as Hugging Face has it."
        )
    other = ""
    if family == "rwkv7" and not unknown:
        wanted = ".".join(map(str, _RWKV_PYTHON))
        need = f"RWKV7 is converted by a toolkit in Python {wanted} only, with requirements of its own"
        if python_version is None:
            notes.append(f"{need}.")
        elif python_version != _RWKV_PYTHON:
            other = f"{need}, and this one is in {'.'.join(map(str, python_version))}. Install it in Python {wanted}."
    if any(key in config for key in ("vision_config", "visual", "vision_cfg", "audio_config")):
        notes.append(
            "It sees or hears. Only its part for text becomes a .rkllm; the rest is a model of its own (.rknn), which "
            "rknn-toolkit2 makes."
        )
    kinds = _classes(config)
    if kinds and all(_WITHOUT_TEXT.search(one) for one in kinds):
        notes.append(f"It was published as {kinds[0]}: that may have no output for text.")
    return Verdict(family, label, unknown, other, tuple(notes))


def family_of(config: Mapping[str, Any]) -> str:
    """The model_type, without the ending of parts for text; empty if there is none."""
    return str(config.get("model_type") or setting(config, "model_type") or "").removesuffix("_text")


def setting(config: Mapping[str, Any], *keys: str) -> Any:
    """The first of the keys that is there, in the nested part about text before the rest; None if there is none."""
    parts = [config[one] for one in _NESTED if isinstance(config.get(one), Mapping)]
    found = (part[key] for part in (*parts, config) for key in keys if part.get(key) is not None)
    return next(found, None)


def config_of_gguf(header: Header) -> dict[str, Any]:
    """What is judged here, by the keys of a config.json."""
    family = str(header.pairs.get("general.architecture", ""))
    found = {
        "model_type": _GGUF_FAMILIES.get(family, family),
        "padded_vocab_size": header.lengths.get("tokenizer.ggml.tokens"),
        "num_experts": header.pairs.get(f"{family}.expert_count"),
        "max_position_embeddings": header.pairs.get(f"{family}.context_length"),
    }
    return {key: value for key, value in found.items() if value is not None}


def _why_not(
    family: str, config: Mapping[str, Any], toolkit: Toolkit, families: Mapping[str, str], listed: Collection[str]
) -> str:
    """Sentences, empty if nothing speaks against it. `families` are taken, and of those `listed` are told."""
    if not family:
        return "The configuration has no model_type, so the model's family is not known. Take the one of its makers."
    others = [one for one in TOOLKITS if family in one.families]
    if family not in families and others:
        version = others[0].version
        return (
            f"{others[0].families[family]} came with the toolkit {version}, and this is {toolkit.version}. "
            f"Install {version}, or take another model."
        )
    names = ", ".join(sorted(listed))
    if family in families:
        odd = _odd_one(family, config)
        return f"{odd} The toolkit {toolkit.version} converts: {names}. Take one of these." if odd else ""
    kind = _other_kind(family, config)
    why = kind or _NEAR.get(family, "")
    return (
        f"Models of the family {family!r} are not among those that the toolkit {toolkit.version} converts. "
        f"{f'{why} ' if why else ''}It converts: {names}. Take one of these"
        f"{'' if kind else ', or describe the layers with --custom-config'}."
    )


def _odd_one(family: str, config: Mapping[str, Any]) -> str:
    """Why a model of a family of the list is not meant by it; empty if it is."""
    vocabulary = setting(config, "padded_vocab_size", "vocab_size")
    if family == "chatglm" and vocabulary == _GLM4_VOCABULARY:
        return "It is GLM-4, which has the model_type of ChatGLM3 but 151552 tokens; of GLM only ChatGLM3 is converted."
    if family == "chatglm" and vocabulary != _CHATGLM3_VOCABULARY:
        other = "ChatGLM3, the only GLM that is converted"
        return f"With {vocabulary} tokens it is not {other}; that has {_CHATGLM3_VOCABULARY}."
    if family == "deepseek_vl_v2" and _classes(config) not in ([], [_DEEPSEEK_OCR]):
        return f"It is {_classes(config)[0]}, which has the model_type of DeepSeek-OCR ({_DEEPSEEK_OCR})."
    return _mixture(config) if family not in _MIXTURES else ""


def _classes(config: Mapping[str, Any]) -> list[str]:
    named = config.get("architectures")
    return [str(one) for one in named] if isinstance(named, list) else []


def _other_kind(family: str, config: Mapping[str, Any]) -> str:
    """Why not even a --custom-config could describe its layers; empty if one could."""
    plain = family.replace("-", "_")
    if _ENCODERS.fullmatch(plain) or config.get("is_encoder_decoder") is True:
        return "It is an encoder, or has one: Rockchip's runtime runs decoders only."
    if _STATES.fullmatch(plain):
        return "It has layers with a state in place of attention, and of those only RWKV7 and Qwen3.5 are converted."
    if plain in _OTHER_NORMS:
        return "Its layers use LayerNorm, and a --custom-config can tell of RMSNorm only."
    return _mixture(config)


def _mixture(config: Mapping[str, Any]) -> str:
    count = _experts(config)
    return f"It is a mixture of {count} experts, and of those only DeepSeek-OCR is converted." if count else ""


def _experts(config: Mapping[str, Any]) -> int:
    """How many; 0 for a model that is no mixture."""
    count = setting(config, *_EXPERTS)
    return count if isinstance(count, int) and count > 1 else 0
