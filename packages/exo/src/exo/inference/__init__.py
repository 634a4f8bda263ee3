"""The engine contract, plugin discovery, the scheduler and the built-in engines."""

from exo.inference.answer import Answer
from exo.inference.engine import Availability, Capability, EngineContext, EngineHealth, InferenceEngine
from exo.inference.metrics import NodeMetrics
from exo.inference.plugins import Choice, EngineListing, Plugins, choose, discover
from exo.inference.service import InferenceService, Readiness

__all__ = [
    "Answer",
    "Availability",
    "Capability",
    "Choice",
    "EngineContext",
    "EngineHealth",
    "EngineListing",
    "InferenceEngine",
    "InferenceService",
    "NodeMetrics",
    "Plugins",
    "Readiness",
    "choose",
    "discover",
]
