"""Model cards, the store on disk, the Modelfile, and pull."""

from exo.models.modelfile import Modelfile, ModelParameters, parse_modelfile, read_modelfile
from exo.models.registry import card_from_short_shape, cards_by_id
from exo.models.store import ModelStore, StoredModel

__all__ = [
    "ModelParameters",
    "ModelStore",
    "Modelfile",
    "StoredModel",
    "card_from_short_shape",
    "cards_by_id",
    "parse_modelfile",
    "read_modelfile",
]
