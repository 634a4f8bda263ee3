"""Anthropic's dialect in the OpenAPI document. Its list of models is told there as OpenAI's clients see it."""

from __future__ import annotations

from exo.api.anthropic import schema
from exo.api.operation import Operation

_REFUSED = dict.fromkeys((400, 404, 408, 413, 429, 500, 502, 503, 504), schema.AnthropicError)

ANTHROPIC_OPERATIONS = (
    Operation(
        "post",
        "/v1/messages",
        "Answer a conversation of Anthropic's shape, whole or as a stream of server-sent events.",
        {200: schema.AnthropicAnswer, **_REFUSED},
        request=schema.MessagesRequest,
        stream=schema.AnthropicEvent,
    ),
    Operation(
        "post",
        "/v1/messages/count_tokens",
        "How many tokens the prompt of such a conversation has.",
        {200: schema.TokenCount, **_REFUSED},
        request=schema.CountTokensRequest,
    ),
)
