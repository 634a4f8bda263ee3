"""Changes to a model store: models made from others, copied and deleted.

A new model is written into a hidden folder beside its place and renamed, so that it is never listed half made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import itertools
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from exo.models.modelfile import FILE_NAME, Modelfile, parse_modelfile, read_modelfile
from exo.models.modelfile_writer import write_modelfile
from exo.models.progress import Progress, Report, ignore
from exo.models.store import PARTIAL_SUFFIX, ModelStore, StoredModel, model_files
from exo.types import BadModelfile, ModelExists, StoreError

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)
KNOWN_FILES = (*TOKENIZER_FILES, FILE_NAME, "LICENSE", "README.md", "conversion.json")
"""What a model's folder may hold beside model files. Nothing else is ever copied or deleted."""

_CHUNK = 16 << 20


class ModelLibrary:
    """Creates, copies and deletes models of one kind of file, such as `.rkllm`.

    All methods block, may be called from any thread, and raise StoreError. Changes to the store come one after the
    other, also where another process makes them through a library. `resolve` maps the names by which clients know
    models to ids, None for a name that it does not know; an exact id always counts.
    """

    def __init__(
        self, store: ModelStore, suffix: str, *, resolve: Callable[[str], str | None] = lambda name: name
    ) -> None:
        self.store = store
        self.suffix = suffix
        self._resolve = resolve
        self._lock = threading.Lock()

    def create(self, name: str, text: str, *, force: bool = False, report: Report = ignore) -> StoredModel:
        """A model as a Modelfile says. FROM is a model of the store or a file in it, seen from the new folder or root.

        The new folder holds links to the files of that model (copies where links are impossible). What `text` does not
        say is taken from that model's Modelfile. `force` replaces a model of that name; files in its folder that the
        store does not know stay. Raises BadModelName, BadModelfile, ModelExists.
        """
        self.store.folder(name)
        said = parse_modelfile(text)
        with self._changing():
            self._check_free(name, force=force)
            report(Progress("gathering model components"))
            source, base = self._source(name, said.from_ or "")
            for problem in said.problems:
                report(Progress(problem))
            text = write_modelfile(_completed(said, base, source.path.name))
            with self._new_folder(name) as folder:
                _link(source.path, folder / source.path.name, report)
                for file in _files(_tokenizer_folder(source, self.store.root), TOKENIZER_FILES):
                    _link(file, folder / file.name, report)
                report(Progress("writing manifest"))
                _write(folder / FILE_NAME, text)
                self._put(folder, name, force=force)
            report(Progress("success"))
            return self._stored(name)

    def copy(self, source: str, destination: str, *, force: bool = False) -> StoredModel:
        """The same model under another name. The model's file is a link to the same bytes, the small files are copies.

        Raises BadModelName, ModelExists.
        """
        self.store.folder(destination)
        with self._changing():
            model = self._known(source)
            if model.id == destination and force:
                return model
            self._check_free(destination, force=force)
            with self._new_folder(destination) as folder:
                own = model_files(model.folder, self.suffix) if model.folder else []
                for name, file in {file.name: file for file in (*own, model.path)}.items():
                    _link(file, folder / name, ignore)
                for file in _files(model.folder, KNOWN_FILES):
                    _copy(file, folder / file.name, ignore)
                self._put(folder, destination, force=force)
            return self._stored(destination)

    def delete(self, model_id: str) -> list[str]:
        """Delete the files of a model that the store knows, and its folder if nothing else is in it.

        Returns the names of what is left. A link is deleted, never what it leads to.
        """
        with self._changing():
            model = self.store.find(model_id, self.suffix)
            if model is None:
                raise StoreError(f"There is no model {model_id!r} in {self.store.root}. Look at the list of models.")
            if model.folder is not None:
                return self._clear(model.folder)
            _unlink(model.path)
            return []

    # --- where a model comes from ---

    def _source(self, name: str, from_: str) -> tuple[StoredModel, Modelfile]:
        """The model that FROM names, and its Modelfile; for a file an empty one. Raises BadModelfile."""
        if not from_:
            raise BadModelfile(f"Modelfile: FROM is missing. Name a model of {self.store.root}, or a file in it.")
        found = self._model(from_)
        if found is not None:
            return found, read_modelfile(found.folder) if found.folder else Modelfile()
        for path in (from_, f"../{from_}"):
            file = self.store.file_named(self.store.folder(name), path, self.suffix)
            if file is not None:
                folder = file.parent if file.parent != self.store.root else None
                return StoredModel(name, file, file.stat().st_size, folder=folder), Modelfile()
        raise BadModelfile(
            f"Modelfile: FROM names {from_!r}, which is neither a model of {self.store.root} nor a {self.suffix} file "
            "in it. Look at the list of models, or pull it first."
        )

    def _model(self, name: str) -> StoredModel | None:
        models = {model.id: model for model in self.store.scan(self.suffix)}
        return models.get(name) or models.get(self._resolve(name) or "")

    def _known(self, name: str) -> StoredModel:
        found = self._model(name)
        if found is None:
            raise StoreError(f"There is no model {name!r} in {self.store.root}. Look at the list of models.")
        return found

    # --- where it goes ---

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """One change at a time, in this process and, where the file system can tell, in others."""
        with self._lock, contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                descriptor = os.open(self.store.root, os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            with _named_errors():
                yield

    def _check_free(self, name: str, *, force: bool) -> None:
        place = self.store.folder(name)
        if not force and (os.path.lexists(place) or self.store.find(name, self.suffix) is not None):
            raise ModelExists(f"{name!r} is there already. Choose another name, or say that it is to be replaced.")
        if os.path.lexists(place) and not place.is_dir() and not place.is_symlink():
            raise StoreError(f"{place} is a file, no model's folder, and is not replaced. Move it away.")

    @contextlib.contextmanager
    def _new_folder(self, name: str) -> Iterator[Path]:
        """A hidden folder, gone at the end if it has not been moved to its place.

        "~" is in no model's name, so it is never the folder of an unfinished pull. What a killed process left there is
        cleared; if there is something else in it, it stays.
        """
        for number in itertools.count(1):
            folder = self.store.root / f".{name}~{number}{PARTIAL_SUFFIX}"
            if not os.path.lexists(folder) or not self._clear(folder):
                break
        folder.mkdir()
        try:
            yield folder
        finally:
            with contextlib.suppress(OSError):
                self._clear(folder)

    def _put(self, new: Path, name: str, *, force: bool) -> None:
        """Move a finished folder to its place. Until then the old model is there, from then on the new one."""
        self._check_free(name, force=force)  # a pull may have brought one meanwhile
        place, in_root = self.store.root / name, self.store.find(name, self.suffix)
        if not os.path.lexists(place):
            new.rename(place)
        else:
            _exchange(new, place)
            if not new.is_symlink():
                self._keep_strange(new, place)
        if in_root is not None and in_root.folder is None:
            _unlink(in_root.path)

    def _keep_strange(self, old: Path, new: Path) -> None:
        for entry in old.iterdir():
            if not self._is_known(entry):
                entry.rename(new / entry.name)

    def _stored(self, name: str) -> StoredModel:
        found = self.store.find(name, self.suffix)
        if found is None:
            raise StoreError(f"{self.store.root / name} was changed by somebody else meanwhile. Try again.")
        return found

    def _clear(self, folder: Path) -> list[str]:
        """Delete what the store knows of a folder, and an empty folder. Returns the names of the rest."""
        if folder.is_symlink():
            _unlink(folder)
            return []
        if not folder.exists():
            return []
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name in KNOWN_FILES):  # model files first
            if self._is_known(entry):
                _unlink(entry)
        left = sorted(entry.name for entry in folder.iterdir())
        if not left:
            folder.rmdir()
        return left

    def _is_known(self, entry: Path) -> bool:
        name = entry.name
        is_ours = name in KNOWN_FILES or (name.lower().endswith(self.suffix) and not name.startswith("."))
        return is_ours and (entry.is_symlink() or entry.is_file())


