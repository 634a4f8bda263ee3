"""The public names, pinned: a change here is a change for plugins and for the parts above."""

from __future__ import annotations

import importlib

import pytest

PUBLIC = {
    "exo.types": [
        "AuthenticationFailed",
        "BodyTimeout",
        "BodyTooLarge",
        "CapacityError",
        "ChatRequest",
        "CompletionRequest",
        "ConfigurationError",
        "ContextOverflow",
        "DeadlineExceeded",
        "Delta",
        "EmbeddingRequest",
        "Embeddings",
        "EndlessPadding",
        "EngineError",
        "EngineUnavailable",
        "ExoError",
        "FinishReason",
        "ForbiddenHost",
        "ForbiddenOrigin",
        "InsufficientMemory",
        "InvalidRequest",
        "Limits",
        "Message",
        "MethodNotAllowed",
        "ModelCard",
        "ModelLoadError",
        "ModelNotFound",
        "ModelRole",
        "NotFound",
        "OperatorError",
        "PluginError",
        "PullError",
        "QueueFull",
        "RequestError",
        "Role",
        "RunFailed",
        "RunTimedOut",
        "Sampling",
        "ShuttingDown",
        "StoreError",
        "ThinkingMarkers",
        "Timings",
        "ToolCall",
        "ToolCallDelta",
        "UnsupportedParameter",
        "Usage",
        "WorkerDied",
    ],
    "exo.chat": ["ChatTemplate", "GoTemplate", "ReasoningSplitter", "StopStrings", "Template", "Utf8Joiner"],
    "exo.models": [
        "ModelParameters",
        "ModelStore",
        "Modelfile",
        "StoredModel",
        "card_from_short_shape",
        "cards_by_id",
        "parse_modelfile",
        "read_modelfile",
    ],
    "exo.inference": [
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
        "choose",
        "describe_exit",
        "discover",
        "restart_delay",
    ],
}


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names_are_pinned(package: str) -> None:
    assert importlib.import_module(package).__all__ == PUBLIC[package]


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert [name for name in PUBLIC[package] if not hasattr(module, name)] == []


@pytest.mark.parametrize("package", PUBLIC)
def test_a_public_class_says_what_it_is_for(package: str) -> None:
    module = importlib.import_module(package)
    found = [getattr(module, name) for name in PUBLIC[package]]
    assert [one.__name__ for one in found if isinstance(one, type) and not one.__doc__] == []
