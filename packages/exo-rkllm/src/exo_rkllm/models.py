"""The models that are known to run on Rockchip's NPU.

No card says where a converted file comes from: converted models are published by private people, so whoever needs one
converts it, or chooses whom to trust. What stands under `repo` is the repository of the model's makers: it has the
tokenizer, and the weights that are converted, but no `.rkllm` file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from exo_rkllm.memory import KvGeometry

Family = Literal["qwen2", "deepseek-r1", "phi-3"]

DEFAULT_MAX_NEW_TOKENS = 4096
"""As Rockchip's own server: as much as the context that these models are converted with."""

_CONTEXT = 4096
"""What converters choose, and the toolkit's own example. The runtime refuses to load a model with more context than it
was converted for, so the makers' 32768 or more would make it fail. NUM_CTX in the Modelfile says more for a file that
has more."""

_QWEN_VOCABULARY = 151_665
"""Of the tokenizer: 151643 tokens of text and 22 further ones. The model's output is wider, up to 152064."""


@dataclass(frozen=True, slots=True)
class NpuCard:
    """What is known of a model beyond its ModelCard.

    - `tokenizer`: repository at Hugging Face whose tokenizer files belong to the model
    - `vocabulary`: ids from this one on are internal to the runtime, never text
    - `max_new_tokens`: longest answer in tokens where neither request nor Modelfile says
    - `family`: which chat template to use where the model's folder has none
    """

    tokenizer: str
    vocabulary: int
    family: Family
    kv: KvGeometry
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS


def _entry(repository: str, **fields: Any) -> dict[str, Any]:
    return {"repo": {"RKLLMInferenceEngine": repository}, "context_length": _CONTEXT, **fields}


RKLLM_PRETTY_NAMES: dict[str, str] = {
    "qwen2.5-1.5b-rkllm": "Qwen2.5 1.5B (RKLLM)",
    "qwen2.5-1.5b-instruct-rkllm": "Qwen2.5 1.5B Instruct (RKLLM)",
    "qwen2.5-3b-rkllm": "Qwen2.5 3B (RKLLM)",
    "qwen2.5-7b-rkllm": "Qwen2.5 7B (RKLLM)",
    "deepseek-r1-1.5b-rkllm": "DeepSeek R1 Distill Qwen 1.5B (RKLLM)",
    "phi-3-mini-rkllm": "Phi-3 mini 4K (RKLLM)",
}

RKLLM_MODELS: dict[str, dict[str, Any]] = {
    "qwen2.5-1.5b-rkllm": _entry(
        "Qwen/Qwen2.5-1.5B-Instruct",
        layers=28,
        display_name=RKLLM_PRETTY_NAMES["qwen2.5-1.5b-rkllm"],
        family="qwen2",
        parameters=1_543_714_304,
        licence="Apache-2.0",
        aliases=("Qwen2.5-1.5B",),
    ),
    "qwen2.5-1.5b-instruct-rkllm": _entry(
        "Qwen/Qwen2.5-1.5B-Instruct",
        layers=28,
        display_name=RKLLM_PRETTY_NAMES["qwen2.5-1.5b-instruct-rkllm"],
        family="qwen2",
        parameters=1_543_714_304,
        licence="Apache-2.0",
        aliases=("Qwen2.5-1.5B-Instruct",),
    ),
    "qwen2.5-3b-rkllm": _entry(
        "Qwen/Qwen2.5-3B-Instruct",
        layers=36,
        display_name=RKLLM_PRETTY_NAMES["qwen2.5-3b-rkllm"],
        family="qwen2",
        parameters=3_085_938_688,
        licence="Qwen Research License",
        aliases=("Qwen2.5-3B", "Qwen2.5-3B-Instruct"),
    ),
    "qwen2.5-7b-rkllm": _entry(
        "Qwen/Qwen2.5-7B-Instruct",
        layers=28,
        display_name=RKLLM_PRETTY_NAMES["qwen2.5-7b-rkllm"],
        family="qwen2",
        parameters=7_615_616_512,
        licence="Apache-2.0",
        aliases=("Qwen2.5-7B", "Qwen2.5-7B-Instruct"),
    ),
    "deepseek-r1-1.5b-rkllm": _entry(
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
        layers=28,
        display_name=RKLLM_PRETTY_NAMES["deepseek-r1-1.5b-rkllm"],
        family="deepseek-r1",
        parameters=1_777_088_000,
        licence="MIT",
        thinking={"open": "<think>", "close": "</think>"},
        role="reasoning",
        aliases=("DeepSeek-R1-1.5B", "DeepSeek-R1-Distill-Qwen-1.5B"),
    ),
    "phi-3-mini-rkllm": _entry(
        "microsoft/Phi-3-mini-4k-instruct",
        layers=32,
        display_name=RKLLM_PRETTY_NAMES["phi-3-mini-rkllm"],
        family="phi-3",
        parameters=3_821_079_552,
        licence="MIT",
        aliases=("Phi-3-mini", "Phi-3-mini-4k-instruct"),
    ),
}
"""Cards in the short shape. Their aliases are the folder names that stores of rkllama servers use."""

_QWEN_1_5B = NpuCard("Qwen/Qwen2.5-1.5B-Instruct", _QWEN_VOCABULARY, "qwen2", KvGeometry(28, 2, 128))

NPU_CARDS: Mapping[str, NpuCard] = MappingProxyType(
    {
        "qwen2.5-1.5b-rkllm": _QWEN_1_5B,
        "qwen2.5-1.5b-instruct-rkllm": _QWEN_1_5B,
        "qwen2.5-3b-rkllm": NpuCard("Qwen/Qwen2.5-3B-Instruct", _QWEN_VOCABULARY, "qwen2", KvGeometry(36, 2, 128)),
        "qwen2.5-7b-rkllm": NpuCard("Qwen/Qwen2.5-7B-Instruct", _QWEN_VOCABULARY, "qwen2", KvGeometry(28, 4, 128)),
        "deepseek-r1-1.5b-rkllm": NpuCard(
            "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
            _QWEN_VOCABULARY,  # 151935, which the runtime puts out in endless loops, is beyond it
            "deepseek-r1",
            KvGeometry(28, 2, 128),
            max_new_tokens=8192,  # it thinks for long: 17 minutes at the speed of an RK3588
        ),
        "phi-3-mini-rkllm": NpuCard("microsoft/Phi-3-mini-4k-instruct", 32_011, "phi-3", KvGeometry(32, 32, 96)),
    }
)
"""By the ids of RKLLM_MODELS."""


def npu_card(name: str, tokenizer: str = "") -> NpuCard | None:
    """What is known of a model by its id or an alias, else by the tokenizer that its Modelfile names; in any case."""
    for model_id, entry in RKLLM_MODELS.items():
        if name.lower() in (known.lower() for known in (model_id, *entry["aliases"])):
            return NPU_CARDS[model_id]
    return next((card for card in NPU_CARDS.values() if card.tokenizer.lower() == tokenizer.lower()), None)
