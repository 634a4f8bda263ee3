"""Models by the names that Ollama's clients use."""

from __future__ import annotations

from exo.inference import InferenceService
from exo.types import InvalidRequest, ModelCard, ModelNotFound

_LATEST = ":latest"


def without_latest(name: str) -> str:
    """The name without the tag that Ollama's clients put behind a name that has none."""
    return name[: -len(_LATEST)] if name.endswith(_LATEST) and name != _LATEST else name


def needed(model: str | None, name: str | None) -> str:
    """The model that a request names; older clients send `name`. Raises InvalidRequest."""
    found = model or name
    if not found:
        raise InvalidRequest("model is missing; /api/tags lists the models.", param="model")
    return found


async def find_model(service: InferenceService, name: str) -> ModelCard:
    """The card for an id or an alias, where no model has that name also without `:latest`. Raises ModelNotFound."""
    try:
        return await service.resolve(name)
    except ModelNotFound as error:
        shorter = without_latest(name)
        if shorter == name:
            raise
        not_found = error
    try:
        return await service.resolve(shorter)
    except ModelNotFound:
        raise not_found from None
