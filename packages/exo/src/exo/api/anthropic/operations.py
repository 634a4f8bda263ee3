"""Anthropic's dialect in the OpenAPI document. Its list of models is told with OpenAI's, as the path is the same."""

from __future__ import annotations

from exo.api.anthropic import schema
from exo.api.operation import OF_RUNS, Operation

ANTHROPIC_OPERATIONS = (
    Operation(
        "post",
        "/v1/messages",
        "Answer a conversation of Anthropic's shape, whole or as a stream of server-sent events.",
        {200: schema.AnthropicAnswer},
        OF_RUNS,
        request=schema.MessagesRequest,
        stream=schema.AnthropicEvent,
    ),
    Operation(
        "post",
        "/v1/messages/count_tokens",
        "How many tokens the prompt of such a conversation has.",
        {200: schema.TokenCount},
        OF_RUNS,
        request=schema.CountTokensRequest,
    ),
)
