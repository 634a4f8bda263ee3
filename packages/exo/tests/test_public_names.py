"""The public names, pinned: a change here is a change for plugins and for the parts above."""

from __future__ import annotations

import importlib

import pytest

PUBLIC = {
    "exo.types": [
        "AnswerFormat",
        "AnswerNotValid",
        "AuthenticationFailed",
        "BadModelName",
        "BadModelfile",
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
        "ModelExists",
        "ModelLoadError",
        "ModelNotFound",
        "ModelRole",
        "NotEnoughDisk",
        "NotFound",
        "OperatorError",
        "PluginError",
        "PullError",
        "QueueFull",
        "RemoteFailed",
        "RemoteUnavailable",
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
    "exo.chat": [
        "ChatTemplate",
        "GoTemplate",
        "ReasoningSplitter",
        "StopStrings",
        "Template",
        "Utf8Joiner",
    ],
    "exo.models": [
        "HubLibrary",
        "ModelDescription",
        "ModelLibrary",
        "ModelParameters",
        "ModelStore",
        "Modelfile",
        "Progress",
        "Report",
        "StoredModel",
        "card_from_short_shape",
        "cards_by_id",
        "describe_stored",
        "modelfile_text",
        "parse_keep_alive",
        "parse_modelfile",
        "read_modelfile",
        "said_by",
        "with_modelfile",
        "write_modelfile",
    ],
    "exo.inference": [
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
        "choose",
        "count_text",
        "describe_card",
        "describe_exit",
        "discover",
        "restart_delay",
    ],
    "exo.api": [
        "HttpSettings",
        "KeyRing",
        "bind",
        "create_app",
        "serve",
    ],
    "exo.api.dialect": [
        "Endpoint",
        "Exchange",
        "StreamWriter",
        "WholeWriter",
        "answer_request",
        "body_message",
        "cancelled_when_gone",
        "decode",
        "exchange_of",
        "log_prompt",
        "note_late",
        "plain_error",
        "read_body",
        "send_json",
        "send_stream",
        "send_whole",
        "start_message",
    ],
    "exo.program": [
        "Ask",
        "Program",
        "ask_node",
        "ask_service",
        "chat_in_terminal",
        "curl_example",
        "serve_program",
        "service_of",
        "set_up_logs",
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
