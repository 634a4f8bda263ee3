"""The engine class: which models can be served, which are loaded, and the requests on them."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import ClassVar

from exo.inference.engine import Availability, Capability, EngineContext, EngineHealth, InferenceEngine
from exo.inference.llamacpp.loaded import LoadedModel, WorkerSettings
from exo.inference.pool import ModelPool
from exo.models import StoredModel
from exo.types import (
    ChatRequest,
    CompletionRequest,
    ConfigurationError,
    Delta,
    ModelCard,
    ModelLoadError,
)

SUFFIX = ".gguf"
logger = logging.getLogger(__name__)


def settings_from(env: Mapping[str, str]) -> tuple[WorkerSettings, int]:
    """The worker's settings and the number of models held at once. Raises ConfigurationError."""
    settings = WorkerSettings(
        slots=_number(env, "EXO_LLAMACPP_SLOTS", 4, low=1, high=64),
        context=_number(env, "EXO_LLAMACPP_CONTEXT", 4096, low=256, high=1 << 20),
        threads=_number(env, "EXO_LLAMACPP_THREADS", 0, low=0, high=512),
        cache_mib=_number(env, "EXO_LLAMACPP_CACHE_MIB", 256, low=0, high=1 << 20),
    )
    return settings, _number(env, "EXO_LLAMACPP_MAX_MODELS", 1, low=1, high=64)


def _number(env: Mapping[str, str], name: str, default: int, *, low: int, high: int) -> int:
    text = env.get(name, "")
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        raise ConfigurationError(f"{name} has to be a whole number, not {text!r}.") from None
    if not low <= value <= high:
        raise ConfigurationError(f"{name} has to be between {low} and {high}, not {value}.")
    return value


class LlamaCppEngine(InferenceEngine):
    """llama.cpp in one worker process for each loaded model.

    Serves every `.gguf` of the store: files of cards by the card's id, others by the name of their folder or file.
    """

    name: ClassVar[str] = "llamacpp"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "completion"})

    def __init__(self, context: EngineContext) -> None:
        super().__init__(context)
        self._settings, self._max_models = settings_from(context.env)
        self._pool = ModelPool(self._load)

    @property
    def no_model_hint(self) -> str:
        return "`exo pull smollm2-135m-instruct` brings one."

    @classmethod
    def available(cls, env: Mapping[str, str]) -> Availability:  # noqa: ARG003 - the contract passes it to every engine
        if importlib.util.find_spec("xllamacpp") is None:
            return Availability(ok=False, reason="the package xllamacpp is not installed")
        return Availability(ok=True, reason="llama.cpp on the CPU")

    @property
    def slots(self) -> int:
        return self._settings.slots

    async def models(self) -> Sequence[ModelCard]:
        return [self._card(stored) for stored in self.context.store.scan(SUFFIX)]

    async def load(self, model: str) -> None:
        async with self._pool.use(model):
            pass

    async def unload(self, model: str) -> None:
        await self._pool.unload(model)

    def loaded(self) -> Sequence[str]:
        return list(self._pool.models)

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        async with self._pool.use(request.model) as model, contextlib.aclosing(model.chat(request)) as deltas:
            async for delta in deltas:
                yield delta

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        async with self._pool.use(request.model) as model, contextlib.aclosing(model.complete(request)) as deltas:
            async for delta in deltas:
                yield delta

    async def tokenize(self, model: str, text: str) -> Sequence[int]:
        async with self._pool.use(model) as loaded:
            return await loaded.tokenize(text)

    async def count(self, request: ChatRequest) -> int:
        async with self._pool.use(request.model) as loaded:
            return await loaded.count(request)

    async def health(self) -> EngineHealth:
        for name, model in self._pool.models.items():
            if model.problem:
                return EngineHealth(ready=False, detail=f"the worker of {name} cannot be started: {model.problem}")
        return EngineHealth(ready=True)

    async def close(self) -> None:
        await self._pool.close()

    async def _load(self, model_id: str, begin: Callable[[], None]) -> LoadedModel:
        stored = self.context.store.find(model_id, SUFFIX)
        if stored is None:
            raise ModelLoadError(f"The file of {model_id} is not in the store: `exo pull {model_id}` brings it.")
        check_gguf(stored)
        while len(self._pool.models) >= self._max_models:
            await self._pool.retire(self._pool.next_to_go())
        begin()
        logger.info("loading %s from %s", model_id, stored.path)
        model = LoadedModel(self._card(stored), stored.path, self._settings, self.context.env)
        await model.start()
        return model

    def _card(self, stored: StoredModel) -> ModelCard:
        card = self.context.cards.get(stored.id)
        return card or ModelCard(id=stored.id, display_name=stored.id, files={self.name: str(stored.path)})


def check_gguf(stored: StoredModel) -> None:
    """Refuse what is plainly not a model, in words that llama.cpp does not have. Raises ModelLoadError."""
    try:
        with stored.path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ModelLoadError(f"{stored.path} cannot be read: {os.strerror(error.errno or 0)}.") from error
    if magic != b"GGUF":
        raise ModelLoadError(f"{stored.path} is not a GGUF model: it begins with {magic!r}. Replace it, or remove it.")
