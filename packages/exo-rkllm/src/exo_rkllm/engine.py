"""The engine rkllm: language models on the NPU of a Rockchip board, each in a worker process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import ClassVar

from exo.inference import (
    Availability,
    Capability,
    EngineContext,
    EngineHealth,
    InferenceEngine,
    ModelPool,
)
from exo.models import ModelStore, StoredModel
from exo.types import (
    ChatRequest,
    CompletionRequest,
    ConfigurationError,
    Delta,
    EmbeddingRequest,
    Embeddings,
    EngineUnavailable,
    Message,
    ModelCard,
    ModelLoadError,
    UnsupportedParameter,
    Usage,
)
from exo_rkllm import memory
from exo_rkllm.detection import Board, read_board
from exo_rkllm.loaded import NpuLoadedModel
from exo_rkllm.metrics import NpuMetrics
from exo_rkllm.recipe import Recipe, recipe_for
from exo_rkllm.runtime import NpuError, check_library
from exo_rkllm.settings import NpuSettings
from exo_rkllm.supervisor.npu_worker import NpuWorker, Timeouts
from exo_rkllm.text.texts import ModelTexts, Prompt
from exo_rkllm.worker.frames import LoadOrder

SUFFIX = ".rkllm"
_KEPT_PROMPTS = 256
_AROUND = 8
_INLINE_CHARACTERS = 4096
"""Longer chats are encoded in a thread, so that the event loop goes on."""

logger = logging.getLogger(__name__)


class RKLLMInferenceEngine(InferenceEngine):
    """Drives librkllmrt in one worker process for each loaded model.

    Serves every `.rkllm` of the node's store and of rkllama's; a folder's name is the model's id.
    """

    name: ClassVar[str] = "rkllm"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "completion", "reasoning", "embeddings"})

    def __init__(self, context: EngineContext) -> None:
        super().__init__(context)
        self.settings = NpuSettings.from_env(context.env)
        self.metrics = NpuMetrics(context.registry)
        self._stores = (context.store, ModelStore(self.settings.models_dir))
        self._pool = ModelPool(self._load)
        self._prepared: dict[int, tuple[ChatRequest, ModelTexts, Prompt]] = {}
        self._unloads: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.metrics.cached.set_function(self._cached_positions)

    @property
    def no_model_hint(self) -> str:
        return f"Put a folder with a {SUFFIX} file and tokenizer.json into {self.settings.models_dir}."

    @classmethod
    def available(cls, env: Mapping[str, str]) -> Availability:
        for name in ("RKLLM_SERVER_HOST", "RKLLM_SERVER_PORT"):
            if env.get(name):
                reason = f"{name} is set, but another server cannot be used yet; unset it to use the NPU"
                return Availability(ok=False, reason=reason)
        board = read_board(env)
        if board.library is None:
            named = board.problems[-1:] if env.get("RKLLM_LIB") else board.problems
            return Availability(ok=False, reason=" ".join(named) or "no librkllmrt.so was found")
        try:
            check_library(board.library, NpuSettings.from_env(env).abi)
        except (NpuError, ConfigurationError) as error:
            return Availability(ok=False, reason=error.message)
        version = board.library_version or "of unknown version"
        return Availability(ok=True, reason=f"librkllmrt {version} at {board.library}")

    @property
    def slots(self) -> int:
        return self.settings.slots

    async def models(self) -> Sequence[ModelCard]:
        return [self._card(stored) for stored in self._scan().values()]

    async def load(self, model: str) -> None:
        async with self._use(model):
            pass

    async def unload(self, model: str) -> None:
        await self._pool.unload(model)

    def loaded(self) -> Sequence[str]:
        return list(self._pool.models)

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
        async with self._use(request.model) as model:
            _, texts, prompt = self._prepared.pop(id(request), (request, None, None))
            if prompt is None or texts is not model.texts:  # the model may have been loaded anew meanwhile
                prompt = await self._encode(model, request)
            async with contextlib.aclosing(model.answer(prompt, request.sampling, request.limits)) as deltas:
                async for delta in deltas:
                    yield delta

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        async with self._use(request.model) as model:
            model.check_size(1, len(request.prompt))
            prompt = await asyncio.to_thread(model.texts.encode_raw, request.prompt)
            async with contextlib.aclosing(model.answer(prompt, request.sampling, request.limits)) as deltas:
                async for delta in deltas:
                    yield delta

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        async with self._use(request.model) as model:
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
        async with self._use(model) as loaded:
            return list((await asyncio.to_thread(loaded.texts.encode_plain, text)).ids or ())

    async def count(self, request: ChatRequest) -> int:
        async with self._use(request.model) as model:
            return (await self._encode(model, request)).tokens

    async def health(self) -> EngineHealth:
        for name, model in self._pool.models.items():
            if model.problem:
                return EngineHealth(ready=False, detail=f"the worker of {name} cannot be started: {model.problem}")
        return EngineHealth(ready=True)

    async def close(self) -> None:
        for timer in self._unloads.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await self._pool.close()
        self.metrics.server_up.set(0)

    @contextlib.asynccontextmanager
    async def _use(self, model_id: str) -> AsyncGenerator[NpuLoadedModel, None]:
        """The loaded model; once nobody uses it, it stays for RKLLM_KEEP_ALIVE."""
        self._keep(model_id)
        try:
            async with self._pool.use(model_id) as model:
                yield model
        finally:
            self._unload_later(model_id)

    def _cached_positions(self) -> int:
        models = self._pool.models.values()
        return max(models, key=lambda model: model.last_used).cached if models else 0

    def _keep(self, model_id: str) -> None:
        timer = self._unloads.pop(model_id, None)
        if timer is not None:
            timer.cancel()

    def _unload_later(self, model_id: str) -> None:
        self._keep(model_id)
        if math.isfinite(self.settings.keep_alive) and model_id in self._pool.models:
            loop = asyncio.get_running_loop()
            self._unloads[model_id] = loop.call_later(self.settings.keep_alive, self._unload_now, model_id)

    def _unload_now(self, model_id: str) -> None:
        task = asyncio.ensure_future(self._pool.unload_if_idle(model_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _encode(self, model: NpuLoadedModel, request: ChatRequest) -> Prompt:
        size = sum(map(_size, request.messages))
        model.check_size(len(request.messages), size)
        if size <= _INLINE_CHARACTERS:
            return model.texts.encode(request.messages)
        return await asyncio.to_thread(model.texts.encode, request.messages)

    def _scan(self) -> dict[str, StoredModel]:
        """The models of both stores by id; the node's own store comes first."""
        found: dict[str, StoredModel] = {}
        for store in self._stores:
            for stored in store.scan(SUFFIX):
                found.setdefault(stored.id, stored)
        return found

    def _card(self, stored: StoredModel) -> ModelCard:
        card = self.context.cards.get(stored.id)
        return card or ModelCard(id=stored.id, display_name=stored.id, files={self.name: str(stored.path)})

    # --- loading ---

    async def _load(self, model_id: str, begin: Callable[[], None]) -> NpuLoadedModel:
        recipe = self._recipe(model_id)
        size = await self._make_room(recipe)
        begin()
        logger.info("loading %s from %s", model_id, recipe.stored.path)
        texts = await asyncio.to_thread(recipe.texts)
        for warning in texts.warnings:
            logger.warning("%s: %s", model_id, warning)
        board = read_board(self.context.env)
        with self.metrics.load.time():
            worker, recipe = await self._start(recipe, board, counts=texts.counts)
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
        )

    def _recipe(self, model_id: str) -> Recipe:
        stored = self._scan().get(model_id)
        if stored is None:
            raise ModelLoadError(
                f"The file of {model_id} is gone: put its folder with the {SUFFIX} file into "
                f"{' or '.join(str(store.root) for store in self._stores)}."
            )
        return recipe_for(stored, self._card(stored), self.settings)

    async def _make_room(self, recipe: Recipe) -> int:
        """Unload what is idle until the model fits; returns what it takes, in bytes. Raises InsufficientMemory."""
        need = recipe.memory_need()
        free = memory.available(self.settings.root)
        if free is None or not self.settings.memory_check:
            return need.total
        idle = [(name, model.size, model.last_used) for name, model in self._pool.models.items() if model.users == 0]
        leaving = memory.choose_evictions(need.total, free, idle)
        if leaving is None:
            raise memory.refusal(recipe.stored.id, need, free, idle)
        for name in leaving:
            await self._pool.retire(name)
        return need.total

    async def _start(self, recipe: Recipe, board: Board, *, counts: bool) -> tuple[NpuWorker, Recipe]:
        """A worker with the model loaded, and the recipe that it was loaded by.

        What nobody has asked for may give way: a model that was converted for less context is loaded with that.
        """
        worker = self._worker(recipe, board, counts=counts)
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
            worker = self._worker(smaller, board, counts=counts)
            await worker.start()
            return worker, smaller
        return worker, recipe

    def _worker(self, recipe: Recipe, board: Board, *, counts: bool) -> NpuWorker:
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
            "template": counts,
        }
        return NpuWorker(
            f"the rkllm worker of {model_id}",
            order,
            env=self.context.env,
            timeouts=Timeouts(settings.run_timeout, settings.run_timeout_per_token, settings.load_timeout),
            on_restart=self.metrics.worker_restarts.labels(model_id).inc,
        )


def _size(message: Message) -> int:
    """Characters of a message, and a few for what the template puts around it."""
    calls = sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
    return len(message.content) + len(message.reasoning) + calls + _AROUND


def keep_to(cpus: Sequence[int]) -> None:
    """Keep this thread, the node's event loop, off the big CPUs: the runtime needs those. Empty: all are alike."""
    if cpus:
        with contextlib.suppress(OSError):  # a container that forbids it
            os.sched_setaffinity(0, cpus)
