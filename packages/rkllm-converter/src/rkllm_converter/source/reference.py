"""From what a user names to a model: one of the hub, a folder, or a GGUF file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from rkllm_converter.errors import ModelNotFound, SourceError
from rkllm_converter.names import REPOSITORY
from rkllm_converter.source.local import check_folder, look_at_folder, look_at_gguf
from rkllm_converter.source.model import Source

__all__ = ["fetch", "look"]

_LINK = re.compile(r"https?://[^/]+/([^/?#]+/[^/?#]+)", re.ASCII)


def look(model: str, *, revision: str | None = None, needs_weights: bool = True) -> Source:
    """What the model is, from its config.json or the header of its GGUF file alone.

    `model` is `owner/name`, a folder, or a .gguf file; `~` is expanded. What is there as a folder or file is taken for
    that, even if the hub has a model of that name. Without `needs_weights` it is looked at for its tokenizer: a
    repository may then have nothing else, and a .gguf file will not do. Raises SourceError and what is below it.
    """
    path = _expanded(model)
    if model.strip() and path.exists():
        if revision is not None:
            raise SourceError(f"--revision {revision}: {path} is on this machine and has no revisions. Leave it out.")
        if path.is_dir():
            return look_at_folder(path)
        if path.suffix.lower() != ".gguf":
            raise ModelNotFound(f"{path} is neither a folder nor a .gguf file. Give the folder that it is in.")
        return look_at_gguf(path) if needs_weights else _with_tokenizer(look_at_gguf(path))
    if not REPOSITORY.fullmatch(model) or model.endswith(".gguf"):
        raise ModelNotFound(_nowhere(model))
    from rkllm_converter.source.hub import look_at_hub  # noqa: PLC0415 - an HTTP client, not needed for a folder

    return look_at_hub(model, revision, needs_weights=needs_weights)


def fetch(source: Source, *, report: Callable[[int, int], None], tokenizer_only: bool = False) -> Path:
    """Bring what `look` has found to this machine; returns the folder, or the .gguf file.

    `report` gets the bytes that are here, and those of all files, unless all is on this machine anyway. What has
    arrived when a download is stopped stays, and the next one goes on there. With `tokenizer_only` weights stay where
    they are. Raises SourceError and what is below it.
    """
    if source.path is None:
        from rkllm_converter.source.hub import fetch_from_hub  # noqa: PLC0415 - as above

        folder = fetch_from_hub(source, report, tokenizer_only=tokenizer_only)
        if not tokenizer_only:
            check_folder(folder, [*source.files])
        return folder
    if source.kind == "folder" and not tokenizer_only:
        check_folder(source.path, [*source.files])
    if tokenizer_only:
        _with_tokenizer(source)
    return source.path


def _with_tokenizer(source: Source) -> Source:
    if source.kind == "gguf":
        raise ModelNotFound(f"{source.path} is a GGUF file. Give the folder or owner/name that has the tokenizer.")
    return source


def _expanded(model: str) -> Path:
    try:
        return Path(model).expanduser()
    except RuntimeError as error:
        raise ModelNotFound(f"{model}: there is no such user on this machine. Give the whole path.") from error


def _nowhere(model: str) -> str:
    link = _LINK.match(model)
    if link:
        return f"{model} is an address. Give the name of the model: {link[1]}."
    if not model.strip():
        return "No model was named. Give owner/name of a model of the hub, a folder, or a .gguf file."
    return f"There is no folder or file {model}, and it is no owner/name of a model of the hub. Check its name."
