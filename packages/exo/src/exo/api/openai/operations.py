"""OpenAI's dialect in the OpenAPI document."""

from __future__ import annotations

from exo.api.openai import answer_schema, schema
from exo.api.operation import Operation

_FAILURES = (400, 404, 408, 413, 429, 500, 502, 503, 504)


def openai_operations(error: type) -> tuple[Operation, ...]:
    """The operations; `error` is the type of a refusal's body."""
    run = dict.fromkeys(_FAILURES, error)
    return (
        Operation(
            "post",
            "/v1/chat/completions",
            "Answer a conversation, whole or as a stream of server-sent events.",
            {200: answer_schema.ChatCompletion, **run},
            request=schema.ChatCompletionRequest,
            stream=answer_schema.ChatCompletionChunk,
        ),
        Operation(
            "post",
            "/v1/completions",
            "Continue raw prompts, whole or as a stream of server-sent events.",
            {200: answer_schema.TextCompletion, **run},
            request=schema.CompletionRequestIn,
            stream=answer_schema.TextCompletion,
        ),
        Operation(
            "post",
            "/v1/embeddings",
            "Embed texts.",
            {200: answer_schema.EmbeddingList, **run},
            request=schema.EmbeddingRequestIn,
        ),
        Operation(
            "get",
            "/v1/models",
            "The models that can be served now, the default first.",
            {200: answer_schema.ModelList},
        ),
        Operation(
            "get",
            "/v1/models/{model}",
            "One model, by its id or an alias.",
            {200: answer_schema.ModelOut, 404: error, 503: error},
            parameters=("model",),
        ),
    )
