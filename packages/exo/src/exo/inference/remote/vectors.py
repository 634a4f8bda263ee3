"""The vectors of an answer, which both dialects have."""

from __future__ import annotations

from exo.types import Embeddings, RemoteFailed, Usage


def embeddings(host: str, vectors: tuple[tuple[float, ...], ...], texts: int, usage: Usage) -> Embeddings:
    """The vectors for so many texts. Raises RemoteFailed if the server did not send one for each."""
    if len(vectors) != texts:
        raise RemoteFailed(f"The server at {host} sent {len(vectors)} vectors for {texts} texts.")
    return Embeddings(vectors=vectors, usage=usage)
