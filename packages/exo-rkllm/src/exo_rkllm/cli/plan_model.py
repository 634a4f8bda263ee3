"""Which model `exo plan` is about: a card, a known name, or files on disk."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exo.types import ConfigurationError
from rkllm_facts.architecture import Architecture, architecture_of, gguf_architecture, known_model
from rkllm_facts.errors import IncompleteConfig, UnknownArchitecture, UnknownModel

_LARGEST_CONFIG = 1 << 24
_CONFIG = "config.json"
_EYES = "mmproj"
"""How the names of files begin that hold only the part of a model which sees."""


@dataclass(frozen=True)
class PlannedModel:
    name: str
    architecture: Architecture


def find_model(asked: str) -> PlannedModel:
    """By a path if there is one, else by name. Raises FactsError and ConfigurationError, which say what to give."""
    path = Path(asked)
    is_file = path.suffix.lower() in {".gguf", ".json"}
    if os.path.isdir(path):  # noqa: PTH112 - False for a name that no path can have
        return _in_folder(path)
    if is_file and os.path.isfile(path):  # noqa: PTH113 - as above
        return _in_file(path)
    if is_file:
        raise ConfigurationError(f"{asked} is not there: give the path of a config.json or of a .gguf file.")
    return _by_name(asked)


def _in_folder(folder: Path) -> PlannedModel:
    if (folder / _CONFIG).is_file():
        return PlannedModel(folder.resolve().name, _of_config(folder / _CONFIG))
    files = [path for path in sorted(folder.glob("*.gguf")) if not path.name.lower().startswith(_EYES)]
    if files:
        if files != _parts(files[0]):
            raise ConfigurationError(
                f"The folder {folder} has more than one model: name one of {', '.join(path.name for path in files)}."
            )
        return PlannedModel(folder.resolve().name, gguf_architecture(*files))
    try:
        return _by_name(folder.resolve().name)
    except UnknownModel:
        raise ConfigurationError(
            f"The folder {folder} has no {_CONFIG}, and no known model has its name: put the {_CONFIG} of the model's "
            "makers there."
        ) from None


def _in_file(path: Path) -> PlannedModel:
    if path.suffix.lower() == ".gguf":
        return PlannedModel(path.stem, gguf_architecture(*_parts(path)))
    return PlannedModel(path.resolve().parent.name if path.name == _CONFIG else path.stem, _of_config(path))


def _parts(path: Path) -> list[Path]:
    """The files of a model that is split, in order; else the file alone."""
    found = re.fullmatch(r"(.+)-[0-9]{5}-of-([0-9]{5})\.gguf", path.name)
    if not found:
        return [path]
    parts = [path.with_name(f"{found[1]}-{number:05}-of-{found[2]}.gguf") for number in range(1, int(found[2]) + 1)]
    missing = next((one for one in parts if not one.is_file()), None)
    if missing:
        raise ConfigurationError(f"{missing} is not there: {path.name} is one of {len(parts)} files of a model.")
    return parts


def _of_config(path: Path) -> Architecture:
    try:
        content = path.read_bytes() if path.stat().st_size <= _LARGEST_CONFIG else b""
        read: Any = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is no configuration in JSON that can be read: {error}.") from error
    if not isinstance(read, Mapping):
        raise ConfigurationError(f"{path} is no configuration: it has to be a JSON object.")
    try:
        return architecture_of(read)
    except (IncompleteConfig, UnknownArchitecture) as error:
        raise ConfigurationError(f"{path}: {error.message}") from error


def _by_name(name: str) -> PlannedModel:
    """The name of a known model, else a card's id or alias."""
    try:
        return PlannedModel(name, known_model(name).architecture)
    except UnknownModel:
        for repository in _repositories(name):
            with contextlib.suppress(UnknownModel):
                return PlannedModel(name, known_model(repository).architecture)
        raise


def _repositories(name: str) -> list[str]:
    """Where a card of that name says that the model is from."""
    from exo.inference import discover  # noqa: PLC0415 - loads every plugin's cards

    lowered = name.lower()
    cards = discover().cards().values()
    named = (card for card in cards if lowered in (known.lower() for known in (card.id, *card.aliases)))
    return [repository for card in named for repository in card.files.values()]
