"""The engine contract, plugin discovery, the scheduler and the built-in engines."""

from exo.inference.answer import Answer
from exo.inference.automatic import is_automatic
from exo.inference.engine import (
    Availability,
    Capability,
    EngineContext,
    EngineHealth,
    InferenceEngine,
    ResidentModel,
    abilities,
    count_text,
    describe_card,
)
from exo.inference.metrics import NodeMetrics
from exo.inference.plugins import Choice, EngineListing, Plugins, choose, discover
from exo.inference.pool import ModelPool, PooledModel, with_load
from exo.inference.service import InferenceService, Readiness
from exo.inference.supervisor import describe_exit, restart_delay
from exo.types.card import LATEST

__all__ = [
    "LATEST",
    "Answer",
    "Availability",
    "Capability",
    "Choice",
    "EngineContext",
    "EngineHealth",
    "EngineListing",
    "InferenceEngine",
    "InferenceService",
    "ModelPool",
    "NodeMetrics",
    "Plugins",
    "PooledModel",
    "Readiness",
    "ResidentModel",
    "abilities",
    "choose",
    "count_text",
    "describe_card",
    "describe_exit",
    "discover",
    "is_automatic",
    "restart_delay",
    "with_load",
]
