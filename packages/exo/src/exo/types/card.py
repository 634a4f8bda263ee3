"""Model cards: what is known of a model before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

ModelRole = Literal["quick", "reasoning"]


class ThinkingMarkers(msgspec.Struct, frozen=True):
    """The strings between which a model writes its reasoning."""

    open: str = "<think>"
    close: str = "</think>"


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """One model.

    `id` is the name clients use, `aliases` are further ones. `parameters` is a count, `context_length` in tokens; 0
    means not known. `files` says per engine name where the model's file comes from: `hub/repository[/file]`, or
    `wheel:DISTRIBUTION==VERSION/PATH` for a file inside a Python wheel. `sha256` is of that file, hexadecimal.
    """

    id: str
    display_name: str = ""
    family: str = ""
    parameters: int = 0
    layers: int = 0
    context_length: int = 0
    files: Mapping[str, str] = {}
    sha256: str = ""
    licence: str = ""
    thinking: ThinkingMarkers | None = None
    role: ModelRole = "quick"
    aliases: tuple[str, ...] = ()
