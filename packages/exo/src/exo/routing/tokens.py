"""How long a request is, without a tokenizer."""

from __future__ import annotations

import msgspec

from exo.routing.rules import Cost
from exo.routing.text import count_ideographs
from exo.types import ChatRequest, CompletionRequest

_PER_MESSAGE = 8
"""What a chat template writes around a message."""
_SAMPLE = 4000


def estimated_tokens(request: ChatRequest | CompletionRequest, cost: Cost) -> int:
    """The tokens of the prompt, with its tools, and of the answer as far as the request limits it."""
    answer = request.limits.max_tokens or 0
    if isinstance(request, CompletionRequest):
        return _tokens_of(request.prompt, cost) + answer
    tools = len(msgspec.json.encode(request.tools)) / cost.characters_per_token if request.tools else 0
    messages = sum(_tokens_of(message.content, cost) + _PER_MESSAGE for message in request.messages)
    return int(messages + tools) + answer


def _tokens_of(text: str, cost: Cost) -> int:
    """By the share of ideographs in a sample: the text may be very long."""
    sample = text[:_SAMPLE]
    ideographs = count_ideographs(sample) * len(text) / max(1, len(sample))
    return int(ideographs * cost.tokens_per_ideograph + (len(text) - ideographs) / cost.characters_per_token)
