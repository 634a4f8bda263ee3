"""What is known of a stored model without loading it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from exo.models.modelfile import FILE_NAME, Modelfile, ModelParameters, read_modelfile
from exo.models.store import StoredModel


class ModelDescription(msgspec.Struct, frozen=True, kw_only=True):
    """One model, as `/api/show` and listings tell it. Empty or 0 where something is not known.

    `size` is in bytes, `modified` in seconds since 1970. `digest` changes when the files do; it is no hash of them.
    `format` is the kind of file (`gguf`, `rkllm`), `quantization` as written in its name. `context_length` is what
    the model is served with, in tokens. `modelfile` is its text; `parameters` is what it sets, by Ollama's names.
    """

    id: str
    size: int = 0
    modified: float = 0.0
    digest: str = ""
    format: str = ""
    family: str = ""
    parameters_count: int = 0
    parameter_size: str = ""
    quantization: str = ""
    context_length: int = 0
    embedding_length: int = 0
    template: str = ""
    system: str = ""
    licence: str = ""
    modelfile: str = ""
    parameters: Mapping[str, Any] = {}
    capabilities: tuple[str, ...] = ()


def describe_stored(description: ModelDescription, stored: StoredModel) -> ModelDescription:
    """With what the model's file tells."""
    return msgspec.structs.replace(
        description,
        size=stored.size,
        modified=stored.modified,
        digest=hashlib.sha256(
            f"{stored.path}\0{stored.size}\0{stored.modified}".encode("utf-8", "surrogatepass")
        ).hexdigest(),
        format=stored.path.suffix.removeprefix(".").lower(),
    )


def with_modelfile(description: ModelDescription, stored: StoredModel) -> ModelDescription:
    """With what the model's Modelfile says, if it has one. Raises StoreError for a faulty one."""
    if stored.folder is None:
        return description
    return said_by(description, read_modelfile(stored.folder), modelfile_text(stored.folder))


def said_by(description: ModelDescription, modelfile: Modelfile, text: str) -> ModelDescription:
    """With what a Modelfile of that text says."""
    return msgspec.structs.replace(
        description,
        template=modelfile.template or description.template,
        system=modelfile.system or "",
        licence=modelfile.licence or description.licence,
        modelfile=text,
        parameters=_set_ones(modelfile.parameters),
    )


def modelfile_text(folder: Path) -> str:
    """The Modelfile as it is written; empty if there is none that can be read."""
    try:
        return (folder / FILE_NAME).read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        return ""


def _set_ones(parameters: ModelParameters) -> dict[str, Any]:
    values = msgspec.structs.asdict(parameters)
    return {name: list(value) if name == "stop" else value for name, value in values.items() if value not in (None, ())}
