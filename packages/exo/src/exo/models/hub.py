"""Bring a model from the Hugging Face hub, or from a server that answers alike, into the store.

Files gather in the hidden folder `.NAME.partial` beside the model's place, which gets its name at the very end: what is
not complete is never listed, and the next pull goes on with it.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from exo.models import hub_tokenizer
from exo.models.changes import changing, check_free, lock_file, new_folder, pulling, put_in_place, recover
from exo.models.folder import missing_tokenizer_files
from exo.models.hub_client import HubClient, HubFile, Repository
from exo.models.hub_files import Download, Wanted
from exo.models.hub_reference import HubReference, name_of
from exo.models.modelfile import FILE_NAME as MODELFILE
from exo.models.modelfile import read_from
from exo.models.modelfile_writer import write_assignments
from exo.models.progress import Progress, Report
from exo.models.store import PARTIAL_SUFFIX, ModelStore
from exo.types import NothingToPull, PullError, StoreError

__all__ = ["HubReference", "PulledModel", "pull_from_hub", "pull_tokenizer"]

_WITH_TOKENIZER = {".gguf"}
"""Files of these kinds hold their own tokenizer and template."""
_PART = re.compile(r".*-\d{5}-of-(?!00001\b)\d{5}\.[^.]+", re.ASCII)
"""A model in several files, as llama.cpp names them."""


@dataclass(frozen=True)
class PulledModel:
    """A model that has arrived: `file` is the name of its file in `folder`, `size` is in bytes."""

    name: str
    folder: Path
    file: str
    size: int
    warnings: tuple[str, ...] = ()


def pull_from_hub(
    reference: HubReference,
    store_root: Path,
    *,
    suffix: str,
    env: Mapping[str, str],
    report: Report,
    force: bool = False,
    cancelled: threading.Event | None = None,
    original: str = "",
) -> PulledModel:
    """Bring a model file that ends in `suffix`, and its tokenizer files, into the store; blocks.

    `env` gives HF_TOKEN and HF_ENDPOINT. `force` replaces a model of the same name, but keeps its Modelfile, tokenizer
    files that do not come with the new one, and what the store does not know. `original` is the repository of the
    original model, which is asked for tokenizer files that this one does not have; without them the pull succeeds with
    a warning. Setting `cancelled` ends the pull within a second; what has arrived is kept for the next one. Raises
    PullError, NotEnoughDisk, ModelExists, BadModelName, StoreError.
    """
    store = ModelStore(store_root)
    if reference.name:
        check_free(store, reference.name, suffix, force=force)
    client = HubClient(env, cancelled or threading.Event())
    report(Progress("pulling manifest"))
    repository = client.repository(reference.repo_id, reference.revision)
    model = Wanted(repository, _model_file(repository, reference, suffix))
    folder = store.folder(reference.name or name_of(model.file.path))
    with _told_of_the_disk(store_root):
        store_root.mkdir(parents=True, exist_ok=True)
        with pulling(lock_file(folder), folder.name):
            place = _Place(store, folder, suffix, force=force)
            with changing(store_root):
                place.check()
            return _Pull(client, model, place, report).run(original)


def pull_tokenizer(
    folder: Path,
    repository: str,
    *,
    env: Mapping[str, str],
    report: Report,
    force: bool = False,
    cancelled: threading.Event | None = None,
) -> list[str]:
    """Bring the tokenizer files of `repository` (owner/repo) into a model's folder; returns the names of the new ones.

    Files that are there are left alone, but with `force` they are replaced. Raises PullError.
    """
    reference = HubReference.parse(repository)
    if reference.file:
        raise NothingToPull(f"{repository!r} names a file: name only the repository, {reference.repo_id}.")
    if not folder.is_dir():
        raise PullError(f"There is no folder {folder}: pull the model first.")
    client = HubClient(env, cancelled or threading.Event())
    report(Progress("pulling manifest"))
    found = hub_tokenizer.files_of(client.repository(reference.repo_id, reference.revision))
    if not found:
        raise NothingToPull(f"{reference.repo_id} holds no tokenizer: name the repository of the original model.")
    wanted = found if force else hub_tokenizer.not_in(folder, found)
    if not wanted:
        report(Progress("success"))
        return []
    with _told_of_the_disk(folder), pulling(folder / ".tokenizer.lock", f"the tokenizer of {folder.name}"):
        return _bring_beside(folder, wanted, client, report)


@dataclass(frozen=True)
class _Place:
    """Where a pulled model goes. Its methods are called under `changing`."""

    store: ModelStore
    folder: Path
    suffix: str
    force: bool

    def check(self) -> None:
        recover(self.folder, self.suffix)
        check_free(self.store, self.folder.name, self.suffix, force=self.force)

    def put(self, finished: Path) -> None:
        name = self.folder.name
        with new_folder(self.store.root, name, self.suffix) as new:  # what is in `finished` goes with the next pull
            finished.rename(new)
            put_in_place(self.store, new, name, self.suffix)


class _Pull:
    """The part of a pull that happens under the lock of the model's name."""

    def __init__(self, client: HubClient, model: Wanted, place: _Place, report: Report) -> None:
        self._client = client
        self._model = model
        self._place = place
        self._folder = place.folder
        self._partial = self._folder.with_name(f".{self._folder.name}{PARTIAL_SUFFIX}")
        self._report = report
        self._warnings: list[str] = []

    def run(self, original: str) -> PulledModel:
        repository = self._model.repository
        tokenizer: list[Wanted] = []
        if PurePosixPath(self._model.name).suffix.lower() not in _WITH_TOKENIZER:
            tokenizer, problems = hub_tokenizer.find(self._client, self._model, original)
            self._warn(*problems)
        known = original or repository.base_model or (tokenizer[0].repository.id if tokenizer else "")
        download = self._bring(tokenizer)
        self._report(Progress("writing manifest"))
        with changing(self._place.store.root):
            self._place.check()  # a model of that name may have been made meanwhile
            sizes = download.finish()
            self._take_over(known)
            self._place.put(self._partial)
        self._report(Progress("success"))
        return PulledModel(
            self._folder.name, self._folder, self._model.name, sizes[self._model.name], tuple(self._warnings)
        )

    def _bring(self, tokenizer: list[Wanted]) -> Download:
        download = Download(self._client, self._partial, self._report)
        try:
            download.prepare([self._model, *tokenizer])
            download.bring(self._model)
            try:
                for one in tokenizer:
                    download.bring(one)
            except PullError as error:
                self._client.raise_if_cancelled(self._model.repository.id)
                self._warn(f"Not all tokenizer files could be brought. {error.message}")
            self._report(Progress("verifying sha256 digest"))
            download.verify()
        finally:
            with contextlib.suppress(OSError):  # it is kept if anything is in it
                self._partial.rmdir()
        return download

    def _take_over(self, original: str) -> None:
        """Give the new folder what the model that it replaces has beside its file; else a Modelfile of its own."""
        for file in missing_tokenizer_files(self._partial, self._folder):
            shutil.copyfile(file, self._partial / file.name)
        new = self._partial / MODELFILE
        kept = self._folder / MODELFILE
        if not kept.is_file():
            values = {"FROM": self._model.name, **({"HUGGINGFACE_PATH": original} if original else {})}
            new.write_text(write_assignments(values), encoding="utf-8")
            return
        shutil.copyfile(kept, new)
        with contextlib.suppress(StoreError):  # whoever wrote it is told when the model is loaded
            named = read_from(self._partial)
            if named and PurePosixPath(named).name != self._model.name:
                self._warn(f"The Modelfile of {self._folder.name} was kept and names {named}, not {self._model.name}.")

    def _warn(self, *texts: str) -> None:
        for text in texts:
            self._warnings.append(text)
            self._report(Progress(f"warning: {text}"))


