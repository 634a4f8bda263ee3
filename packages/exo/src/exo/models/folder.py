"""What a model's folder holds, and what of it belongs to the store."""

from __future__ import annotations

import contextlib
from pathlib import Path

from exo.models.modelfile import FILE_NAME

TOKENIZER = "tokenizer.json"
TOKENIZER_INSTEAD = ("vocab.json", "merges.txt", "tokenizer.model")
"""What older repositories have instead of a tokenizer.json."""
TOKENIZER_BESIDE = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
)
TOKENIZER_FILES = (TOKENIZER, *TOKENIZER_INSTEAD, *TOKENIZER_BESIDE)
KNOWN_FILES = (*TOKENIZER_FILES, FILE_NAME, "LICENSE", "README.md", "conversion.json")
"""What a model's folder may hold beside model files. Nothing else is ever copied or deleted."""


def files_in(folder: Path | None, names: tuple[str, ...]) -> list[Path]:
    return [folder / name for name in names if (folder / name).is_file()] if folder is not None else []


def missing_tokenizer_files(folder: Path, source: Path) -> list[Path]:
    """The tokenizer files of the folder `source` that `folder` lacks.

    A tokenizer.json and the files that stand in for one count as one thing: the two folders' are never mixed.
    """
    has_one = files_in(folder, (TOKENIZER, *TOKENIZER_INSTEAD))
    names = TOKENIZER_BESIDE if has_one else TOKENIZER_FILES
    return [file for file in files_in(source, names) if not (folder / file.name).exists()]


def clear(folder: Path, suffix: str) -> list[str]:
    """Delete what the store knows of a folder, and an empty folder. Returns the names of the rest."""
    if folder.is_symlink():
        unlink(folder)
        return []
    if not folder.exists():
        return []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name in KNOWN_FILES):  # model files first
        if is_known(entry, suffix):
            unlink(entry)
    left = sorted(entry.name for entry in folder.iterdir())
    if not left:
        folder.rmdir()
    return left


def is_known(entry: Path, suffix: str) -> bool:
    """Whether a file or a link is a model of the kind `suffix`, or one of KNOWN_FILES."""
    name = entry.name
    is_ours = name in KNOWN_FILES or (name.lower().endswith(suffix) and not name.startswith("."))
    return is_ours and (entry.is_symlink() or entry.is_file())


def unlink(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
