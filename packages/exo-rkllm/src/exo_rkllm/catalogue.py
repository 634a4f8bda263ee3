"""The models in the stores: which there are, by which names, and what is known of them without loading one."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from exo.inference import abilities, count_text, describe_card
from exo.models import (
    ModelDescription,
    Modelfile,
    ModelStore,
    StoredModel,
    describe_stored,
    modelfile_text,
    read_modelfile,
    said_by,
)
from exo.types import ModelCard, StoreError
from exo_rkllm.models import npu_card
from exo_rkllm.names import assign_names, parameter_size_of, quantization_of
from exo_rkllm.recipe import tokenizer_folder
from exo_rkllm.settings import NpuSettings
from exo_rkllm.text.families import family_of

SUFFIX = ".rkllm"
_LARGEST_CONFIG = 64 << 20
_SETTLED = 2.0
"""Seconds; file systems tell times apart by less."""


class Catalogue:
    """What the stores hold, the first store of a name first. Reads the disk at every call, unchanged files only once.

    A folder's name is the model's id. Further names are those of the card that fits, by the folder's name or by the
    HUGGINGFACE_PATH of its Modelfile, and the friendly ones.
    """

    def __init__(self, stores: Sequence[ModelStore], cards: Mapping[str, ModelCard], settings: NpuSettings) -> None:
        unique = {store.root.resolve(): store for store in reversed(stores)}
        self._stores = list(reversed(unique.values()))
        self._cards = cards
        self._settings = settings
        self._modelfiles: dict[Path, tuple[tuple[int, int, int], Modelfile, str]] = {}
        self._friendly: tuple[dict[str, str], dict[str, tuple[str, ...]]] = ({}, {})

    @property
    def stores(self) -> list[ModelStore]:
        return list(self._stores)

    @property
    def roots(self) -> list[Path]:
        return [store.root for store in self._stores]

    def scan(self) -> dict[str, StoredModel]:
        """The models by id, sorted within each store."""
        found: dict[str, StoredModel] = {}
        for store in self._stores:
            for stored in store.scan(SUFFIX):
                found.setdefault(stored.id, stored)
        return found

    def left_out(self) -> list[str]:
        """A sentence for each entry of the stores that cannot be served."""
        return [note for store in self._stores for note in store.left_out(SUFFIX)]

    def find(self, model_id: str) -> StoredModel | None:
        """One model, without a look at the others where that can be."""
        found = (store.find(model_id, SUFFIX) for store in self._stores)
        return next((stored for stored in found if stored is not None), None)

    def holder(self, model_id: str) -> ModelStore | None:
        """The store that `find` takes the model from."""
        return next((store for store in self._stores if store.find(model_id, SUFFIX) is not None), None)

    def cards(self) -> list[ModelCard]:
        """One card for each model, with the names that are its own."""
        models = self.scan()
        friendly = self._friendly_names({name: self._original(stored) for name, stored in models.items()})
        taken = {name.lower() for name in models}
        cards = []
        for stored in self._best_fits_first(models):
            card = self.card(stored)
            names = dict.fromkeys((*card.aliases, *friendly.get(stored.id, ())))
            aliases = tuple(name for name in names if name.lower() not in taken)
            taken.update(name.lower() for name in aliases)
            cards.append(msgspec.structs.replace(card, aliases=aliases))
        return sorted(cards, key=lambda card: card.id)

    def card(self, stored: StoredModel) -> ModelCard:
        """The card that fits, with the folder's name as its id; its other names may be claimed by several folders."""
        known = self._known_card(stored)
        files = {"rkllm": str(stored.path)}
        if known is None:
            return ModelCard(id=stored.id, display_name=stored.id, files=files)
        names = (known.id, *known.aliases)
        return msgspec.structs.replace(known, id=stored.id, aliases=names, files=files)

    def resolve(self, name: str) -> str | None:
        """The id of the model with that name, in any case; None if there is none."""
        lowered = name.lower()
        cards = self.cards()
        exact = next((card.id for card in cards if card.id == name), None)
        return exact or next((card.id for card in cards if lowered in map(str.lower, (card.id, *card.aliases))), None)

    def describe(self, model_id: str) -> ModelDescription:
        stored = self.find(model_id)
        if stored is None:
            return ModelDescription(id=model_id)
        card = self.card(stored)
        modelfile, text = self._modelfile(stored)
        template = modelfile.template or _chat_template(tokenizer_folder(stored))
        family = family_of(card.family, card.id)
        named = card.thinking or modelfile.thinking_close
        thinks = named or (family.thinking if not template else "</think>" in template)
        known = said_by(describe_stored(describe_card(card), stored), modelfile, text)
        return msgspec.structs.replace(
            known,
            family=card.family or family.name,
            parameter_size=count_text(card.parameters) or parameter_size_of(stored.id),
            quantization=quantization_of(stored.path.name) or quantization_of(stored.id),
            context_length=modelfile.parameters.num_ctx or card.context_length or self._settings.context,
            template=template or family.template,
            capabilities=abilities(thinks=bool(thinks), tools=True, embeds=card.pooling is not None),
        )

    def original_of(self, name: str) -> str:
        """The repository of the model that this one was converted from, as its Modelfile or a card says; or nothing."""
        stored = self.find(name)
        written = "" if stored is None else self._original(stored)
        known = npu_card(name, written)
        return written or (known.tokenizer if known else "")

    def _friendly_names(self, folders: dict[str, str]) -> dict[str, tuple[str, ...]]:
        """As `assign_names`, which takes long enough to keep what it said last."""
        asked, names = self._friendly
        if asked != folders:
            names = assign_names(folders)
            self._friendly = (folders, names)
        return names

    def _known_card(self, stored: StoredModel) -> ModelCard | None:
        lowered, original = stored.id.lower(), self._original(stored).lower()
        by_name = (card for card in self._cards.values() if lowered in map(str.lower, (card.id, *card.aliases)))
        by_original = (
            card
            for card in self._cards.values()
            if original and original in (repository.lower() for repository in card.files.values())
        )
        return next(by_name, None) or next(by_original, None)

    def _best_fits_first(self, models: Mapping[str, StoredModel]) -> list[StoredModel]:
        """Folders that bear a card's name, then those whose name tells a model, then those of the same original."""
        return sorted(
            models.values(),
            key=lambda stored: (npu_card(stored.id) is None, not parameter_size_of(stored.id), stored.id),
        )

    def _original(self, stored: StoredModel) -> str:
        return self._modelfile(stored)[0].huggingface_path or ""

    def _modelfile(self, stored: StoredModel) -> tuple[Modelfile, str]:
        """As read and as text; an empty one where there is none, or a faulty one: the load will tell.

        Remembered by what the file system says of the file, unless that is so new that another change might look alike.
        """
        status = None if stored.folder is None else _status(stored.folder / "Modelfile")
        if stored.folder is None or status is None:
            return Modelfile(), ""
        state = (status.st_mtime_ns, status.st_size, status.st_ino)
        kept = self._modelfiles.get(stored.folder)
        if kept is not None and kept[0] == state:
            return kept[1], kept[2]
        try:
            found, text = read_modelfile(stored.folder), modelfile_text(stored.folder)
        except StoreError:
            found, text = Modelfile(), ""
        if abs(time.time() - status.st_mtime) > _SETTLED:
            self._modelfiles[stored.folder] = (state, found, text)
        return found, text


def _content(path: Path) -> bytes:
    """Of a plain file of reasonable size, else nothing: a pipe or a device would never end."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return b""
            content = file.read(_LARGEST_CONFIG + 1)
    except OSError:
        return b""
    return content if len(content) <= _LARGEST_CONFIG else b""


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _chat_template(folder: Path) -> str:
    """The template that the tokenizer files bring, as they have it; empty if there is none."""
    template = _content(folder / "chat_template.jinja")
    if template:
        return template.decode("utf-8", "replace")
    try:
        config = json.loads(_content(folder / "tokenizer_config.json") or b"{}")
    except (ValueError, RecursionError):
        return ""
    found = config.get("chat_template") if isinstance(config, dict) else None
    return found if isinstance(found, str) else ""
