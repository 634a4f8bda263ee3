"""Embeddings: OpenAI's request to ours, and our answer to OpenAI's."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence

from exo.api.fields import refuse_unsupported
from exo.api.openai.answer import encode
from exo.api.openai.answer_schema import EmbeddingList, EmbeddingOut, EmbeddingUsage
from exo.api.openai.fields import EMBEDDINGS
from exo.api.openai.schema import MAX_INPUTS, EmbeddingRequestIn
from exo.api.openai.shared import texts_of
from exo.types import EmbeddingRequest, Embeddings, InvalidRequest


def embedding_request(wire: EmbeddingRequestIn, *, model: str, request_id: str) -> EmbeddingRequest:
    """The internal request. Raises InvalidRequest, UnsupportedParameter."""
    refuse_unsupported(wire, EMBEDDINGS)
    inputs = texts_of(wire.input, param="input", most=MAX_INPUTS)
    for number, text in enumerate(inputs):
        if not text:
            path = "input" if isinstance(wire.input, str) else f"input[{number}]"
            raise InvalidRequest(f"{path} is empty; there is nothing to be embedded.", param=path)
    return EmbeddingRequest(id=request_id, model=model, inputs=tuple(inputs), dimensions=wire.dimensions)


def embeddings_body(found: Embeddings, *, model: str, encoding_format: str | None) -> bytes:
    make = _base64 if encoding_format == "base64" else tuple
    tokens = found.usage.prompt_tokens
    return encode(
        EmbeddingList(
            data=[EmbeddingOut(index=number, embedding=make(vector)) for number, vector in enumerate(found.vectors)],
            model=model,
            usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
        )
    )


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
