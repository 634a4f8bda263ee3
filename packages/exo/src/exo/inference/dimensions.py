"""Vectors of fewer dimensions than a model gives."""

from __future__ import annotations

import math

from exo.types import Embeddings, InvalidRequest


def shortened(found: Embeddings, dimensions: int | None) -> Embeddings:
    """The vectors cut to so many numbers, and then scaled to length 1. Raises InvalidRequest if they have fewer."""
    if dimensions is None or not found.vectors:
        return found
    shortest = min(map(len, found.vectors))
    if dimensions > shortest:
        raise InvalidRequest(
            f"dimensions is {dimensions}, but the vectors of this model have {shortest} numbers.", param="dimensions"
        )
    vectors = (vector if len(vector) == dimensions else _unit(vector[:dimensions]) for vector in found.vectors)
    return Embeddings(vectors=tuple(vectors), usage=found.usage)


def _unit(vector: tuple[float, ...]) -> tuple[float, ...]:
    length = math.hypot(*vector)
    return tuple(number / length for number in vector) if length else vector
