"""The engine rkllm: language models on the NPU of a Rockchip board, each in a worker process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import ClassVar

import msgspec

from exo.chat import tools_as_json
from exo.inference import (
    Availability,
    Capability,
    EngineContext,
    EngineHealth,
    InferenceEngine,
    ModelPool,
    ResidentModel,
    with_load,
)
from exo.models import ModelDescription, ModelStore
from exo.types import (
    ChatRequest,
    CompletionRequest,
    Delta,
    EmbeddingRequest,
    Embeddings,
    EngineUnavailable,
    Message,
    ModelCard,
    ModelLoadError,
    Tool,
    UnsupportedParameter,
    Usage,
)
from exo_rkllm import memory
from exo_rkllm.catalogue import SUFFIX, Catalogue
from exo_rkllm.detection import Board, read_board
from exo_rkllm.library import NpuLibrary
from exo_rkllm.loaded import NpuLoadedModel
from exo_rkllm.metrics import NpuMetrics
from exo_rkllm.names import platform_of
from exo_rkllm.recipe import Recipe, recipe_for
from exo_rkllm.settings import NpuSettings
from exo_rkllm.supervisor.npu_worker import NpuWorker, Timeouts
from exo_rkllm.text.texts import ModelTexts, Prompt
from exo_rkllm.ways import choose
from exo_rkllm.worker.frames import LoadOrder

_DOMAINS = 16
"""The runtime's documents name no limit; the driver has room for as many."""
_KEPT_PROMPTS = 256
_AROUND = 8
_INLINE_CHARACTERS = 4096
"""Longer chats are encoded in a thread, so that the event loop goes on."""

logger = logging.getLogger(__name__)


