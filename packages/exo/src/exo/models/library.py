"""Changes to a model store: models made from others, copied and deleted."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from exo.models.changes import changing, check_free, new_folder, put_in_place, recover
from exo.models.folder import KNOWN_FILES, TOKENIZER_FILES, clear, files_in, unlink
from exo.models.modelfile import FILE_NAME, Modelfile, parse_modelfile, read_modelfile
from exo.models.modelfile_writer import write_modelfile
from exo.models.progress import Progress, Report, ignore
from exo.models.store import ModelStore, StoredModel, model_files
from exo.types import BadModelfile, StoreError

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
            source, base = self._source(name, said.from_ or "")
            text = write_modelfile(_completed(said, base, source.path.name))
            report(Progress("gathering model components"))  # a refusal after the first step has no status of its own
            for problem in said.problems:
                report(Progress(problem))
            with new_folder(self.store.root, name, self.suffix) as folder:
                _link(source.path, folder / source.path.name, report)
                for file in files_in(_tokenizer_folder(source, self.store.root), TOKENIZER_FILES):
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
            with new_folder(self.store.root, destination, self.suffix) as folder:
                own = model_files(model.folder, self.suffix) if model.folder else []
                for name, file in {file.name: file for file in (*own, model.path)}.items():
                    _link(file, folder / name, ignore)
                for file in files_in(model.folder, KNOWN_FILES):
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
                return clear(model.folder, self.suffix)
            unlink(model.path)
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
        with changing(self.store.root), _named_errors():
            yield

    def _check_free(self, name: str, *, force: bool) -> None:
        recover(self.store.folder(name), self.suffix)
        check_free(self.store, name, self.suffix, force=force)

    def _put(self, new: Path, name: str, *, force: bool) -> None:
        self._check_free(name, force=force)  # somebody may have made one by hand meanwhile
        put_in_place(self.store, new, name, self.suffix)

    def _stored(self, name: str) -> StoredModel:
        found = self.store.find(name, self.suffix)
        if found is None:
            raise StoreError(f"{self.store.root / name} was changed by somebody else meanwhile. Try again.")
        return found


def _completed(said: Modelfile, base: Modelfile, file: str) -> Modelfile:
    """What was said, and from the base what was not; stop strings and messages count as a whole."""
    names = [field.name for field in dataclasses.fields(Modelfile) if field.name not in ("parameters", "unknown")]
    inherited: dict[str, Any] = {name: None if getattr(base, name) == "" else getattr(base, name) for name in names}
    texts: dict[str, Any] = {
        name: inherited[name] if getattr(said, name) in (None, ()) else getattr(said, name) for name in names
    }
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
    return next((folder for folder in folders if files_in(folder, TOKENIZER_FILES)), None)


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
