"""The engine class: which models can be served, which are loaded, and the requests on them."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import ClassVar

import msgspec

from exo.inference.engine import (
    Availability,
    Capability,
    EngineContext,
    EngineHealth,
    InferenceEngine,
    ResidentModel,
    abilities,
    describe_card,
)
from exo.inference.llamacpp.gguf import facts_of
from exo.inference.llamacpp.loaded import REASONS, LoadedModel, WorkerSettings
from exo.inference.llamacpp.modelfile import completed_chat, completed_prompt, modelfile_of
from exo.inference.pool import ModelPool, with_load
from exo.models import (
    HubLibrary,
    ModelDescription,
    Modelfile,
    StoredModel,
    describe_stored,
    parse_keep_alive,
    with_modelfile,
)
from exo.types import (
    ChatRequest,
    CompletionRequest,
    ConfigurationError,
    Delta,
    EmbeddingRequest,
    Embeddings,
    ModelCard,
    ModelLoadError,
    StoreError,
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


def keep_alive_from(env: Mapping[str, str]) -> float:
    """Seconds that an idle model stays loaded. Raises ConfigurationError."""
    try:
        return parse_keep_alive(env.get("EXO_LLAMACPP_KEEP_ALIVE") or "-1")
    except ValueError as error:
        raise ConfigurationError(f"EXO_LLAMACPP_KEEP_ALIVE: {error}.") from None


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
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "completion", "tools", "reasoning", "think_budget", "embeddings", "json_schema", "logprobs"}
    )

    def __init__(self, context: EngineContext) -> None:
        super().__init__(context)
        self._library = HubLibrary(context.store, SUFFIX, engines=(self.name,), cards=context.cards, env=context.env)
        self._settings, self._max_models = settings_from(context.env)
        self._pool = ModelPool(self._load, keep_alive=keep_alive_from(context.env))

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

    @property
    def library(self) -> HubLibrary:
        return self._library

    async def models(self) -> Sequence[ModelCard]:
        return [self._card(stored) for stored in self.context.store.scan(SUFFIX)]

    async def load(self, model: str, *, keep_alive: float | None = None) -> None:
        async with self._pool.use(model, keep_alive):
            pass

    async def unload(self, model: str) -> None:
        await self._pool.unload(model)

    def loaded(self) -> Sequence[str]:
        return list(self._pool.models)

    def resident(self) -> Sequence[ResidentModel]:
        return self._pool.resident()

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        request = completed_chat(request, self._modelfile(request.model))
        async with self._use(request) as (model, waited), contextlib.aclosing(model.chat(request)) as deltas:
            async for delta in deltas:
                yield with_load(delta, waited)

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        request = completed_prompt(request, self._modelfile(request.model))
        async with self._use(request) as (model, waited), contextlib.aclosing(model.complete(request)) as deltas:
            async for delta in deltas:
                yield with_load(delta, waited)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        async with self._pool.use(request.model, request.keep_alive) as model:
            return await model.embed(request.inputs)

    async def tokenize(self, model: str, text: str) -> Sequence[int]:
        async with self._pool.use(model) as loaded:
            return await loaded.tokenize(text)

    async def count(self, request: ChatRequest) -> int:
        async with self._pool.use(request.model) as loaded:
            return await loaded.count(completed_chat(request, self._modelfile(request.model)))

    async def health(self) -> EngineHealth:
        return self._pool.health()

    async def close(self) -> None:
        await self._pool.close()

    async def _load(self, model_id: str, begin: Callable[[], None]) -> LoadedModel:
        stored = self.context.store.find(model_id, SUFFIX)
        if stored is None:
            raise ModelLoadError(f"The file of {model_id} is not in the store: `exo pull {model_id}` brings it.")
        check_gguf(stored)
        while len(self._pool.models) >= self._max_models:
            await self._pool.retire(self._pool.next_to_go())
        context = self._modelfile(model_id).parameters.num_ctx or self._settings.context
        settings = dataclasses.replace(self._settings, context=context)
        begin()
        logger.info("loading %s from %s", model_id, stored.path)
        model = LoadedModel(self._card(stored), stored.path, settings, self.context.env)
        model.size = stored.size
        await model.start()
        return model

    async def describe(self, model: str) -> ModelDescription:
        stored = self.context.store.find(model, SUFFIX)
        if stored is None:
            return describe_card(ModelCard(id=model))
        card, facts = self._card(stored), facts_of(stored)
        known = msgspec.structs.replace(
            describe_stored(describe_card(card), stored),
            family=card.family or facts.architecture,
            template=facts.template,
            embedding_length=facts.embedding_length,
            capabilities=abilities(
                thinks=card.thinking is not None or REASONS in facts.template,
                tools=True,
                embeds=card.pooling is not None or facts.pools,
            ),
        )
        with contextlib.suppress(StoreError):  # the load will tell
            known = with_modelfile(known, stored)
        context = known.parameters.get("num_ctx") or self._settings.context
        return msgspec.structs.replace(known, context_length=min(context, known.context_length or context))

    def _modelfile(self, model: str) -> Modelfile:
        return modelfile_of(self.context.store.find(model, SUFFIX))

    def _use(
        self, request: ChatRequest | CompletionRequest
    ) -> contextlib.AbstractAsyncContextManager[tuple[LoadedModel, float]]:
        return self._pool.use_timed(request.model, request.keep_alive)

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
