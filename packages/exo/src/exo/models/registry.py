"""Cards from several sources, brought into one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from exo.types import ModelCard, PluginError


def card_from_short_shape(model_id: str, entry: Mapping[str, Any]) -> ModelCard:
    """A card from the short shape `{"layers": 28, "repo": {"RKLLMInferenceEngine": "hub/repo"}}`.

    Further keys may be any field of ModelCard. Raises PluginError for a key or a value that does not fit.
    """
    fields = dict(entry)
    fields.setdefault("files", fields.pop("repo", {}))
    unknown = sorted(set(fields) - set(ModelCard.__struct_fields__))
    if unknown:
        raise PluginError(f"The card of model {model_id!r} has unknown keys: {', '.join(unknown)}.")
    try:
        return msgspec.convert({**fields, "id": model_id}, ModelCard)
    except msgspec.ValidationError as error:
        raise PluginError(f"The card of model {model_id!r} does not fit: {error}.") from error


def cards_by_id(sources: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[dict[str, ModelCard], list[str]]:
    """Merge `(source name, {id: card or short shape})` pairs.

    Returns the cards and a sentence for each entry that was left out: the first source of an id or alias keeps it.
    """
    cards: dict[str, ModelCard] = {}
    owners: dict[str, str] = {}
    problems: list[str] = []
    for source, entries in sources:
        for model_id, entry in entries.items():
            try:
                card = entry if isinstance(entry, ModelCard) else card_from_short_shape(model_id, entry)
            except PluginError as error:
                problems.append(f"{source}: {error.message}")
                continue
            taken = [name for name in (card.id, *card.aliases) if name in owners]
            if taken:
                problems.append(f"{source}: the name {taken[0]!r} already belongs to a model of {owners[taken[0]]}.")
                continue
            cards[card.id] = card
            owners.update(dict.fromkeys((card.id, *card.aliases), source))
    return cards, problems
