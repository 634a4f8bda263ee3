"""Model cards, the store on disk, and pull."""

from exo.models.registry import card_from_short_shape, cards_by_id
from exo.models.store import ModelStore, StoredModel

__all__ = ["ModelStore", "StoredModel", "card_from_short_shape", "cards_by_id"]
