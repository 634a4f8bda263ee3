"""The model library over several stores: what is there is changed where it is, what is new goes into one of them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import PurePosixPath

from exo.models import HubLibrary, ModelStore, Progress, Report, StoredModel
from exo.types import ModelCard
from exo_rkllm.catalogue import SUFFIX, Catalogue

ENGINES = ("rkllm", "RKLLMInferenceEngine")
"""Names under which cards name the files of this library."""


def ignore(_step: Progress) -> None:
    """The report of whoever wants none."""


class _StoreLibrary(HubLibrary):
    """Changes one store; what a new model is made of may lie in any store of the catalogue."""

    def __init__(
        self, store: ModelStore, catalogue: Catalogue, *, cards: Mapping[str, ModelCard], env: Mapping[str, str]
    ) -> None:
        super().__init__(
            store,
            SUFFIX,
            engines=ENGINES,
            cards=cards,
            env=env,
            resolve=catalogue.resolve,
            original=catalogue.original_of,
        )
        self._catalogue = catalogue

    def _model(self, name: str) -> StoredModel | None:
        return self._catalogue.find(name) or self._catalogue.find(self._resolve(name) or "")


class NpuLibrary(_StoreLibrary):
    """For each model the library of the store that serves it; `store` is the one that new models go to.

    A name that any store has is taken there. `force` replaces the model in that store: one elsewhere might never be
    served.
    """

    def __init__(
        self, store: ModelStore, catalogue: Catalogue, *, cards: Mapping[str, ModelCard], env: Mapping[str, str]
    ) -> None:
        super().__init__(store, catalogue, cards=cards, env=env)
        self._own = _StoreLibrary(store, catalogue, cards=cards, env=env)
        self._others = {
            other.root: _StoreLibrary(other, catalogue, cards=cards, env=env)
            for other in catalogue.stores
            if other.root.resolve() != store.root.resolve()
        }

    def create(self, name: str, text: str, *, force: bool = False, report: Report = ignore) -> StoredModel:
        return self._of(name).create(name, text, force=force, report=report)

    def copy(self, source: str, destination: str, *, force: bool = False) -> StoredModel:
        return self._of(destination).copy(source, destination, force=force)

    def delete(self, model_id: str) -> list[str]:
        return self._of(model_id).delete(model_id)

    def pull(
        self,
        reference: str,
        *,
        force: bool = False,
        report: Report = ignore,
        cancelled: threading.Event | None = None,
    ) -> str:
        library = self._of(self._name_in(reference))
        return library.pull(reference, force=force, report=report, cancelled=cancelled)

    def pull_tokenizer(
        self,
        model_id: str,
        repository: str = "",
        *,
        report: Report = ignore,
        cancelled: threading.Event | None = None,
    ) -> list[str]:
        return self._of(model_id).pull_tokenizer(model_id, repository, report=report, cancelled=cancelled)

    def add_modelfile(self, model_id: str, *, from_: str, huggingface_path: str) -> None:
        self._of(model_id).add_modelfile(model_id, from_=from_, huggingface_path=huggingface_path)

    def _of(self, model_id: str) -> _StoreLibrary:
        holder = self._catalogue.holder(model_id)
        return self._own if holder is None else self._others.get(holder.root, self._own)

    def _name_in(self, reference: str) -> str:
        """The name that a pull gives its model; empty where only the hub can tell which file is meant."""
        lowered = reference.lower().removesuffix(":latest")
        cards = self._cards.values()
        card = next((card for card in cards if lowered in map(str.lower, (card.id, *card.aliases))), None)
        if card is not None:
            return card.id
        file, _, name = reference.rpartition("/")[2].partition(":")
        return name or (PurePosixPath(file).stem if file.lower().endswith(SUFFIX) else "")
