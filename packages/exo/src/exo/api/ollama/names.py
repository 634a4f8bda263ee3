"""Models by the names that Ollama's clients use."""

from __future__ import annotations

from exo.inference import LATEST
from exo.types import InvalidRequest


def without_latest(name: str) -> str:
    """The name without the tag that Ollama's clients put behind a name that has none."""
    return name if name == LATEST else name.removesuffix(LATEST)


def needed(model: str | None, name: str | None) -> str:
    """The model that a request names; older clients send `name`. Raises InvalidRequest."""
    found = model or name
    if not found:
        raise InvalidRequest("model is missing; /api/tags lists the models.", param="model")
    return found
