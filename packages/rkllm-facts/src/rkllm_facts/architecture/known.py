"""The models whose config.json is kept here, with its source."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from rkllm_facts.architecture.families import architecture_of
from rkllm_facts.architecture.model import Architecture
from rkllm_facts.errors import UnknownModel

__all__ = ["KnownModel", "known_architecture", "known_model", "known_models"]

_NEAR = 4


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One model.

    - `repository`: at Hugging Face, `owner/name`
    - `names`: further repositories and names of the same architecture
    - `benchmark`: name and size with which Rockchip's rows have it, None if they do not
    - `config`: the keys of its config.json that matter, and `source`, where they are from
    - `parameters`: as published, None if that is not known
    """

    repository: str
    names: tuple[str, ...]
    benchmark: tuple[str, str] | None
    config: Mapping[str, Any]
    source: str
    parameters: int | None

    @property
    def architecture(self) -> Architecture:
        return architecture_of(self.config)


@cache
def known_models() -> tuple[KnownModel, ...]:
    """Every one, in the order of the file. The file is read when it is first asked for."""
    text = (files("rkllm_facts") / "data" / "architectures.json").read_text(encoding="utf-8")
    return tuple(
        KnownModel(
            repository=entry["repository"],
            names=tuple(entry.get("names", ())),
            benchmark=tuple(entry["benchmark"]) if entry.get("benchmark") else None,
            config=MappingProxyType(entry["config"]),
            source=entry["source"],
            parameters=entry.get("parameters"),
        )
        for entry in json.loads(text)["models"]
    )


def known_architecture(name: str) -> Architecture:
    """By repository, with or without its owner, or by a folder's name as servers have it; in any case.

    Chip, quantisation and what else such names tell of a conversion is left out. Raises UnknownModel.
    """
    return known_model(name).architecture


def known_model(name: str) -> KnownModel:
    """As known_architecture."""
    found = _by_name()
    key = _key(name)
    for one in (key, *(re.sub(ending, "", key) for ending in _TUNING)):
        if one in found:
            return found[one]
    import difflib  # noqa: PLC0415 - for a mistake only

    near = difflib.get_close_matches(key, list(found), n=2 * _NEAR, cutoff=0.6)
    raise UnknownModel(name, list(dict.fromkeys(found[one].repository for one in near))[:_NEAR])


_TUNING = (r"(?:instruct|chat|it|base)(?:hf)?(?:v\d+)?$", r"(?:instruct|chat|it|base)(?:\d{4})?$")
_CONVERSION = re.compile(
    r"[-_ ](?:rk\d{4}s?|rv\d{4}b?|w\d{1,2}a\d{1,2}(?:[-_]g\d+)?|opt[-_]?\d|hybrid[-_]?(?:ratio)?[-_]?[\d.]+|"
    r"rkllm|npu|gguf|ctx[-_]?\d+k?|q\d_[\dk](?:_[a-z])?|v?\d\.\d\.\d)(?=[-_ .]|$)",
    re.IGNORECASE,
)


@cache
def _by_name() -> dict[str, KnownModel]:
    found: dict[str, KnownModel] = {}
    for model in known_models():
        for name in (model.repository, *model.names):
            found.setdefault(_key(name), model)
            found.setdefault(re.sub(_TUNING[0], "", _key(name)), model)
    return found


def _key(name: str) -> str:
    """Without owner, what a conversion adds, and whatever separates words, but for what is between digits: it tells
    1.5 from 15. An underscore there is a point, as in InternLM's names."""
    short = re.sub(r"\.(?:rkllm|gguf)$", "", name.strip().rpartition("/")[2], flags=re.IGNORECASE)
    previous = None
    while previous != short:
        previous, short = short, _CONVERSION.sub("", short)
    numbers = re.sub(r"(?<=\d)[-: ](?=\d)", "~", re.sub(r"(?<=\d)_(?=\d)", ".", short))
    return re.sub(r"(?<!\d)\.|\.(?!\d)|[-_: ]", "", numbers).lower()
