"""What Ollama's dialect tells of models: /api/tags, /api/ps and /api/show."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import msgspec

from exo.inference.engine import ResidentModel
from exo.models import ModelDescription

_UNITS = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_NEVER = 10 * 365 * 86_400.0
"""A model that expires later than this stays for ever: servers write a far year for it."""
_FRACTION = re.compile(r"\.([0-9]+)")


class _Details(msgspec.Struct):
    format: str | None = None
    family: str | None = None
    parameter_size: str | None = None
    quantization_level: str | None = None


class _Tag(msgspec.Struct):
    name: str = ""
    model: str = ""
    modified_at: str | None = None
    size: int | None = None
    digest: str | None = None
    details: _Details | None = None


class ModelTags(msgspec.Struct):
    """What /api/tags answers; without `models` it is something else."""

    models: list[_Tag] | None

    def descriptions(self) -> Sequence[ModelDescription]:
        """One for each model; those without a name are left out."""
        return [_description(tag) for tag in self.models or () if tag.name or tag.model]


class _Running(msgspec.Struct):
    name: str = ""
    model: str = ""
    size: int | None = None
    context_length: int | None = None
    expires_at: str | None = None


class RunningModels(msgspec.Struct):
    """What /api/ps answers; without `models` it is something else."""

    models: list[_Running] | None

    def resident(self) -> Sequence[ResidentModel]:
        now = datetime.now(timezone.utc).timestamp()
        return [
            ResidentModel(
                id=one.name or one.model,
                size=one.size or 0,
                context=one.context_length or 0,
                expires_in=_remaining(one.expires_at, now),
            )
            for one in self.models or ()
        ]


class ShownModel(msgspec.Struct):
    """What /api/show answers."""

    template: str | None = None
    system: str | None = None
    license: str | Sequence[str] | None = None
    modelfile: str | None = None
    parameters: str | None = None
    details: _Details | None = None
    model_info: Mapping[str, Any] | None = None
    capabilities: Sequence[str] | None = None

    def added_to(self, known: ModelDescription, *, is_exo: bool) -> ModelDescription:
        """What is known, with these details. `is_exo`: the context in `model_info` is the one that is served."""
        details = self.details or _Details()
        licence = self.license or ""
        parameters = parameters_in(self.parameters or "")
        context = self._number(".context_length")
        return msgspec.structs.replace(
            known,
            format=known.format or details.format or "",
            family=known.family or details.family or "",
            parameter_size=known.parameter_size or details.parameter_size or "",
            quantization=known.quantization or details.quantization_level or "",
            parameters_count=self._number("general.parameter_count") or known.parameters_count,
            context_length=(context if is_exo else _served(parameters, context)) or known.context_length,
            embedding_length=self._number(".embedding_length") or known.embedding_length,
            template=self.template or "",
            system=self.system or "",
            licence=licence if isinstance(licence, str) else "\n".join(licence),
            modelfile=self.modelfile or "",
            parameters=parameters,
            capabilities=tuple(self.capabilities or known.capabilities),
        )

    def _number(self, ending: str) -> int:
        for name, value in (self.model_info or {}).items():
            if name.endswith(ending) and isinstance(value, int):
                return value
        return 0


def _served(parameters: Mapping[str, Any], longest: int) -> int:
    """The context of a model in Ollama, whose `model_info` has the longest one; 0 where no parameter sets it."""
    chosen = parameters.get("num_ctx")
    if not isinstance(chosen, int) or chosen <= 0:
        return 0
    return min(chosen, longest) if longest > 0 else chosen


def parameters_in(text: str) -> dict[str, Any]:
    """Lines such as `temperature 0.7` or `stop "<|end|>"`; a name that comes more than once has a list of values."""
    found: dict[str, Any] = {}
    for line in text.splitlines():
        name, _, written = line.strip().partition(" ")
        if not name:
            continue
        value = _value(written.strip())
        if name in found or name == "stop":
            found.setdefault(name, [])
            found[name] = [*(found[name] if isinstance(found[name], list) else [found[name]]), value]
        else:
            found[name] = value
    return found


def count_of(size: str) -> int:
    """The number that a size such as 135M or 1.5B stands for; 0 for anything else."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMBT])", size.strip().upper(), re.ASCII)
    return round(float(match[1]) * _UNITS[match[2]]) if match else 0


def time_of(text: str | None) -> float:
    """Seconds since 1970 of a time as RFC 3339 writes it; 0 if it is none."""
    digits = _FRACTION.sub(lambda match: f".{match[1]:0<6.6}", text or "")  # Python 3.10 takes 3 or 6 of them only
    try:
        moment = datetime.fromisoformat(digits.replace("Z", "+00:00"))
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return text.strip('"')


def _remaining(expires_at: str | None, now: float) -> float:
    moment = time_of(expires_at)
    left = moment - now
    return math.inf if not moment or left > _NEVER else max(0.0, left)


def _description(tag: _Tag) -> ModelDescription:
    details = tag.details or _Details()
    return ModelDescription(
        id=tag.name or tag.model,
        size=tag.size or 0,
        modified=max(0.0, time_of(tag.modified_at)),  # servers write the year 1 for what they do not know
        digest=(tag.digest or "").removeprefix("sha256:"),
        format=details.format or "",
        family=details.family or "",
        parameters_count=count_of(details.parameter_size or ""),
        parameter_size=details.parameter_size or "",
        quantization=details.quantization_level or "",
        capabilities=("completion",),
    )
