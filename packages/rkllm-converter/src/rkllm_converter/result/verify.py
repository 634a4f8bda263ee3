"""Whether a folder is what its conversion.json says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from rkllm_converter.errors import VerifyFailed
from rkllm_converter.result.modelfile import read_keys
from rkllm_converter.result.names import MODEL_SUFFIX, MODELFILE
from rkllm_converter.result.record import FILE_NAME, Record, hash_file, read_record
from rkllm_converter.result.tokenizer import BESIDE, INSTEAD, TOKENIZER

__all__ = ["is_whole", "verify"]


def verify(folder: Path) -> Record:
    """Reads every byte. Raises VerifyFailed with each problem on a line of its own."""
    if not folder.is_dir():
        raise VerifyFailed(f"{folder} is no folder.")
    record = read_record(folder)
    if record is None:
        raise VerifyFailed(f"{folder} has no {FILE_NAME}: it is no result of rkllm-convert.")
    problems = [*_of_files(folder, record), *_of_names(folder, record), *_of_texts(folder, record)]
    if problems:
        raise VerifyFailed("\n".join(f"{folder}: {problem}" for problem in problems))
    return record


def is_whole(folder: Path, record: Record) -> bool:
    """Whether every file is there with its size; the bytes are not read. A Modelfile may have been changed."""
    return any(name.endswith(MODEL_SUFFIX) for name in record.files) and all(
        (folder / name).is_file() and (name == MODELFILE or (folder / name).stat().st_size == one.bytes)
        for name, one in record.files.items()
    )


def _of_files(folder: Path, record: Record) -> Iterator[str]:
    for name, expected in record.files.items():
        path = folder / name
        try:
            if path.is_symlink() or not path.is_file():
                yield f"{name} is {'a link' if path.is_symlink() else 'missing'}."
            elif path.stat().st_size != expected.bytes:
                yield f"{name} has {path.stat().st_size} bytes; it was made with {expected.bytes}."
            elif hash_file(path) != expected.sha256:
                yield f"{name} is not as it was made: its SHA-256 differs."
        except OSError as error:
            yield f"{name} cannot be read: {error.strerror}."


def _of_names(folder: Path, record: Record) -> Iterator[str]:
    models = [name for name in record.files if name.endswith(MODEL_SUFFIX)]
    if not models:
        yield f"{FILE_NAME} names no {MODEL_SUFFIX} file."
    for entry in sorted(folder.iterdir()):
        is_read = entry.name.endswith(MODEL_SUFFIX) or entry.name in (TOKENIZER, *INSTEAD, *BESIDE)
        if is_read and entry.name not in record.files:
            yield f"{entry.name} is no file of this conversion, and a server would read it."
    modelfile = folder / MODELFILE
    if MODELFILE not in record.files:
        yield f"{FILE_NAME} names no {MODELFILE}."
    elif modelfile.is_file():
        named = read_keys(modelfile.read_text(encoding="utf-8", errors="replace")).get("FROM", [""])[-1]
        if named not in models:
            yield f"its {MODELFILE} is for {named!r}, which this conversion has not made."


def _of_texts(folder: Path, record: Record) -> Iterator[str]:
    if TOKENIZER not in record.files and "tokenizer" not in record.ignored:
        yield f"{FILE_NAME} names no {TOKENIZER}: prompts cannot be counted."
    for name in record.files:
        if name.endswith(".json") and (folder / name).is_file():
            try:
                json.loads((folder / name).read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                yield f"{name} is no JSON: {error}."
