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
    unknown = sorted(str(name) for name in set(fields) - set(ModelCard.__struct_fields__))
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
                card = _checked(model_id, entry)
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


def _checked(model_id: object, entry: object) -> ModelCard:
    """A plugin may offer anything; what comes out is a card with fields of the right types."""
    if not isinstance(model_id, str):
        raise PluginError(f"The id {model_id!r} of a model is not a text.")
    if isinstance(entry, Mapping):
        return card_from_short_shape(model_id, entry)
    if not isinstance(entry, ModelCard):
        raise PluginError(f"The card of model {model_id!r} is {entry!r}, and neither a ModelCard nor a dict.")
    if entry.id != model_id:
        raise PluginError(f"The card under the key {model_id!r} has the id {entry.id!r}; they have to be equal.")
    return card_from_short_shape(model_id, msgspec.structs.asdict(entry))
