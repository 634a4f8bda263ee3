"""The model store: one folder for each model, directly below a root, holding the model's files."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from exo.types import StoreError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]*")
PARTIAL_SUFFIX = ".partial"


@dataclass(frozen=True)
class StoredModel:
    """A model file in the store: `id` is the folder's name, or the stem of a file that lies directly in the root."""

    id: str
    path: Path
    size: int


class ModelStore:
    """Finds model files by model id; nothing outside the root is ever named."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, model_id: str) -> Path:
        """The folder of a model, which may not exist. Raises StoreError for a name that could leave the store."""
        if not _NAME.fullmatch(model_id):
            raise StoreError(
                f"{model_id!r} cannot be the name of a model folder: use letters, digits and . _ : + -, "
                "and begin with a letter or a digit."
            )
        return self.root / model_id

    def scan(self, suffix: str) -> list[StoredModel]:
        """All models with a file that ends in `suffix` (such as `.gguf`), sorted by id.

        A folder with several such files is listed by its first one in the order of names. Unreadable entries and
        unfinished downloads are left out.
        """
        found = {model.id: model for model in self._candidates(suffix)}
        return [found[model_id] for model_id in sorted(found)]

    def find(self, model_id: str, suffix: str) -> StoredModel | None:
        """The stored file of one model, or None."""
        return next((model for model in self.scan(suffix) if model.id == model_id), None)

    def left_out(self, suffix: str) -> list[str]:
        """A sentence for each entry with a model file that cannot be served, because of its name or of its place."""
        found = []
        for entry in _children(self.root):
            with contextlib.suppress(OSError):
                if not entry.is_dir():
                    continue
                if not _NAME.fullmatch(entry.name) and _in_folder(entry, suffix):
                    found.append(
                        f"{entry.name!r}: rename the folder; letters, digits and . _ : + - make a model's name."
                    )
                elif not _in_folder(entry, suffix) and any(_in_folder(sub, suffix) for sub in _children(entry)):
                    found.append(f"{entry.name!r}: its models lie deeper; a model's folder is directly in the store.")
        return found

    def _candidates(self, suffix: str) -> Iterator[StoredModel]:
        for entry in _children(self.root):
            try:
                found = _in_folder(entry, suffix) if entry.is_dir() else _in_root(entry, suffix)
            except OSError:  # an entry that this user may not read, or that was removed meanwhile
                continue
            if found is not None and _NAME.fullmatch(found.id):
                yield found


def _in_folder(folder: Path, suffix: str) -> StoredModel | None:
    """The first model file of a folder in the order of names; the parts of a vision model's encoder are none."""
    for child in _children(folder):
        if _is_model(child, suffix):
            return StoredModel(folder.name, child, child.stat().st_size)
    return None


def _in_root(file: Path, suffix: str) -> StoredModel | None:
    return StoredModel(file.name[: -len(suffix)], file, file.stat().st_size) if _is_model(file, suffix) else None


def _is_model(file: Path, suffix: str) -> bool:
    name = file.name.lower()
    return name.endswith(suffix) and not name.startswith((".", "mmproj")) and file.is_file()


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
