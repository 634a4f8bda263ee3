"""What both dialects write and read alike."""

from __future__ import annotations

from typing import Any

from exo.types import Embeddings, Limits, RemoteFailed, Sampling, Usage

SEEDS = 2**32 - 1
"""llama.cpp behind a server takes 32 bits, of which the last value means a random seed."""


def sampling_json(sampling: Sampling) -> dict[str, Any]:
    """The fields that are set; both dialects have the same names for them."""
    body: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": None if sampling.seed is None else sampling.seed % SEEDS,
    }
    return {name: value for name, value in body.items() if value is not None}


def limits_json(limits: Limits, max_tokens: str) -> dict[str, Any]:
    """The limits that are set, the cap under the dialect's own name for it. The deadline is the node's business."""
    body: dict[str, Any] = {}
    if limits.max_tokens is not None:
        body[max_tokens] = limits.max_tokens
    if limits.stop:
        body["stop"] = list(limits.stop)
    return body


def embeddings(host: str, vectors: tuple[tuple[float, ...], ...], texts: int, usage: Usage) -> Embeddings:
    """The vectors for so many texts. Raises RemoteFailed if the server did not send one for each."""
    if len(vectors) != texts:
        raise RemoteFailed(f"The server at {host} sent {len(vectors)} vectors for {texts} texts.")
    return Embeddings(vectors=vectors, usage=usage)
