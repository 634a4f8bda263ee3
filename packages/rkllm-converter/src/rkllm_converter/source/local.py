"""Models in local folders and GGUF files."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from rkllm_converter.errors import ModelNotFound, SourceError
from rkllm_converter.source.model import (
    CONFIG,
    Source,
    check_config_size,
    missing_shards,
    needed,
    parse_config,
    weights,
)

__all__ = ["check_folder", "look_at_folder", "look_at_gguf"]

_SUFFIX = ".gguf"

_TYPES = {
    0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 7: "q8_0", 8: "q5_0", 9: "q5_1", 10: "q2_k", 11: "q3_k_s",
    12: "q3_k_m", 13: "q3_k_l", 14: "q4_k_s", 15: "q4_k_m", 16: "q5_k_s", 17: "q5_k_m", 18: "q6_k", 19: "iq2_xxs",
    20: "iq2_xs", 21: "q2_k_s", 22: "iq3_xs", 23: "iq3_xxs", 24: "iq1_s", 25: "iq4_nl", 26: "iq3_s", 27: "iq3_m",
    28: "iq2_s", 29: "iq2_m", 30: "iq4_xs", 31: "iq1_m", 32: "bf16", 36: "tq1_0", 37: "tq2_0",
}  # fmt: skip
"""By general.file_type. Source: llama.cpp, include/llama.h, enum llama_ftype."""

_SNAPSHOT = re.compile(r"models--[^/]*?([^/-](?:[^/-]|-(?!-))*)/snapshots/[0-9a-f]{40}", re.ASCII)
"""A folder in the cache of huggingface_hub."""

_POINTER = b"version https://git-lfs"
_POINTER_BYTES = 1024


def look_at_folder(folder: Path) -> Source:
    """A folder with a config.json; weights are not asked for yet. Raises ModelNotFound, SourceError."""
    files = _sizes(folder)
    if CONFIG not in files:
        raise ModelNotFound(_without_config(folder, [*files]))
    check_config_size(files[CONFIG], str(folder / CONFIG))
    try:
        text = (folder / CONFIG).read_bytes()
    except OSError as error:
        raise SourceError(f"{folder / CONFIG} cannot be read: {error.strerror}.") from error
    chosen = needed(files)
    return Source(
        kind="folder",
        name=_name(folder),
        path=folder,
        config=parse_config(text, str(folder / CONFIG)),
        files=chosen,
        fingerprint=_fingerprint(folder, [*chosen]),
    )


def check_folder(folder: Path, files: list[str]) -> None:
    """Raises ModelNotFound if weights are missing, are only in part there, or are pointers of Git LFS."""
    found = weights(files)
    if not found:
        raise ModelNotFound(f"{folder} has no weights: neither .safetensors nor pytorch_model.bin. Put them there.")
    missing = missing_shards(files, folder)
    if missing:
        raise ModelNotFound(f"{folder} lacks a part of the weights: {_listed(missing)}. Download them again.")
    pointers = [name for name in found if _is_pointer(folder / name)]
    if pointers:
        raise ModelNotFound(
            f"{folder} has pointers of Git LFS in place of the weights: {_listed(pointers)}. Run `git lfs pull` there."
        )


def look_at_gguf(path: Path) -> Source:
    """A GGUF file, of which the header is read. Raises SourceError."""
    from rkllm_facts.errors import BadGguf  # noqa: PLC0415 - for this kind of model only
    from rkllm_facts.gguf import read_header  # noqa: PLC0415

    try:
        pairs = read_header(path).pairs
        size = path.stat().st_size
    except BadGguf as error:
        raise SourceError(error.message) from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.") from error
    parts = pairs.get("split.count", 1)
    if isinstance(parts, int) and parts > 1:
        raise SourceError(
            f"{path} is one of {parts} parts of a model. Join them with llama.cpp's `llama-gguf-split --merge`, and "
            "give the result."
        )
    return Source(
        kind="gguf",
        name=path.name.removesuffix(_SUFFIX),
        path=path,
        files={path.name: size},
        gguf_type=_type(pairs.get("general.file_type")),
        fingerprint=_fingerprint(path.parent, [path.name]),
    )


def _type(number: Any) -> str:
    if not isinstance(number, int):
        return "unknown"
    return _TYPES.get(number, f"type {number}")


def _sizes(folder: Path) -> dict[str, int]:
    try:
        return {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    except OSError as error:
        raise SourceError(f"{folder} cannot be read: {error.strerror}.") from error


def _without_config(folder: Path, names: list[str]) -> str:
    ggufs = sorted(name for name in names if name.endswith(_SUFFIX))
    if ggufs:
        return f"{folder} has no {CONFIG}, but GGUF files. Give one of them: {_listed(ggufs)}."
    if "adapter_config.json" in names:
        return f"{folder} is an adapter. Give the model it is for as --model, and this one as --lora."
    return f"{folder} has no {CONFIG}: it is no folder of a model. Give the folder that has one."


def _name(folder: Path) -> str:
    whole = folder.resolve()
    snapshot = _SNAPSHOT.fullmatch("/".join(whole.parts[-3:]))
    return snapshot[1] if snapshot else whole.name or "model"


def _fingerprint(folder: Path, names: list[str]) -> str:
    sha256 = hashlib.sha256()
    try:
        for name in sorted(names):
            status = (folder / name).stat()
            sha256.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    except OSError as error:
        raise SourceError(f"{folder} cannot be read: {error.strerror}.") from error
    return sha256.hexdigest()


def _is_pointer(path: Path) -> bool:
    try:
        if path.stat().st_size > _POINTER_BYTES:
            return False
        return path.read_bytes().startswith(_POINTER)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.") from error


def _listed(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
