"""What the commands hand to the engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exo.cli.notify import without_manager
from exo.inference import EngineContext
from exo.models import ModelStore, cards_by_id
from exo_rkllm.models import RKLLM_MODELS
from exo_rkllm.settings import NpuSettings


def npu_environment(chosen: Mapping[str, Any], env: Mapping[str, str]) -> dict[str, str]:
    """What the engine is given: it drives the library here, whatever RKLLM_SERVER_HOST says."""
    own = {name: value for name, value in without_manager(env).items() if not name.startswith("RKLLM_SERVER_")}
    if chosen["models"] is not None:
        own["RKLLAMA_MODELS"] = str(chosen["models"])
    if chosen.get("platform") is not None:
        own["RKLLM_TARGET_PLATFORM"] = chosen["platform"]
    return own


def make_context(env: Mapping[str, str]) -> EngineContext:
    """A context whose store is that of rkllama. Raises ConfigurationError."""
    cards, _ = cards_by_id([("exo-rkllm", RKLLM_MODELS)])
    return EngineContext(store=ModelStore(NpuSettings.from_env(env).models_dir), cards=cards, env=env)
