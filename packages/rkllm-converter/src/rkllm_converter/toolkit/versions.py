"""What each release of Rockchip's toolkit takes.

Source: the SDK manuals of 1.2.3 and 1.3.0 and the lists of supported models in the READMEs of these releases. Where
they are silent the choice is written beside the value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rkllm_converter.errors import UnknownToolkit

__all__ = [
    "ALGORITHM",
    "ALGORITHMS_FOR_FOUR_BITS",
    "CONTEXT_STEP",
    "DEVICES",
    "DTYPES",
    "LARGEST_LORA",
    "LONGEST_CONTEXT",
    "NEWEST",
    "OPTIMIZATION_LEVELS",
    "TOOLKITS",
    "Toolkit",
    "toolkit",
]

LONGEST_CONTEXT = 16384
CONTEXT_STEP = 32
OPTIMIZATION_LEVELS = (0, 1)
DEVICES = ("cpu", "cuda")
DTYPES = ("float32", "float16", "bfloat16")
LARGEST_LORA = 64
"""`normal_r1` to `normal_r64`: the algorithm, with an extra low-rank adapter of that rank."""

ALGORITHM = re.compile(r"(normal|gdq|grq)(?:_r([1-9][0-9]?))?", re.ASCII)
ALGORITHMS_FOR_FOUR_BITS = ("grq", "gdq")
"""For the types w4a16 only, and on a GPU. The manual of 1.3.0 says so of grq; taken to hold for 1.2.3 and gdq too."""


@dataclass(frozen=True, slots=True)
class Toolkit:
    """One release.

    - `algorithms`: without the endings _r1 to _r64, which all of them may have
    - `pythons`: the versions of CPython there are wheels for, all for x86_64 Linux. Only told, in docs/CONVERSION.md:
      one that has the toolkit has a wheel for it
    - `families`: the `model_type` of models it is said to convert, each with the name it has in the list
    - `exports_parts`: whether export_rkllm takes export_tokenizer and export_embedding
    - `transformers`: the version that its requirements ask for. Only told, as above
    """

    version: str
    algorithms: tuple[str, ...]
    pythons: tuple[tuple[int, int], ...]
    families: Mapping[str, str]
    exports_parts: bool
    transformers: str


_FAMILIES_1_2_3 = {
    "chatglm": "ChatGLM3",
    "deepseek_vl_v2": "DeepSeek-OCR",
    "gemma2": "Gemma 2",
    "gemma3": "Gemma 3",
    "gemma3n": "Gemma 3n",
    "idefics3": "SmolVLM",
    "internlm2": "InternLM2",
    "internvl_chat": "InternVL",
    "llama": "Llama",
    "minicpm": "MiniCPM4",
    "minicpm3": "MiniCPM3",
    "minicpmv": "MiniCPM-V",
    "multi_modality": "Janus-Pro",
    "phi": "Phi-2",
    "phi3": "Phi-3",
    "qwen2": "Qwen2, Qwen2.5",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen2_vl": "Qwen2-VL",
    "qwen3": "Qwen3",
    "qwen3_vl": "Qwen3-VL",
    "rwkv7": "RWKV7",
    "smolvlm": "SmolVLM",
    "telechat": "TeleChat2",
}
_PYTHONS = ((3, 9), (3, 10), (3, 11), (3, 12))

TOOLKITS = (
    Toolkit(
        version="1.2.3",
        algorithms=("normal", "gdq", "grq"),
        pythons=_PYTHONS,
        families=MappingProxyType(_FAMILIES_1_2_3),
        exports_parts=False,
        transformers="4.55.2",
    ),
    Toolkit(
        version="1.3.0",
        algorithms=("normal", "grq"),
        pythons=_PYTHONS,
        families=MappingProxyType({**_FAMILIES_1_2_3, "gemma4": "Gemma 4", "qwen3_5": "Qwen3.5", "smollm3": "SmolLM3"}),
        exports_parts=True,
        transformers="5.8.0",
    ),
)

NEWEST = TOOLKITS[-1].version


def toolkit(version: str) -> Toolkit:
    """What is known of that release. Raises UnknownToolkit."""
    for one in TOOLKITS:
        if one.version == version:
            return one
    known = ", ".join(one.version for one in TOOLKITS)
    raise UnknownToolkit(
        f"The toolkit {version!r} is not known here: how it is called may differ. Install one of: {known}, or say with "
        "--toolkit-version which of them it is like."
    )
