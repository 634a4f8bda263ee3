"""Which card a name means."""

from __future__ import annotations

from collections.abc import Sequence

from exo.types import ModelCard
from exo.types.card import LATEST


def find_card(cards: Sequence[ModelCard], name: str | None) -> ModelCard | None:
    """The card of that id, else of that alias, else of either without regard to case, or without `:latest`."""
    if name is None:
        return None
    return _find(cards, name) or (_find(cards, name.removesuffix(LATEST)) if name.endswith(LATEST) else None)


def _find(cards: Sequence[ModelCard], name: str) -> ModelCard | None:
    exact = next((card for card in cards if card.id == name), None)
    if exact is not None:
        return exact
    lowered = name.lower()
    return next((card for card in cards if name in card.aliases), None) or next(
        (card for card in cards if lowered in map(str.lower, (card.id, *card.aliases))), None
    )