def _completed(said: Modelfile, base: Modelfile, file: str) -> Modelfile:
    """What was said, and from the base what was not; stop strings and messages count as a whole."""
    names = [field.name for field in dataclasses.fields(Modelfile) if field.name not in ("parameters", "unknown")]
    texts = {name: getattr(base if getattr(said, name) in (None, ()) else said, name) for name in names}
    own = msgspec.structs.asdict(said.parameters)
    parameters = msgspec.structs.replace(
        base.parameters, **{name: value for name, value in own.items() if value not in (None, ())}
    )
    keys = {key for key, _ in said.unknown}
    unknown = (*((key, value) for key, value in base.unknown if key not in keys), *said.unknown)
    return Modelfile(**{**texts, "from_": file, "parameters": parameters, "unknown": unknown, "problems": ()})


def _tokenizer_folder(source: StoredModel, root: Path) -> Path | None:
    """The folder with the tokenizer of a model: its own, else that of the file which its FROM leads to."""
    folders = [folder for folder in (source.folder, source.path.parent) if folder is not None and folder != root]
    return next((folder for folder in folders if _files(folder, TOKENIZER_FILES)), None)


def _files(folder: Path | None, names: tuple[str, ...]) -> list[Path]:
    return [folder / name for name in names if (folder / name).is_file()] if folder is not None else []


@contextlib.contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename or "The store"
        raise StoreError(
            f"{where} could not be changed: {error.strerror}. Make room for it, and the folder writable for this user."
        ) from error


def _link(source: Path, target: Path, report: Report) -> None:
    """A second name for the same bytes; a copy where the file systems cannot do that. Never a name for a link."""
    try:
        os.link(source.resolve(strict=True), target)
    except OSError:
        _copy(source, target, report)
    else:
        report(Progress(f"linked {source.name}", source.name))


def _copy(source: Path, target: Path, report: Report) -> None:
    with source.open("rb") as file, target.open("xb") as out:
        total, completed = os.fstat(file.fileno()).st_size, 0
        while chunk := file.read(_CHUNK):
            out.write(chunk)
            completed += len(chunk)
            report(Progress(f"copying {source.name}", source.name, total, completed))
        out.flush()
        os.fsync(out.fileno())
    shutil.copystat(source, target)


def _write(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8", newline="\n") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())  # a board may lose its power: the new name never leads to an empty file


def _unlink(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def _exchange(new: Path, old: Path) -> None:
    """Let two folders change places, in one step where the system can; else `old` comes back if the next step fails."""
    if _exchange_at_once(new, old):
        return
    aside = new.with_name(f"{new.name}.old{PARTIAL_SUFFIX}")
    old.rename(aside)
    try:
        new.rename(old)
    except OSError:
        aside.rename(old)
        raise
    aside.rename(new)


def _exchange_at_once(new: Path, old: Path) -> bool:
    """renameat2 of Linux with RENAME_EXCHANGE; False where the C library or the file system has none."""
    import ctypes  # noqa: PLC0415 - only to replace a model

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    at_working_directory, exchange = -100, 2
    # int renameat2(int olddirfd, const char *oldpath, int newdirfd, const char *newpath, unsigned int flags)
    renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    renameat2.restype = ctypes.c_int
    return bool(renameat2(at_working_directory, bytes(new), at_working_directory, bytes(old), exchange) == 0)
