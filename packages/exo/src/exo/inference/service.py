"""The node without HTTP: one engine, its scheduler, and the requests on it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from exo.inference.answer import Answer
from exo.inference.conversation import conversation_key
from exo.inference.engine import InferenceEngine
from exo.inference.metrics import NodeMetrics
from exo.inference.scheduler import Scheduler
from exo.types import (
    ChatRequest,
    Delta,
    EngineError,
    ExoError,
    InvalidRequest,
    ModelCard,
    ModelLoadError,
    ModelNotFound,
    RunFailed,
    ShuttingDown,
)

_PRELOAD_RETRY = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Readiness:
    """What /ready answers. `reason` is empty while the node is ready."""

    ready: bool
    reason: str
    slots: int
    running: int
    queued: int
    queue_limit: int
    models: Sequence[str]
    loaded: Sequence[str]


class InferenceService:
    """Resolves models, admits requests, and hands out answers. One owner: the event loop."""

    def __init__(
        self,
        engine: InferenceEngine,
        metrics: NodeMetrics,
        *,
        queue_limit: int = 128,
        default_model: str | None = None,
        request_timeout: float | None = None,
    ) -> None:
        self.engine = engine
        self.metrics = metrics
        self._scheduler = Scheduler(slots=engine.slots, limit=queue_limit)
        self._default_model = default_model
        self._default_was_asked_for = default_model is not None
        self._request_timeout = request_timeout
        self._answers: set[Answer] = set()
        self._preload: asyncio.Task[None] | None = None
        self._blocked = ""
        self._has_served = False
        self._draining = False
        self._all_ended = asyncio.Event()
        metrics.in_progress.set_function(lambda: len(self._answers))
        metrics.queued.set_function(lambda: self._scheduler.waiting)
        metrics.queue_limit.set(queue_limit)
        metrics.slots.set(engine.slots)

    async def models(self) -> list[ModelCard]:
        """What can be served now, the default model first. Raises EngineError if the engine cannot tell."""
        try:
            cards = await self.engine.models()
        except ExoError:
            raise
        except Exception as error:  # an engine is a plugin and may raise anything
            logger.exception("the engine %s cannot tell its models", self.engine.name)
            raise EngineError(f"The engine {self.engine.name} cannot tell its models: {error!r}.") from error
        return sorted(cards, key=lambda card: (not _is_called(card, self._default_model), card.id))

    async def update_model_info(self) -> None:
        """Bring exo_model_info up to date; called before metrics are read."""
        cards = await self.models()
        self.metrics.model_info.clear()
        for card in cards:
            self.metrics.model_info.labels(card.id, card.family, self.engine.name).set(1)

    async def resolve(self, name: str | None) -> ModelCard:
        """The card for a model's id or alias; no name means the default model. Raises ModelNotFound, ModelLoadError.

        Without `--default-model` the first one by name becomes the default, and stays it for as long as it is there.
        """
        cards = await self.models()
        wanted = name or self._default_model
        for card in cards:
            if _is_called(card, wanted):
                return card
        if name or self._default_was_asked_for:
            raise ModelNotFound(wanted or "", [card.id for card in cards])
        if not cards:
            raise ModelLoadError(f"No model is in the store. {self.engine.no_model_hint}")
        self._default_model = cards[0].id
        return cards[0]

    def start(self, *, preload: bool = True) -> None:
        """Begin to load the default model in the background."""
        if preload:
            self._blocked = "loading the default model"
            self._preload = asyncio.create_task(self._load_default(), name="preload")

    async def chat(self, request: ChatRequest) -> Answer:
        """Admit a request and return once its run has begun. `request.model` is the id of a served model."""
        if not request.messages:
            raise InvalidRequest("messages must hold at least one message.", param="messages")
        answer = Answer(self._run(request), on_end=functools.partial(self._on_end, request.model))
        self._answers.add(answer)
        deadline = request.limits.deadline
        await answer.begin(timeout=self._request_timeout if deadline is None else deadline)
        self._has_served, self._blocked = True, ""
        return answer

    async def readiness(self) -> Readiness:
        health = await self.engine.health()
        reason = self._blocked
        try:
            models = [card.id for card in await self.models()]
        except ExoError as error:
            models, reason = [], error.message
        if self._draining:
            reason = "shutting down"
        elif not health.ready:
            reason = reason or health.detail or f"the engine {self.engine.name} is not ready"
        elif not models:
            reason = reason or "no model is in the store"
        return Readiness(
            ready=not reason,
            reason=reason,
            slots=self._scheduler.slots,
            running=self._scheduler.running,
            queued=self._scheduler.waiting,
            queue_limit=self._scheduler.limit,
            models=models,
            loaded=list(self.engine.loaded()),
        )

    async def drain(self, grace: float) -> None:
        """Take no new work, refuse what waits, give running answers `grace` seconds, then end them as ShuttingDown."""
        self._draining = True
        self._scheduler.close()
        self._all_ended.clear()
        if self._answers:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._all_ended.wait(), grace)
        for answer in list(self._answers):
            answer.abort(ShuttingDown("The node was stopped before the answer was complete. Send the request again."))

    def hurry(self) -> None:
        """End the grace time of `drain` now."""
        self._all_ended.set()

    async def close(self) -> None:
        """Free the engine; nothing can be asked afterwards."""
        if self._preload is not None:
            self._preload.cancel()
            await asyncio.gather(self._preload, return_exceptions=True)
        await self.engine.close()

    async def _load_default(self) -> None:
        """Load the default model; after a failure try again, for the file may be replaced meanwhile.

        Once any model has answered, the node is of use, and the default one is left to the requests that need it:
        trying on would unload the other.
        """
        while not self._draining and not self._has_served:
            try:
                await self._load_first_good()
            except ExoError as error:
                self._block(error.message)
                await asyncio.sleep(_PRELOAD_RETRY)
            except Exception as error:  # as above
                logger.exception("the engine %s failed unexpectedly while loading", self.engine.name)
                self._block(f"the engine {self.engine.name} failed unexpectedly: {error!r}")
                await asyncio.sleep(_PRELOAD_RETRY)
            else:
                self._blocked = ""
                return

    async def _load_first_good(self) -> None:
        """Load the default model. If none was asked for, one that cannot be loaded gives way to the next."""
        first = await self.resolve(None)
        candidates = [first] if self._default_was_asked_for else await self.models()
        for card in candidates:
            try:
                await self.engine.load(card.id)
            except ModelLoadError as error:
                if card is candidates[-1]:
                    raise
                logger.warning("%s cannot be the default model: %s", card.id, error.message)
            else:
                self._default_model = card.id
                return

    def _block(self, reason: str) -> None:
        if self._has_served:
            return
        if self._blocked != reason:
            logger.error("the default model cannot be served: %s", reason)
        self._blocked = reason

    async def _run(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        lease = await self._scheduler.acquire(
            priority=request.priority,
            conversation=conversation_key(request),
            meanwhile=functools.partial(self._prepare, request),
        )
        try:
            self.metrics.queue_wait.observe(lease.waited)
            finished = False  # the contract: exactly one delta with a finish reason, and nothing after it
            async with contextlib.aclosing(self.engine.chat(request)) as deltas:
                async for delta in deltas:
                    if finished:
                        continue
                    if delta.finish_reason is not None:
                        finished = True
                        lease.release()
                        await asyncio.sleep(0)  # the next request begins before this answer's end is written
                    yield delta
            _refuse_unfinished(self.engine.name, finished=finished)
        except ExoError:
            raise
        except Exception as error:  # as above
            logger.exception("the engine %s failed unexpectedly in request %s", self.engine.name, request.id)
            raise RunFailed(f"The engine {self.engine.name} failed unexpectedly: {error!r}.") from error
        finally:
            lease.release()

    async def _prepare(self, request: ChatRequest) -> None:
        """For a request that waits: a refusal comes before its slot does."""
        try:
            await self.engine.prepare(request)
        except ExoError:
            raise
        except Exception as error:  # as above
            logger.exception("the engine %s failed unexpectedly in request %s", self.engine.name, request.id)
            raise RunFailed(f"The engine {self.engine.name} failed unexpectedly: {error!r}.") from error

    def _on_end(self, model: str, answer: Answer) -> None:
        self._answers.discard(answer)
        if not self._answers:
            self._all_ended.set()
        if answer.first_token is not None:
            self.metrics.first_token.observe(answer.first_token - answer.started)
            self.metrics.generated.labels(model).inc(answer.completion_tokens)
        if answer.finished:
            self.metrics.prompt.labels(model).inc(answer.usage.prompt_tokens)
            self.metrics.cached.labels(model).inc(answer.usage.cached_tokens)
            if answer.timings.decode > 0:
                self.metrics.speed.labels(model).set(answer.completion_tokens / answer.timings.decode)


def _refuse_unfinished(engine: str, *, finished: bool) -> None:
    if not finished:
        raise RunFailed(f"The engine {engine} ended the answer without a finish reason.")


def _is_called(card: ModelCard, name: str | None) -> bool:
    return name is not None and (card.id == name or name in card.aliases)
