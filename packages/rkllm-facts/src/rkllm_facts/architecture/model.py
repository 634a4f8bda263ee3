"""What a model consists of, as far as speed and memory depend on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Architecture", "Matrix"]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A kind of matrix: `copies` in the model, of which `active` are multiplied for each token.

    They differ for a mixture of experts only.
    """

    name: str
    outputs: int
    inputs: int
    copies: int
    active: int

    @property
    def values(self) -> int:
        """Of one copy."""
        return self.outputs * self.inputs


@dataclass(frozen=True, slots=True)
class Architecture:
    """Numbers are of values, not of bytes.

    - `matrices`: every matrix that is multiplied; `output`, which makes the logits, is one of them even where it is
      tied to the embeddings: the runtime keeps it quantised, and the embeddings as they were
    - `vectors`: norms, biases and other parameters that are in no matrix
    - `embedding_values`: the table of the vocabulary, of which a token needs one row; `per_layer_embedding_values` that
      of models which have a further row for each layer
    - `kv_values`: keys and values of all layers for one position; keys and values of latent attention as they are once
      expanded
    - `mixing_values`: queries, keys and values of all layers for one position, whether kept or not
    - `score_values`: multiply-adds of attention for each pair of positions
    - `state_values`: what recurrent layers keep, whatever the length of the text
    - `recurrent_layers`: how many of `layers` have such a state
    - `is_understood`: False if nothing is known of the family, and it was taken for a plain decoder
    """

    family: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied_embeddings: bool
    matrices: tuple[Matrix, ...]
    vectors: int
    kv_values: int
    mixing_values: int
    score_values: int
    state_values: int = 0
    recurrent_layers: int = 0
    per_layer_embedding_values: int = 0
    is_understood: bool = True

    @property
    def embedding_values(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def weight_values(self) -> int:
        """Of all matrices."""
        return self._sum(lambda matrix: matrix.values * matrix.copies)

    @property
    def active_values(self) -> int:
        """Of the matrices that are read for each token."""
        return self._sum(lambda matrix: matrix.values * matrix.active)

    @property
    def multiplications(self) -> int:
        """How many matrices are multiplied for each token."""
        return self._sum(lambda matrix: matrix.active)

    @property
    def output_values(self) -> int:
        return self._sum(lambda matrix: matrix.values if matrix.name == "output" else 0)

    @property
    def parameters(self) -> int:
        """As the model's makers count them: a table that is used twice counts once."""
        shared = self.output_values if self.tied_embeddings else 0
        tables = self.embedding_values + self.per_layer_embedding_values
        return self.weight_values - shared + tables + self.vectors

    @property
    def is_mixture(self) -> bool:
        return any(matrix.active < matrix.copies for matrix in self.matrices)

    def _sum(self, value: Callable[[Matrix], int]) -> int:
        return sum(value(matrix) for matrix in self.matrices)
