"""From what a user names to a model: one of the hub, a folder, or a GGUF file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from rkllm_converter.errors import ModelNotFound, SourceError
from rkllm_converter.source.local import check_folder, look_at_folder, look_at_gguf
from rkllm_converter.source.model import Source

__all__ = ["fetch", "look"]

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+", re.ASCII)
_LINK = re.compile(r"https?://[^/]+/([^/?#]+/[^/?#]+)", re.ASCII)


def look(model: str, *, revision: str | None = None) -> Source:
    """What the model is, from its config.json or the header of its GGUF file alone.

    `model` is `owner/name`, a folder, or a .gguf file; `~` is expanded. What is there as a folder or file is taken for
    that, even if the hub has a model of that name. Raises SourceError and what is below it.
    """
    path = _expanded(model)
    if model.strip() and path.exists():
        if revision is not None:
            raise SourceError(f"--revision {revision}: {path} is on this machine and has no revisions. Leave it out.")
        if path.is_dir():
            return look_at_folder(path)
        if path.suffix.lower() != ".gguf":
            raise ModelNotFound(f"{path} is neither a folder nor a .gguf file. Give the folder that it is in.")
        return look_at_gguf(path)
    if not _REPOSITORY.fullmatch(model) or model.endswith(".gguf"):
        raise ModelNotFound(_nowhere(model))
    from rkllm_converter.source.hub import look_at_hub  # noqa: PLC0415 - an HTTP client, not needed for a folder

    return look_at_hub(model, revision)


def fetch(source: Source, *, report: Callable[[int, int], None], tokenizer_only: bool = False) -> Path:
    """Bring what `look` has found to this machine; returns the folder, or the .gguf file.

    `report` gets the bytes that are here, and those of all files. What has arrived when a download is stopped stays,
    and the next one goes on there. With `tokenizer_only` weights stay where they are. Raises SourceError and what is
    below it.
    """
    if source.path is None:
        from rkllm_converter.source.hub import fetch_from_hub  # noqa: PLC0415 - as above

        folder = fetch_from_hub(source, report, tokenizer_only=tokenizer_only)
        if not tokenizer_only:
            check_folder(folder, [*source.files])
        return folder
    if source.kind == "folder" and not tokenizer_only:
        check_folder(source.path, [*source.files])
    if source.kind == "gguf" and tokenizer_only:
        raise ModelNotFound(f"{source.path} is a GGUF file. Give the folder or owner/name that has the tokenizer.")
    total = sum(source.files.values())
    report(total, total)
    return source.path


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
