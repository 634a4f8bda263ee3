from __future__ import annotations

import pytest

from exo.inference.dimensions import shortened
from exo.types import Embeddings, InvalidRequest, Usage

FOUND = Embeddings(vectors=((3.0, 4.0, 12.0), (0.0, 0.0, 1.0)), usage=Usage(prompt_tokens=5))


def test_vectors_are_cut_and_have_length_1_again() -> None:
    found = shortened(FOUND, 2)
    assert found.vectors[0] == pytest.approx((0.6, 0.8))
    assert found.vectors[1] == (0.0, 0.0), "a vector of zeros has no direction"
    assert found.usage == FOUND.usage


@pytest.mark.parametrize("dimensions", [None, 3])
def test_vectors_of_the_right_length_stay(dimensions: int | None) -> None:
    assert shortened(FOUND, dimensions).vectors == FOUND.vectors


def test_more_than_the_model_has_is_refused_with_both_numbers() -> None:
    with pytest.raises(InvalidRequest, match=r"4.*3") as caught:
        shortened(FOUND, 4)
    assert caught.value.param == "dimensions"


def test_without_vectors_there_is_nothing_to_shorten() -> None:
    assert shortened(Embeddings(vectors=(), usage=Usage()), 4).vectors == ()
