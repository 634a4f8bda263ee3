"""What is known of models, as Ollama tells it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import Any

from exo.api.ollama.clock import UNKNOWN, nanoseconds, timestamp
from exo.api.ollama.schema import ModelDetails, ProcessOut, ShowAnswer, TagOut
from exo.inference import InferenceEngine, ResidentModel, describe_card
from exo.models import ModelDescription, with_from
from exo.types import ExoError, ModelCard

_FOR_EVER = 292 * 365.25 * 86400
"""Seconds. Ollama counts in nanoseconds of 63 bits; a model that stays for ever stays that long."""

logger = logging.getLogger(__name__)


async def describe(engine: InferenceEngine, card: ModelCard) -> ModelDescription:
    """What the engine knows of a model; where it fails, what the card tells, so that one model spoils no list."""
    try:
        return await engine.describe(card.id)
    except ExoError as error:
        logger.warning("%s cannot be described: %s", card.id, error.message)
        return describe_card(card)


def tag_of(found: ModelDescription) -> TagOut:
    return TagOut(
        name=found.id,
        model=found.id,
        modified_at=_modified(found),
        size=found.size,
        digest=found.digest,
        details=details_of(found),
    )


def process_of(resident: ResidentModel, found: ModelDescription) -> ProcessOut:
    """A model in memory. None lies in memory of a graphics card alone: CPU and NPU share the main memory."""
    expires = time.time() + min(resident.expires_in, _FOR_EVER)
    return ProcessOut(
        name=found.id,
        model=found.id,
        size=resident.size or found.size,
        digest=found.digest,
        details=details_of(found),
        expires_at=timestamp(nanoseconds(expires)),
        size_vram=0,
        context_length=resident.context or found.context_length,
    )


def show_of(found: ModelDescription) -> ShowAnswer:
    return ShowAnswer(
        modelfile=with_from(found.modelfile, found.id),
        parameters=_parameters_text(found.parameters),
        template=found.template,
        system=found.system,
        license=found.licence,
        details=details_of(found),
        model_info=_model_info(found),
        capabilities=list(found.capabilities),
        modified_at=_modified(found),
    )


def details_of(found: ModelDescription) -> ModelDetails:
    return ModelDetails(
        format=found.format,
        family=found.family,
        families=[found.family] if found.family else None,
        parameter_size=found.parameter_size,
        quantization_level=found.quantization,
    )


def _modified(found: ModelDescription) -> str:
    return timestamp(nanoseconds(found.modified)) if found.modified else UNKNOWN


def _model_info(found: ModelDescription) -> dict[str, str | int]:
    """Only what is known."""
    family = found.family or "general"
    info: dict[str, str | int] = {
        "general.architecture": found.family,
        "general.parameter_count": found.parameters_count,
        f"{family}.context_length": found.context_length,
        f"{family}.embedding_length": found.embedding_length,
    }
    return {name: value for name, value in info.items() if value}


def _parameters_text(parameters: Mapping[str, Any]) -> str:
    """A line for each value, with texts in quotes; a list has a line for each of its items."""
    lines = []
    for name, value in parameters.items():
        values = value if isinstance(value, list | tuple) else [value]
        lines += [f"{name:<30} {json.dumps(one, ensure_ascii=False)}" for one in values]
    return "\n".join(lines)
