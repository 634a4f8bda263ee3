"""Ollama's dialect in the OpenAPI document."""

from __future__ import annotations

from exo.api.ollama import schema
from exo.api.operation import OF_RUNS, Operation

_NDJSON = "application/x-ndjson"
_CHANGE = (400, 404, 409, 500, 502, 507)

OLLAMA_OPERATIONS = (
    Operation(
        "post",
        "/api/chat",
        "Answer a conversation; line by line unless stream is false.",
        {200: schema.OllamaChatAnswer},
        OF_RUNS,
        request=schema.OllamaChatRequest,
        stream=schema.OllamaChatAnswer,
        stream_type=_NDJSON,
    ),
    Operation(
        "post",
        "/api/generate",
        "Answer a prompt, or continue a raw one; line by line unless stream is false.",
        {200: schema.OllamaGenerateAnswer},
        OF_RUNS,
        request=schema.OllamaGenerateRequest,
        stream=schema.OllamaGenerateAnswer,
        stream_type=_NDJSON,
    ),
    Operation(
        "post",
        "/api/embed",
        "Embed texts.",
        {200: schema.OllamaEmbedAnswer},
        OF_RUNS,
        request=schema.OllamaEmbedRequest,
    ),
    Operation(
        "post",
        "/api/embeddings",
        "Embed one text; /api/embed takes several.",
        {200: schema.OllamaEmbeddingsAnswer},
        OF_RUNS,
        request=schema.OllamaEmbeddingsRequest,
    ),
    Operation("get", "/api/tags", "The models that can be served now, the default first.", {200: schema.TagList}),
    Operation("get", "/api/ps", "The models in memory.", {200: schema.ProcessList}),
    Operation(
        "post",
        "/api/show",
        "What is known of a model.",
        {200: schema.ShowAnswer},
        (404,),
        request=schema.OllamaShowRequest,
    ),
    Operation(
        "post",
        "/api/pull",
        "Bring a model into the store; line by line unless stream is false.",
        {200: schema.ProgressLine},
        _CHANGE,
        request=schema.OllamaPullRequest,
        stream=schema.ProgressLine,
        stream_type=_NDJSON,
    ),
    Operation(
        "post",
        "/api/create",
        "Make a model of another one; line by line unless stream is false.",
        {200: schema.ProgressLine},
        _CHANGE,
        request=schema.OllamaCreateRequest,
        stream=schema.ProgressLine,
        stream_type=_NDJSON,
    ),
    Operation(
        "post",
        "/api/copy",
        "Give a model a second name.",
        {200: "application/json"},
        _CHANGE,
        request=schema.OllamaCopyRequest,
    ),
    Operation(
        "delete",
        "/api/delete",
        "Unload a model and delete its files.",
        {200: "application/json"},
        _CHANGE,
        request=schema.OllamaDeleteRequest,
    ),
    Operation("post", "/api/push", "Refused: models are not pushed from here.", {}, (400,)),
    Operation("post", "/api/blobs/{digest}", "Refused: files are not uploaded.", {}, (400,), parameters=("digest",)),
    Operation("head", "/api/blobs/{digest}", "404: no blobs are kept.", {}, (404,), parameters=("digest",)),
    Operation("get", "/api/version", "The node's version.", {200: schema.Version}),
)
