"""OpenAI's dialect in the OpenAPI document, and the list of models, whose path Anthropic's clients ask too."""

from __future__ import annotations

from exo.api.anthropic.schema import AnthropicModel, AnthropicModelList
from exo.api.openai import answer_schema, schema
from exo.api.operation import OF_RUNS, Operation

_ANTHROPIC = {"anthropic-version": "With any value the answer has Anthropic's shape."}
_END = "[DONE]"

OPENAI_OPERATIONS = (
    Operation(
        "post",
        "/v1/chat/completions",
        "Answer a conversation, whole or as a stream of server-sent events. Also at /chat/completions.",
        {200: answer_schema.ChatCompletion},
        OF_RUNS,
        request=schema.ChatCompletionRequest,
        stream=answer_schema.ChatCompletionChunk,
        stream_end=_END,
    ),
    Operation(
        "post",
        "/v1/completions",
        "Continue raw prompts, whole or as a stream of server-sent events.",
        {200: answer_schema.TextCompletion},
        OF_RUNS,
        request=schema.CompletionRequestIn,
        stream=answer_schema.TextCompletion,
        stream_end=_END,
    ),
    Operation(
        "post",
        "/v1/embeddings",
        "Embed texts.",
        {200: answer_schema.EmbeddingList},
        OF_RUNS,
        request=schema.EmbeddingRequestIn,
    ),
    Operation(
        "get",
        "/v1/models",
        "The models that can be served now, the default first. On exo also at /models.",
        {200: (answer_schema.ModelList, AnthropicModelList)},
        headers=_ANTHROPIC,
    ),
    Operation(
        "get",
        "/v1/models/{model}",
        "One model, by its id or an alias.",
        {200: (answer_schema.ModelOut, AnthropicModel)},
        (404, 503),
        parameters=("model",),
        headers=_ANTHROPIC,
    ),
)
