"""Model cards: what is known of a model before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

AUTO_MODEL = "auto"
"""The name with which a request leaves the choice of the model to the node."""
LATEST = ":latest"
"""What clients of Ollama put behind a name that has no tag."""
ModelRole = Literal["quick", "reasoning"]
ToolFormat = Literal["hermes", "llama3", "mistral", "deepseek", "phi"]
"""How a model writes its calls of functions, see exo.chat.tools."""
Pooling = Literal["mean", "cls", "last"]
"""How the vectors of a text's tokens become one: their mean, that of the first token, or that of the last one."""


class ThinkingMarkers(msgspec.Struct, frozen=True):
    """The strings between which a model writes its reasoning."""

    open: str = "<think>"
    close: str = "</think>"


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """One model.

    `id` is the name clients use, `aliases` are further ones. `parameters` is a count, `context_length` in tokens; 0
    means not known. `files` says per engine name where the model's file comes from: `hub/repository[/file]`, or
    `wheel:DISTRIBUTION==VERSION/PATH` for a file inside a Python wheel. `sha256` is of that file, hexadecimal.
    `tools` None: what the chat template tells.
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
    tools: ToolFormat | None = None
    pooling: Pooling | None = None
    role: ModelRole = "quick"
    aliases: tuple[str, ...] = ()
