"""The engine class: which models can be served, which are loaded, and the requests on them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from exo.inference.engine import Availability, Capability, EngineContext, EngineHealth, InferenceEngine
from exo.inference.llamacpp.loaded import LoadedModel, WorkerSettings
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


@dataclass
class _Loading:
    """A load under way: its task, how many requests wait for it, and whether it has found room and begun."""

    task: asyncio.Task[LoadedModel] = field(init=False)
    waiters: int = 0
    begun: bool = False
    model: LoadedModel | None = None


class LlamaCppEngine(InferenceEngine):
    """llama.cpp in one worker process for each loaded model.

    Serves every `.gguf` of the store: files of cards by the card's id, others by the name of their folder or file.
    """

    name: ClassVar[str] = "llamacpp"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "completion"})

    def __init__(self, context: EngineContext) -> None:
        super().__init__(context)
        self._settings, self._max_models = settings_from(context.env)
        self._loaded: dict[str, LoadedModel] = {}  # in the order of last use
        self._loading: dict[str, _Loading] = {}
        self._closed = False
        self._switching = asyncio.Lock()  # waiters are served in order, so no model is kept waiting for ever

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
        async with self._use(model):
            pass

    async def unload(self, model: str) -> None:
        async with self._switching:
            if model in self._loaded:
                await self._retire(model)

    def loaded(self) -> Sequence[str]:
        return list(self._loaded)

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        async with self._use(request.model) as model, contextlib.aclosing(model.chat(request)) as deltas:
            async for delta in deltas:
                yield delta

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        async with self._use(request.model) as model, contextlib.aclosing(model.complete(request)) as deltas:
            async for delta in deltas:
                yield delta

    async def tokenize(self, model: str, text: str) -> Sequence[int]:
        async with self._use(model) as loaded:
            return await loaded.tokenize(text)

    async def count(self, request: ChatRequest) -> int:
        async with self._use(request.model) as loaded:
            return await loaded.count(request)

    async def health(self) -> EngineHealth:
        for name, model in self._loaded.items():
            if model.problem:
                return EngineHealth(ready=False, detail=f"the worker of {name} cannot be started: {model.problem}")
        return EngineHealth(ready=True)

    async def close(self) -> None:
        self._closed = True
        loading = [entry.task for entry in self._loading.values()]
        for task in loading:
            task.cancel()
        await asyncio.gather(*loading, return_exceptions=True)
        models, self._loaded = list(self._loaded.values()), {}
        await asyncio.gather(*(model.close() for model in models))

    @contextlib.asynccontextmanager
    async def _use(self, model_id: str) -> AsyncIterator[LoadedModel]:
        """The loaded model, kept in memory for as long as the block lasts."""
        model = self._loaded.get(model_id)
        if model is None or model.retiring:
            model = await self._join_load(model_id)
        else:
            model.users += 1
        self._loaded[model_id] = self._loaded.pop(model_id)
        try:
            yield model
        finally:
            await model.leave()

    async def _join_load(self, model_id: str) -> LoadedModel:
        """Wait for a load; the model comes with this request among its users.

        The load has a task of its own, which goes on for the others when the request that began it is gone. Only one
        that nobody waits for any more, and that still waits for room, is given up.
        """
        loading = self._loading.get(model_id)
        if loading is None:
            loading = self._loading[model_id] = _Loading()
            loading.task = asyncio.create_task(self._load_in_turn(model_id, loading), name=f"load {model_id}")
            loading.task.add_done_callback(
                lambda task: task.cancelled() or task.exception()
            )  # nobody may be left to ask
        loading.waiters += 1
        try:
            return await asyncio.shield(loading.task)
        except BaseException:
            loading.waiters -= 1
            if loading.model is not None:
                await loading.model.leave()
            elif loading.waiters == 0 and not loading.begun:
                loading.task.cancel()
            raise

    async def _load_in_turn(self, model_id: str, loading: _Loading) -> LoadedModel:
        try:
            async with self._switching:
                model = self._loaded.get(model_id) or await self._load(model_id, loading)
                self._loaded[model_id] = loading.model = model
                model.users += loading.waiters  # at once, or the next load could take it from them
                return model
        finally:
            del self._loading[model_id]

    async def _load(self, model_id: str, loading: _Loading) -> LoadedModel:
        stored = self.context.store.find(model_id, SUFFIX)
        if stored is None:
            raise ModelLoadError(f"The file of {model_id} is not in the store: `exo pull {model_id}` brings it.")
        check_gguf(stored)
        while len(self._loaded) >= self._max_models:
            await self._evict()
        loading.begun = True
        logger.info("loading %s from %s", model_id, stored.path)
        model = LoadedModel(self._card(stored), stored.path, self._settings, self.context.env)
        await model.start()
        if self._closed:
            await model.close()
            raise ModelLoadError(f"The engine was closed while {model_id} was loading.")
        return model

    async def _evict(self) -> None:
        """Unload the model that was used least recently, an idle one if there is one."""
        name = min(self._loaded, key=lambda name: self._loaded[name].users > 0)
        logger.info("unloading %s to make room", name)
        await self._retire(name)

    async def _retire(self, name: str) -> None:
        """Let the model finish what it has, hold new requests back meanwhile, and unload it."""
        model = self._loaded[name]
        model.retiring = True
        try:
            await model.idle()
        finally:
            model.retiring = False
        if self._loaded.pop(name, None) is not None:  # else the engine was closed, and the model with it
            await model.close()

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