class RKLLMInferenceEngine(InferenceEngine):
    """Drives librkllmrt in one worker process for each loaded model.

    Serves every `.rkllm` of the node's store and of rkllama's; a folder's name is the model's id. What is pulled goes
    into rkllama's.
    """

    name: ClassVar[str] = "rkllm"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "completion", "tools", "reasoning", "think_budget", "embeddings", "template"}
    )

    def __init__(self, context: EngineContext) -> None:
        super().__init__(context)
        self.settings = NpuSettings.from_env(context.env)
        self.metrics = NpuMetrics(context.registry, root=self.settings.root)
        own = ModelStore(self.settings.models_dir)
        self.catalogue = Catalogue((context.store, own), context.cards, self.settings)
        self._library = NpuLibrary(own, self.catalogue, cards=context.cards, env=context.env)
        self._pool = ModelPool(self._load, keep_alive=self.settings.keep_alive)
        self._prepared: dict[int, tuple[ChatRequest, ModelTexts, Prompt]] = {}
        self.metrics.cached.set_function(self._cached_positions)

    @property
    def no_model_hint(self) -> str:
        return f"Put a folder with a {SUFFIX} file and tokenizer.json into {self.settings.models_dir}."

    @classmethod
    def available(cls, env: Mapping[str, str]) -> Availability:
        return choose(env).availability

    @classmethod
    def create(cls, context: EngineContext) -> InferenceEngine:
        """The engine for the way that leads to an NPU; this class itself drives the one here."""
        url = choose(context.env).url
        if url is None:
            return cls(context)
        from exo_rkllm.remote import RkllmServerEngine  # noqa: PLC0415 - only a node that forwards speaks HTTP

        return RkllmServerEngine(context, url=url)

    @property
    def slots(self) -> int:
        return self.settings.slots

    @property
    def library(self) -> NpuLibrary:
        return self._library

    async def models(self) -> Sequence[ModelCard]:
        cards = self.catalogue.cards()
        self.metrics.begin_at_zero(card.id for card in cards)
        return cards

    async def describe(self, model: str) -> ModelDescription:
        """A model in memory may have less context than it would get by its Modelfile or card."""
        found, loaded = self.catalogue.describe(model), self._pool.models.get(model)
        return found if loaded is None else msgspec.structs.replace(found, context_length=loaded.context)

    async def load(self, model: str, *, keep_alive: float | None = None) -> None:
        async with self._pool.use(model, keep_alive):
            pass

    async def unload(self, model: str) -> None:
        await self._pool.unload(model)

    def loaded(self) -> Sequence[str]:
        return list(self._pool.models)

    def resident(self) -> Sequence[ResidentModel]:
        return self._pool.resident()

    async def prepare(self, request: ChatRequest) -> None:
        """Encode the chat while the NPU works on another; a model that is not loaded has no tokenizer in memory yet."""
        model = self._pool.models.get(request.model)
        if model is None:
            return
        prompt = await self._encode(model, request)
        model.check_length(prompt)
        while len(self._prepared) >= _KEPT_PROMPTS:
            del self._prepared[next(iter(self._prepared))]
        self._prepared[id(request)] = (request, model.texts, prompt)

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        async with self._use(request) as (model, waited):
            _, texts, prompt = self._prepared.pop(id(request), (request, None, None))
            if prompt is None or texts is not model.texts:  # the model may have been loaded anew meanwhile
                prompt = await self._encode(model, request)
            answer = model.answer(prompt, request.sampling, request.limits, request)
            async with contextlib.aclosing(answer) as deltas:
                async for delta in deltas:
                    yield with_load(delta, waited)

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        async with self._use(request) as (model, waited):
            model.check_size(1, len(request.prompt))
            prompt = await asyncio.to_thread(model.texts.encode_raw, request.prompt)
            async with contextlib.aclosing(model.answer(prompt, request.sampling, request.limits)) as deltas:
                async for delta in deltas:
                    yield with_load(delta, waited)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        async with self._use(request) as (model, _):
            for text in request.inputs:
                model.check_size(1, len(text))
            prompts = [await asyncio.to_thread(model.texts.encode_plain, text) for text in request.inputs]
            for number, prompt in enumerate(prompts):
                if not prompt.tokens:
                    raise UnsupportedParameter("An empty text has no embedding.", param=f"input[{number}]")
                model.check_length(prompt)
            vectors = [await model.embed(prompt.ids or ()) for prompt in prompts]
        return Embeddings(vectors=tuple(vectors), usage=Usage(prompt_tokens=sum(prompt.tokens for prompt in prompts)))

    async def tokenize(self, model: str, text: str) -> Sequence[int]:
        async with self._pool.use(model) as loaded:
            return list((await asyncio.to_thread(loaded.texts.encode_plain, text)).ids or ())

    async def count(self, request: ChatRequest) -> int:
        async with self._pool.use(request.model) as model:
            return (await self._encode(model, request)).tokens

    async def health(self) -> EngineHealth:
        return self._pool.health()

    async def close(self) -> None:
        await self._pool.close()
        self.metrics.server_up.set(0)

    def _use(
        self, request: ChatRequest | CompletionRequest | EmbeddingRequest
    ) -> contextlib.AbstractAsyncContextManager[tuple[NpuLoadedModel, float]]:
        return self._pool.use_timed(request.model, request.keep_alive)

    def _cached_positions(self) -> int:
        models = self._pool.models.values()
        return max(models, key=lambda model: model.last_used).cached if models else 0

    async def _encode(self, model: NpuLoadedModel, request: ChatRequest) -> Prompt:
        size = sum(map(_size, request.messages)) + len(request.template or "") + _size_of_tools(request.tools)
        model.check_size(len(request.messages), size)
        think = False if request.think_budget == 0 else request.think
        encode = functools.partial(
            model.texts.encode,
            request.messages,
            think=think,
            template=request.template,
            tools=request.tools,
            choice=request.tool_choice,
        )
        return encode() if size <= _INLINE_CHARACTERS else await asyncio.to_thread(encode)

    # --- loading ---

    async def _load(self, model_id: str, begin: Callable[[], None]) -> NpuLoadedModel:
        recipe = self._recipe(model_id)
        board = read_board(self.context.env)
        recipe, size = await self._make_room(recipe, self.settings.platform or board.chip)
        begin()
        logger.info("loading %s from %s", model_id, recipe.stored.path)
        texts = await asyncio.to_thread(recipe.texts)
        for warning in texts.warnings:
            logger.warning("%s: %s", model_id, warning)
        self._doubt_platform(recipe, board)
        domain = self._free_domain()
        with self.metrics.load.time():
            worker, recipe = await self._start(recipe, board, domain, counts=texts.counts)
        keep_to(board.little_cpus)
        self.metrics.server_up.set(1)
        return NpuLoadedModel(
            model_id,
            worker,
            texts,
            recipe.limits,
            self.metrics,
            sampling=recipe.modelfile.sampling(),
            size=size,
            domain=domain,
        )

    def _recipe(self, model_id: str) -> Recipe:
        stored = self.catalogue.find(model_id)
        if stored is None:
            raise ModelLoadError(
                f"The file of {model_id} is gone: put its folder with the {SUFFIX} file into "
                f"{' or '.join(map(str, self.catalogue.roots))}."
            )
        return recipe_for(stored, self.catalogue.card(stored), self.settings)

    async def _make_room(self, recipe: Recipe, platform: str | None) -> tuple[Recipe, int]:
        """Unload others until the model fits; returns how it is to be loaded, and the bytes that it takes.

        Those that are in use come last, and end first what they have. None goes for a model that is refused. Context
        that nobody has asked for gives way. Raises InsufficientMemory.
        """
        models, most = self._pool.models.items(), self.settings.max_models
        need = recipe.memory_need(platform)
        free = memory.available(self.settings.root) if self.settings.memory_check else None
        idle, busy = (
            [(name, model.size, model.last_used) for name, model in models if bool(model.users) is in_use]
            for in_use in (False, True)
        )
        too_many = max(0, len(models) + 1 - most) if most else 0
        if free is not None:
            room = free + sum(size for _, size, _ in [*idle, *busy])
            if need.total > room:
                recipe = self._with_less_context(recipe, room, platform)
                need = recipe.memory_need(platform)
        asked, at_hand = (0, 0) if free is None else (need.total, free)
        leaving = memory.choose_evictions(asked, at_hand, idle, busy, least=too_many)
        if leaving is None:
            raise memory.refusal(recipe.stored.id, need, at_hand, [*idle, *busy])
        for name in leaving:
            await self._pool.retire(name)
        return recipe, need.total

    def _with_less_context(self, recipe: Recipe, room: int, platform: str | None) -> Recipe:
        """As it is if that does not help, or if its Modelfile asks for a context."""
        smaller = recipe.that_fits(room, platform)
        if smaller is not recipe:
            logger.warning(
                "%s gets a context of %s tokens: there is not enough memory for %s. NUM_CTX in its Modelfile insists.",
                recipe.stored.id,
                smaller.limits.context,
                recipe.limits.context,
            )
        return smaller

    def _doubt_platform(self, recipe: Recipe, board: Board) -> None:
        """A file that was made for another chip does not load; its name often says so, and the runtime does not."""
        here = self.settings.platform or board.chip
        path = recipe.stored.path
        named = platform_of(path.name) or platform_of(path.parent.name)
        if here and named and here != named:
            logger.warning("%s is made for %s, as its name says, but this is %s.", recipe.stored.id, named, here)

    def _free_domain(self) -> int:
        """For the runtime's base_domain_id: each model in memory has one of its own."""
        taken = {model.domain for model in self._pool.models.values()}
        return next((domain for domain in range(_DOMAINS) if domain not in taken), 0)

    async def _start(self, recipe: Recipe, board: Board, domain: int, *, counts: bool) -> tuple[NpuWorker, Recipe]:
        """A worker with the model loaded, and the recipe that it was loaded by.

        What nobody has asked for may give way: a model that was converted for less context is loaded with that.
        """
        worker = self._worker(recipe, board, domain, counts=counts)
        try:
            await worker.start()
        except ModelLoadError as error:
            limit = worker.context_limit
            if limit is None or limit >= recipe.limits.context:
                raise
            if recipe.modelfile.parameters.num_ctx is not None:
                hint = f"It was converted for a context of at most {limit} tokens: NUM_CTX in its Modelfile is greater."
                raise ModelLoadError(f"{error.message} {hint}") from error
            logger.warning("%s was converted for a context of %s tokens and gets no more.", recipe.stored.id, limit)
            smaller = recipe.with_context(limit)
            worker = self._worker(smaller, board, domain, counts=counts)
            await worker.start()
            return worker, smaller
        return worker, recipe

    def _worker(self, recipe: Recipe, board: Board, domain: int, *, counts: bool) -> NpuWorker:
        settings, model_id = self.settings, recipe.stored.id
        if board.library is None:
            raise EngineUnavailable(f"{model_id} cannot be loaded: {' '.join(board.problems)}")
        order: LoadOrder = {
            "library": str(board.library.absolute()),  # the worker has another working directory
            "abi": settings.abi,
            "model": str(recipe.stored.path.resolve()),
            "max_context": recipe.limits.context,
            "max_new_tokens": recipe.limits.context,
            "sampling": recipe.fixed_sampling(),
            "cpus": list(settings.cpus or board.big_cpus),
            "housekeeping": list(board.little_cpus),
            "domain": domain,
            "template": counts,
        }
        return NpuWorker(
            f"the rkllm worker of {model_id}",
            order,
            env=self.context.env,
            timeouts=Timeouts(
                settings.run_timeout,
                settings.run_timeout_per_token,
                settings.load_seconds(recipe.stored.size),
            ),
            on_restart=self.metrics.worker_restarts.labels(model_id).inc,
        )


def _size(message: Message) -> int:
    """Characters of a message, and a few for what the template puts around it."""
    calls = sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
    return len(message.content) + len(message.reasoning) + calls + _AROUND


def _size_of_tools(tools: Sequence[Tool]) -> int:
    return len(msgspec.json.encode(tools_as_json(tools))) if tools else 0


def keep_to(cpus: Sequence[int]) -> None:
    """Keep this thread, the node's event loop, off the big CPUs: the runtime needs those. Empty: all are alike."""
    if cpus:
        with contextlib.suppress(OSError):  # a container that forbids it
            os.sched_setaffinity(0, cpus)
