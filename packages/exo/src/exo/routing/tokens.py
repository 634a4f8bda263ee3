"""How long a request is, without a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from exo.routing.rules import Cost
from exo.routing.text import count_ideographs
from exo.types import ChatRequest, CompletionRequest

_PER_MESSAGE = 8
"""What a chat template writes around a message, or around a call of a tool."""
_SAMPLE = 2000


def estimated_tokens(request: ChatRequest | CompletionRequest, cost: Cost) -> int:
    """The tokens of the prompt, with its tools, and of the answer as far as the request limits it."""
    answer = request.limits.max_tokens or 0
    if isinstance(request, CompletionRequest):
        return _tokens_of(request.prompt, cost) + answer
    parts = len(request.messages) + sum(len(message.tool_calls) for message in request.messages)
    return _tokens_of("".join(_texts_of(request)), cost) + parts * _PER_MESSAGE + answer


def _texts_of(request: ChatRequest) -> Iterator[str]:
    for message in request.messages:
        yield message.content
        yield message.reasoning
        for call in message.tool_calls:
            yield call.name
            yield call.arguments
    if request.tools:
        yield msgspec.json.encode(request.tools).decode()


def _tokens_of(text: str, cost: Cost) -> int:
    """By the shares of ideographs and of other letters outside ASCII in a sample: the text may be very long."""
    if text.isascii():
        return int(len(text) / cost.characters_per_token)
    sample = text[:: (len(text) // _SAMPLE + 1) | 1]  # an odd step, as some texts repeat every second character
    each = len(text) / len(sample)
    plain = len(sample.encode("ascii", "ignore")) * each
    ideographs = count_ideographs(sample) * each
    elsewhere = len(text) - plain - ideographs
    return int(
        plain / cost.characters_per_token
        + ideographs * cost.tokens_per_ideograph
        + elsewhere / cost.characters_per_token_elsewhere
    )
