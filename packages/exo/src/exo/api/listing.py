"""The models that `/v1/models` lists, in whichever dialect."""

from __future__ import annotations

from exo.inference import InferenceService
from exo.inference.automatic import is_automatic
from exo.inference.cards import find_card
from exo.types import ModelCard
from exo.types.card import AUTO_MODEL

_AUTOMATIC = ModelCard(id=AUTO_MODEL, display_name="Automatic choice")


async def listed_models(service: InferenceService) -> list[ModelCard]:
    """What can be served, the default first: `auto` where that is the default, so that clients can choose it."""
    cards = await service.models()
    if not cards or not service.default_is_automatic or any(is_automatic(card.id) for card in cards):
        return cards
    return [_AUTOMATIC, *cards]


async def shown_model(service: InferenceService, name: str) -> ModelCard:
    """A model by its id or an alias, or `auto`, listed or not. Raises as InferenceService.resolve."""
    cards = await service.models()
    if is_automatic(name) and cards and find_card(cards, name) is None:
        return _AUTOMATIC
    return await service.resolve(name)
