"""How a model is to be loaded: what its folder, its card and the settings say, put together."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from exo.models import Modelfile, StoredModel, read_modelfile
from exo.types import ModelCard, ModelLoadError, StoreError
from exo_rkllm import memory
from exo_rkllm.loaded import ModelLimits
from exo_rkllm.models import DEFAULT_MAX_NEW_TOKENS, NpuCard, npu_card
from exo_rkllm.runtime import SamplingOptions
from exo_rkllm.settings import NpuSettings
from exo_rkllm.text.texts import ModelTexts

if TYPE_CHECKING:  # the planner is imported with the first model, not when a node starts
    from rkllm_facts.architecture import Architecture

logger = logging.getLogger(__name__)

LEAST_CONTEXT = 512
"""No model is given less than this because memory is short."""
_STEP = 256


@dataclass(frozen=True)
class Recipe:
    """`npu` is what is known of the model beyond its card, None for a model that nobody has described."""

    stored: StoredModel
    card: ModelCard
    npu: NpuCard | None
    modelfile: Modelfile
    limits: ModelLimits

    @property
    def folder(self) -> Path:
        """Where the tokenizer files are."""
        return tokenizer_folder(self.stored)

    def with_context(self, context: int) -> Recipe:
        return dataclasses.replace(self, limits=dataclasses.replace(self.limits, context=context))

    def texts(self) -> ModelTexts:
        """Reads the tokenizer; takes up to a second. Raises ModelLoadError."""
        return ModelTexts.load(self.folder, self.card, self.npu, self.modelfile)

    def memory_need(self, platform: str | None = None) -> memory.MemoryNeed:
        """As planned if the model is known, else with a margin on the safe side. `platform` is the board's chip."""
        architecture = memory.read_architecture(self.folder) or self._known_architecture()
        planned = architecture and memory.planned(self.stored.size, architecture, self.limits.context, platform)
        if planned:
            return planned
        geometry = memory.read_geometry(self.folder) or (self.npu.kv if self.npu else None)
        return memory.needed(self.stored.size, geometry, self.limits.context)

    def that_fits(self, room: int, platform: str | None = None) -> Recipe:
        """With the most context that `room` bytes are enough for, in steps of 256 tokens and down to LEAST_CONTEXT.

        As it is if none is little enough, or if the Modelfile asks for a context.
        """
        if self.modelfile.parameters.num_ctx is not None:
            return self
        longest = (self.limits.context - 1) // _STEP * _STEP
        shorter = (self.with_context(context) for context in range(longest, LEAST_CONTEXT - 1, -_STEP))
        return next((one for one in shorter if one.memory_need(platform).total <= room), self)

    def _known_architecture(self) -> Architecture | None:
        """By the repository that the Modelfile or the card names, else by the model's own name."""
        from rkllm_facts.architecture import known_architecture  # noqa: PLC0415 - see above
        from rkllm_facts.errors import UnknownModel  # noqa: PLC0415 - as above

        names = (self.modelfile.huggingface_path, self.npu.tokenizer if self.npu else None, self.stored.id)
        for name in names:
            with contextlib.suppress(UnknownModel):
                return known_architecture(name or "")
        return None

    def fixed_sampling(self) -> dict[str, float]:
        """What the Modelfile says about sampling, in the names of the runtime."""
        names = (field.name for field in dataclasses.fields(SamplingOptions))
        said = msgspec.structs.asdict(self.modelfile.parameters) | msgspec.structs.asdict(self.modelfile.sampling())
        return {name: said[name] for name in names if said[name] is not None}


def tokenizer_folder(stored: StoredModel) -> Path:
    """The model's folder if it has a tokenizer, else that of the file which its Modelfile names."""
    own, named = stored.folder, stored.path.parent
    return own if own is not None and (own / "tokenizer.json").is_file() else named


def recipe_for(stored: StoredModel, card: ModelCard, settings: NpuSettings) -> Recipe:
    """Raises ModelLoadError for a Modelfile that makes no sense."""
    modelfile = _modelfile(stored)
    npu = npu_card(stored.id, modelfile.huggingface_path or "")
    parameters = modelfile.parameters
    context = parameters.num_ctx or card.context_length or settings.context
    longest = parameters.num_predict or (npu.max_new_tokens if npu else DEFAULT_MAX_NEW_TOKENS)
    limits = ModelLimits(
        context=context,
        max_new_tokens=longest if longest > 0 else context,
        stop=parameters.stop,
        pad_limit=settings.pad_limit,
    )
    return Recipe(stored, card, npu, modelfile, limits)


def _modelfile(stored: StoredModel) -> Modelfile:
    if stored.folder is None:
        return Modelfile()
    try:
        modelfile = read_modelfile(stored.folder)
    except StoreError as error:
        raise ModelLoadError(error.message) from error
    for problem in modelfile.problems:
        logger.warning("%s", problem)
    named = modelfile.from_ or ""
    if named.lower().endswith(stored.path.suffix.lower()) and PurePosixPath(named).name != stored.path.name:
        logger.warning("%s: FROM names %r, which is not there; %s is used.", stored.id, named[:200], stored.path.name)
    return modelfile