def _model_file(repository: Repository, reference: HubReference, suffix: str) -> HubFile:
    found = sorted(path for path in repository.files if _is_model(path, suffix))
    models = [path for path in found if not _PART.fullmatch(path)]
    listed = ", ".join(models) or f"none that ends in {suffix}"
    if reference.file:
        if reference.file not in repository.files:
            raise NothingToPull(f"{repository.id} has no file {reference.file!r}. Its model files: {listed}.")
        if not reference.file.lower().endswith(suffix):
            raise NothingToPull(
                f"{reference.file!r} does not end in {suffix}. Model files of {repository.id}: {listed}."
            )
        models = [reference.file]
    elif len(models) > 1:
        raise NothingToPull(
            f"{repository.id} has several models: write one of them behind {repository.id}/. They are: {listed}."
        )
    chosen = next(iter(models or found), "")
    if not chosen:
        raise NothingToPull(f"{repository.id} has no file that ends in {suffix}: choose another repository.")
    if _PART.fullmatch(chosen):
        raise NothingToPull(
            f"{chosen!r} of {repository.id} is one part of a model in several files, and a single part cannot be "
            "loaded: choose a file that holds the whole model."
        )
    return repository.files[chosen]


def _is_model(path: str, suffix: str) -> bool:
    """As in the store: the parts of a vision model's encoder are no models."""
    name = PurePosixPath(path).name.lower()
    return name.endswith(suffix) and not name.startswith("mmproj")


def _bring_beside(folder: Path, wanted: list[Wanted], client: HubClient, report: Report) -> list[str]:
    partial = folder / f".tokenizer{PARTIAL_SUFFIX}"
    download = Download(client, partial, report)
    download.prepare(wanted)
    for one in wanted:
        download.bring(one)
    report(Progress("verifying sha256 digest"))
    download.verify()
    with changing(folder.parent):
        names = list(download.finish())
        for name in names:
            (partial / name).replace(folder / name)
        partial.rmdir()
    report(Progress("success"))
    return names


@contextlib.contextmanager
def _told_of_the_disk(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        at = error.filename or place
        raise PullError(f"{at} could not be written: {error.strerror or error}.") from error
