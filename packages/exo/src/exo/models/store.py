"""The model store: one folder for each model, directly below a root, holding the model's files."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from exo.models.modelfile import FILE_NAME, read_from
from exo.types import BadModelfile, BadModelName, StoreError
from exo.types.card import AUTO_MODEL

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]*")
_LONGEST_NAME = 200
_SETTLED = 2.0
"""Seconds; file systems tell times apart by less."""

PARTIAL_SUFFIX = ".partial"


@dataclass(frozen=True)
class StoredModel:
    """A model file in the store: `id` is the folder's name, or the stem of a file that lies directly in the root.

    `size` is in bytes. `modified` is when the file or its Modelfile changed last, in seconds since 1970. `folder` has
    the Modelfile and the tokenizer files; None for a file in the root. `path` may lie in another folder of the store.
    """

    id: str
    path: Path
    size: int
    modified: float = 0.0
    folder: Path | None = None


def is_model_name(name: str) -> bool:
    """Whether a model's folder may have this name, so that it neither leaves the store nor looks unfinished.

    `auto` leaves the choice of a model to the node, so it can be the name of none.
    """
    if name.lower() == AUTO_MODEL:
        return False
    return len(name) <= _LONGEST_NAME and _NAME.fullmatch(name) is not None and not name.endswith(PARTIAL_SUFFIX)


class ModelStore:
    """Finds model files by model id. Nothing outside the root is ever named, but by links that its owner has made.

    Which file is a folder's model: the one that FROM in its Modelfile names; without FROM the first in the order of
    names. FROM may lead to a file elsewhere in the store, or name another of its models, which has to have a file of
    its own. If FROM names nothing that is there (a repository, the model of another server), an only file counts.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read: dict[Path, tuple[tuple[int, int, int], str]] = {}

    def folder(self, model_id: str) -> Path:
        """The folder of a model, which may not exist. Raises BadModelName for a name that could leave the store."""
        if not is_model_name(model_id):
            raise BadModelName(
                f"{_shown(model_id)} cannot be the name of a model folder: use letters, digits and . _ : + -, begin "
                f"with a letter or a digit, do not end with {PARTIAL_SUFFIX}; up to {_LONGEST_NAME} characters; not "
                f"{AUTO_MODEL}, which leaves the choice to the node."
            )
        return self.root / model_id

    def scan(self, suffix: str) -> list[StoredModel]:
        """All models with a file that ends in `suffix` (such as `.gguf`), sorted by id.

        Unreadable entries, unfinished downloads and what `left_out` names are left out.
        """
        candidates = (self._candidate(name, suffix) for name in _names(self.root))
        found = {model.id: model for model in candidates if model is not None}
        return [found[model_id] for model_id in sorted(found)]

    def find(self, model_id: str, suffix: str) -> StoredModel | None:
        """The stored file of one model, or None. Looks at that model alone, where it can."""
        if not is_model_name(model_id):
            return None
        for name in (f"{model_id}{suffix}", model_id):
            found = self._candidate(name, suffix)
            if found is not None and found.id == model_id:
                return found
        return next((model for model in self.scan(suffix) if model.id == model_id), None)

    def left_out(self, suffix: str) -> list[str]:
        """A sentence for each entry that cannot be served, because of its name, its place or its Modelfile."""
        found = []
        for name in _names(self.root):
            folder = self.root / name
            if name.startswith(".") or not os.path.isdir(folder):  # noqa: PTH112 - False for what may not be looked at
                continue
            own = model_files(folder, suffix)
            if own and not is_model_name(name):
                found.append(f"{name!r}: rename the folder; letters, digits and . _ : + - make a model's name.")
                continue
            try:
                file = self._file_of(folder, suffix)
            except BadModelfile as error:
                found.append(error.message)
                continue
            if file is None and any(model_files(folder / sub, suffix) for sub in _names(folder)):
                found.append(f"{name!r}: its models lie deeper; a model's folder is directly in the store.")
        return found

    def file_named(self, folder: Path, name: str, suffix: str) -> Path | None:
        """The file that `FROM name` in the Modelfile of `folder` leads to, None if there is none.

        The folder does not have to exist. Raises BadModelfile for a file that is outside the store, or unfinished.
        """
        if not name.lower().endswith(suffix):
            return None
        inside = self._inside(folder.name, name)
        target = self.root / inside
        if not _is_model_file(target, suffix):
            return None
        if inside == f"{folder.name}/{target.name}":  # what is in the folder itself may be a link
            return target
        if not self._holds(inside, folder.name):
            raise BadModelfile(
                f"{folder.name!r}: FROM leads to {_shown(name)}, which is no finished file of the store. Name one in "
                f"{self.root}, or move the model there."
            )
        return target

    def _candidate(self, name: str, suffix: str) -> StoredModel | None:
        """The model that an entry of the root is; None if it is none, or cannot be served."""
        path = self.root / name
        try:
            if os.path.isdir(path):  # noqa: PTH112 - False for what may not be looked at
                file = self._file_of(path, suffix) if is_model_name(name) else None
                found = self._stored(name, file, path) if file else None
            else:
                found = self._stored(name[: -len(suffix)], path, None) if _is_model_file(path, suffix) else None
        except (OSError, StoreError):  # removed meanwhile, or what left_out names
            return None
        return found if found is not None and is_model_name(found.id) else None

    def _file_of(self, folder: Path, suffix: str, *, may_lead_away: bool = True) -> Path | None:
        """The model's file of a folder, None if it has none. Raises BadModelfile if FROM says what cannot be."""
        own = model_files(folder, suffix)
        name = self._from(folder)
        if not name:
            return own[0] if own else None
        named = self.file_named(folder, name, suffix)
        if named is not None and (may_lead_away or named.parent == folder):
            return named
        if named is None and (len(own) == 1 or (own and _is_file(folder / Path(name).name))):  # a file of another kind
            return own[0]
        if named is None and own:
            raise BadModelfile(f"{folder.name!r}: FROM names {_shown(name)}, which is none of its {len(own)} files.")
        if not may_lead_away:
            raise BadModelfile(f"{folder.name!r}: FROM leads on, to {_shown(name)}.")
        other = self._file_of_model(folder.name, name, suffix) if name != folder.name else None
        if other is None and name.lower().endswith(suffix):
            raise BadModelfile(f"{folder.name!r}: FROM names {_shown(name)}, which is not there. Put the file there.")
        return other

    def _file_of_model(self, own: str, name: str, suffix: str) -> Path | None:
        """The file of another model, if it is that model's own: one step, so there are no circles."""
        if not is_model_name(name):
            return None
        in_root = self.root / f"{name}{suffix}"
        if _is_model_file(in_root, suffix):
            return in_root
        try:
            return self._file_of(self.root / name, suffix, may_lead_away=False)
        except BadModelfile as error:
            raise BadModelfile(
                f"{own!r}: FROM names the model {name!r}, which has no file of its own. Name the one that has it."
            ) from error

    def _from(self, folder: Path) -> str:
        """FROM of a folder's Modelfile, empty if it does not say. A faulty one hides no model: the load reports it.

        Remembered by what the file system says of the file, unless that is so new that another change might look alike.
        """
        path = folder / FILE_NAME
        status = _status(path)
        if status is None:
            return ""
        state = (status.st_mtime_ns, status.st_size, status.st_ino)
        known = self._read.get(path)
        if known is not None and known[0] == state:
            return known[1]
        try:
            name = read_from(folder) or ""
        except StoreError:
            name = ""
        if abs(time.time() - status.st_mtime) > _SETTLED:
            self._read[path] = (state, name)
        return name

    def _stored(self, model_id: str, file: Path, folder: Path | None) -> StoredModel:
        status = file.stat()
        own = _status(folder / FILE_NAME) if folder else None
        modified = max(status.st_mtime, own.st_mtime) if own else status.st_mtime
        return StoredModel(model_id, file, status.st_size, modified, folder)

    def _inside(self, own: str, name: str) -> str:
        """A path seen from the root; absolute if it is elsewhere.

        By the names alone, as the owner sees them: ".." leads into the store even from a folder that is a link.
        """
        if not name.startswith("/"):
            return os.path.normpath(f"{own}/{name}")
        path = Path(os.path.normpath(name))
        roots = (self.root.absolute(), Path(os.path.realpath(self.root)))
        return next((str(path.relative_to(root)) for root in roots if path.is_relative_to(root)), str(path))

    def _holds(self, inside: str, own: str) -> bool:
        """Whether a file is finished and inside the store. The root and the models' folders may be links, no other."""
        first = inside.partition("/")[0]
        names = {own, first} if first not in ("", "..") else {own}
        try:
            real, root = (self.root / inside).resolve(strict=True), self.root.resolve()
            bases = [root, *((root / name).resolve() for name in names)]
        except (OSError, RuntimeError):  # RuntimeError: links in a circle, before Python 3.13
            return False
        base = next((base for base in bases if real.is_relative_to(base)), None)
        if base is None:
            return False
        seen = [*inside.split("/"), *real.relative_to(base).parts]
        return not any(part.startswith(".") or part.endswith(PARTIAL_SUFFIX) for part in seen)


def model_files(folder: Path, suffix: str) -> list[Path]:
    """The model files of a folder in the order of names; the parts of a vision model's encoder are none."""
    return [path for name in _names(folder) if _is_model(name, suffix) and _is_file(path := folder / name)]


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _is_model(name: str, suffix: str) -> bool:
    return name.lower().endswith(suffix) and not name.lower().startswith((".", "mmproj"))


def _is_model_file(path: Path, suffix: str) -> bool:
    return _is_model(path.name, suffix) and _is_file(path)


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - False for what may not be looked at


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - a Path for each name takes most of the time
    except OSError:
        return []


def _shown(name: str) -> str:
    return repr(name if len(name) <= _LONGEST_NAME else f"{name[:57]}...")
