"""The node without HTTP: one engine, its scheduler, and the requests on it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import msgspec

from exo.inference.accounts import Accounts
from exo.inference.answer import Answer
from exo.inference.automatic import OPEN_MODEL, AutomaticChoice, Decision, MakeChooser, is_automatic
from exo.inference.caller import Caller, current_caller
from exo.inference.cards import find_card
from exo.inference.conversation import conversation_key
from exo.inference.dimensions import shortened
from exo.inference.engine import InferenceEngine
from exo.inference.formatted import answer_in_format, first_attempt
from exo.inference.metrics import NodeMetrics
from exo.inference.preload import Preload
from exo.inference.refusals import checks_format, need, refuse_what_cannot_run
from exo.inference.scheduler import Lease, Scheduler, shutting_down
from exo.inference.served import ServedModels
from exo.inference.tool_calls import answer_with_tools
from exo.types import (
    ChatRequest,
    CompletionRequest,
    Delta,
    Draining,
    EmbeddingRequest,
    Embeddings,
    ExoError,
    ModelCard,
    RunFailed,
    ShuttingDown,
)

logger = logging.getLogger(__name__)
Request: TypeAlias = ChatRequest | CompletionRequest | EmbeddingRequest
Kept = TypeVar("Kept", ChatRequest, CompletionRequest, EmbeddingRequest)
Open = TypeVar("Open", ChatRequest, CompletionRequest)
"""A request that may leave its model open."""
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Readiness:
    """Whether a request would be accepted now; `reason` is empty if it would.

    `draining`: new ones are refused, be it for now or because the node ends, and those that were accepted go on.
    """

    ready: bool
    reason: str
    draining: bool
    slots: int
    running: int
    queued: int
    queue_limit: int
    models: Sequence[str]
    loaded: Sequence[str]


class InferenceService:
    """Resolves models, admits requests, and hands out answers. One owner: the event loop.

    `leaving` is set from the moment at which the node is told to end, `ending` from that at which it takes no new work.
    Between those two, and after it was told to drain, are `notice` seconds in which a proxy sees that it is not ready.
    """

    def __init__(
        self,
        engine: InferenceEngine,
        metrics: NodeMetrics,
        *,
        queue_limit: int = 128,
        default_model: str | None = None,
        request_timeout: float | None = None,
        make_chooser: MakeChooser | None = None,
    ) -> None:
        self.engine = engine
        self.metrics = metrics
        self._automatic = make_chooser and AutomaticChoice(engine, make_chooser, metrics, loaded=self._loaded)
        self._served = ServedModels(engine, default_model, self._automatic)
        self._scheduler = Scheduler(slots=engine.slots, limit=queue_limit, loaded=self._loaded)
        self._accounts = Accounts(metrics)
        self._request_timeout = request_timeout
        self._answers: set[Answer] = set()
        self._preload = Preload(self._served.load_first_good, engine=engine.name)
        self.notice = 0.0
        self._draining = False
        self._refuses_from = 0.0
        self.leaving = asyncio.Event()
        self.ending = asyncio.Event()
        self._hurried = asyncio.Event()
        self._all_ended = asyncio.Event()
        metrics.in_progress.set_function(lambda: len(self._answers))
        metrics.queued.set_function(lambda: self._scheduler.waiting)
        metrics.queue_limit.set(queue_limit)
        metrics.slots.set(engine.slots)

    @property
    def default_is_automatic(self) -> bool:
        """Whether a request that names no model leaves the choice to the node."""
        return self._served.default_is_automatic and self._automatic is not None

    async def models(self) -> list[ModelCard]:
        """What can be served now, the default model first. Raises EngineError if the engine cannot tell."""
        return await self._served.models()

    async def resolve(self, name: str | None) -> ModelCard:
        """The card for a model's id or alias, see ServedModels.resolve."""
        return await self._served.resolve(name)

    async def resolve_for_use(self, name: str | None) -> ModelCard:
        """As `resolve`, with `auto` for the default model."""
        return await self._served.resolve_for_use(name)

    async def target(self, name: str | None) -> str:
        """The `model` of a request: OPEN_MODEL where it is to be chosen once the request is read, else a model's id.

        Raises as `resolve`.
        """
        left_open = is_automatic(name) or (not name and self.default_is_automatic)
        if left_open and self._automatic is not None:
            cards = await self.models()
            if cards and find_card(cards, name) is None:
                return OPEN_MODEL
        return (await self.resolve_for_use(name)).id

    async def update_model_info(self) -> None:
        """Bring exo_model_info up to date; called before metrics are read."""
        cards = await self.models()
        self.metrics.model_info.clear()
        for card in cards:
            self.metrics.model_info.labels(card.id, card.family, self.engine.name).set(1)

    def start(self, *, preload: bool = True) -> None:
        """Begin to load the default model in the background."""
        if preload:
            self._preload.start()

    async def chat(self, request: ChatRequest) -> Answer:
        """Admit a request and return once its run has begun. `request.model` is what `target` says."""
        if self._automatic is not None and request.model == OPEN_MODEL:
            return await self._choose_and_ask(self._automatic, request, functools.partial(self._chat, chosen=True))
        return await self._chat(request)

    async def _chat(self, request: ChatRequest, *, chosen: bool = False) -> Answer:
        refuse_what_cannot_run(self.engine, request)
        request = _kept_as_allowed(request)
        chat = functools.partial(answer_with_tools, self.engine.chat) if request.tools else self.engine.chat
        if checks_format(self.engine, request):
            work, meanwhile = functools.partial(answer_in_format, chat, request), None
        else:
            work, meanwhile = functools.partial(chat, request), functools.partial(self._prepare, request)
        conversation = conversation_key(request)
        return await self._admit(request, work, conversation=conversation, meanwhile=meanwhile, chosen=chosen)

    async def _choose_and_ask(
        self, automatic: AutomaticChoice, request: Open, ask: Callable[[Open], Awaitable[Answer]]
    ) -> Answer:
        self._refuse_new()
        limit, arrived = self._deadline_of(request), time.monotonic()
        request = _due_in(request, limit)
        decision = await self._decided(automatic, request)

        async def attempt(request: Open) -> Answer:
            """A second one, after a load that failed, has the time that is left."""
            return await ask(_due_in(request, None if limit is None else limit - (time.monotonic() - arrived)))

        return await automatic.answer(request, decision, attempt)

    async def _decided(self, automatic: AutomaticChoice, request: ChatRequest | CompletionRequest) -> Decision:
        with self._defects_named(request.id):
            return await automatic.decide(request, await self.models(), self._waiting)

    def _loaded(self) -> Sequence[str]:
        try:
            return self.engine.loaded()
        except Exception:  # an engine is a plugin and may raise anything; a slot has to become free all the same
            logger.exception("the engine %s cannot tell what is loaded", self.engine.name)
            return ()

    def _waiting(self) -> Counter[str]:
        return Counter(answer.model for answer in self._answers)

    async def count(self, request: ChatRequest) -> int:
        """The number of tokens that `chat` would prefill. Raises what it would refuse before it waits for a slot."""
        self._refuse_new()
        if self._automatic is not None and request.model == OPEN_MODEL:
            decision = await self._decided(self._automatic, request)
            request = decision.fitted(request, decision.choice.model)
        refuse_what_cannot_run(self.engine, request)
        if checks_format(self.engine, request):
            request = first_attempt(request)
        with self._defects_named(request.id):
            return await self.engine.count(request)

    async def complete(self, request: CompletionRequest) -> Answer:
        """As `chat`, for a raw prompt."""
        if self._automatic is not None and request.model == OPEN_MODEL:
            return await self._choose_and_ask(self._automatic, request, functools.partial(self._complete, chosen=True))
        return await self._complete(request)

    async def _complete(self, request: CompletionRequest, *, chosen: bool = False) -> Answer:
        need(self.engine, "completion", "prompt", "raw completions")
        if request.logprobs is not None:
            need(self.engine, "logprobs", "logprobs", "probabilities of tokens")
        request = _kept_as_allowed(request)
        return await self._admit(request, functools.partial(self.engine.complete, request), chosen=chosen)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """The embeddings, once a slot was free for them, with as many dimensions as asked for."""
        need(self.engine, "embeddings", "input", "embeddings")
        request = _kept_as_allowed(request)
        found: list[Embeddings] = []

        async def work() -> AsyncGenerator[Delta, None]:
            found.append(await self.engine.embed(request))
            yield Delta(finish_reason="stop", usage=found[0].usage)

        answer = await self._admit(request, work)
        async with contextlib.aclosing(answer):
            async for _ in answer:
                pass
        return shortened(found[0], request.dimensions)

    async def load(self, model: str, keep_alive: float | None = None) -> None:
        """Load a model without a request on it. `keep_alive` as in ChatRequest, for an admin."""
        self._refuse_new()
        if keep_alive is None or not current_caller().admin:  # engines that know no keep_alive need not be told of it
            await self.engine.load(model)
        else:
            await self.engine.load(model, keep_alive=keep_alive)

    async def unload(self, model: str) -> None:
        """Unload a model when the requests on it are done. Raises AdminRequired where the caller may not."""
        current_caller().need_admin()
        await self.engine.unload(model)

    async def readiness(self) -> Readiness:
        health = await self.engine.health()
        reason = self._preload.blocked
        try:
            models = [card.id for card in await self.models()]
        except ExoError as error:
            models, reason = [], error.message
        if self.leaving.is_set():
            reason = "shutting down"
        elif self._draining:
            reason = "draining"
        elif not health.ready:
            reason = reason or health.detail or f"the engine {self.engine.name} is not ready"
        elif not models:
            reason = reason or "no model is in the store"
        return Readiness(
            ready=not reason,
            reason=reason,
            draining=self._draining or self.leaving.is_set(),
            slots=self._scheduler.slots,
            running=self._scheduler.running,
            queued=self._scheduler.waiting,
            queue_limit=self._scheduler.limit,
            models=models,
            loaded=list(self.engine.loaded()),
        )

    @property
    def draining(self) -> bool:
        """Whether new work is refused, once `notice` is over, until this is set to False again.

        What was accepted goes on, be it waiting.
        """
        return self._draining

    @draining.setter
    def draining(self, wanted: bool) -> None:
        if wanted != self._draining:
            logger.info("the node takes %s", "no new requests, it drains" if wanted else "new requests again")
            self._refuses_from = time.monotonic() + self.notice
        self._draining = wanted

    async def end(self, grace: float) -> None:
        """Take no new work, refuse what waits, give running answers `grace` seconds, then end them as ShuttingDown."""
        self.leaving.set()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._hurried.wait(), self.notice)
        self.ending.set()
        self._preload.give_up()
        self._scheduler.close()
        if not self._hurried.is_set():
            self._all_ended.clear()
        if self._answers:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._all_ended.wait(), grace)
        for answer in list(self._answers):
            answer.abort(ShuttingDown("The node was stopped before the answer was complete. Send the request again."))

    def hurry(self) -> None:
        """End the times of `end` now."""
        self._hurried.set()
        self._all_ended.set()

    async def close(self) -> None:
        """Free the engine; nothing can be asked afterwards."""
        await self._preload.close()
        await self.engine.close()

    async def _admit(
        self,
        request: Request,
        work: Callable[[], AsyncGenerator[Delta, None]],
        *,
        conversation: str = "",
        meanwhile: Callable[[], Awaitable[None]] | None = None,
        chosen: bool = False,
    ) -> Answer:
        """The answer that `work` makes, once it has a slot and its run has begun. `chosen`: its model was open."""
        if not chosen:  # else it was accepted before its model was chosen
            self._refuse_new()
        caller = current_caller()
        self._accounts.open(caller, mean_run=self._scheduler.mean_run)
        deltas = self._run(
            request,
            work,
            functools.partial(
                self._scheduler.acquire,
                priority=request.priority,
                conversation=conversation,
                key=caller.name,
                model=request.model,
                meanwhile=meanwhile,
            ),
            chosen=chosen,
        )
        answer = Answer(deltas, model=request.model, on_end=functools.partial(self._on_end, request, caller))
        self._answers.add(answer)
        await answer.begin(timeout=self._deadline_of(request))
        self._preload.served()
        return answer

    def _refuse_new(self) -> None:
        if self.ending.is_set():
            raise shutting_down()
        if self._draining and time.monotonic() >= self._refuses_from:
            raise Draining(
                "The node drains: it takes no new requests for now. Use another node, or have it told to stop draining."
            )

    def _deadline_of(self, request: Request) -> float | None:
        own = None if isinstance(request, EmbeddingRequest) else request.limits.deadline
        return self._request_timeout if own is None else own

    async def _run(
        self,
        request: Request,
        work: Callable[[], AsyncGenerator[Delta, None]],
        acquire: Callable[[], Awaitable[Lease]],
        *,
        chosen: bool,
    ) -> AsyncGenerator[Delta, None]:
        lease = await acquire()
        try:
            with self._defects_named(request.id):
                self.metrics.queue_wait.observe(lease.waited)
                if chosen and self._automatic is not None:
                    self._automatic.on_start(request.model)
                finished = False  # the contract: exactly one delta with a finish reason, and nothing after it
                async with contextlib.aclosing(work()) as deltas:
                    async for delta in deltas:
                        if finished:
                            continue
                        if delta.finish_reason is not None:
                            finished = True
                            lease.release()
                            await asyncio.sleep(0)  # the next request begins before this answer's end is written
                        yield delta
                _refuse_unfinished(self.engine.name, finished=finished)
        finally:
            lease.release()

    async def _prepare(self, request: ChatRequest) -> None:
        """For a request that waits: a refusal comes before its slot does."""
        with self._defects_named(request.id):
            await self.engine.prepare(request)

    @contextlib.contextmanager
    def _defects_named(self, request_id: str) -> Iterator[None]:
        """What an engine raises beside the errors of exo is RunFailed; the log has the whole of it."""
        try:
            yield
        except ExoError:
            raise
        except Exception as error:  # an engine is a plugin and may raise anything
            logger.exception("the engine %s failed unexpectedly in request %s", self.engine.name, request_id)
            raise RunFailed(f"The engine {self.engine.name} failed unexpectedly: {error!r}.") from error

    def _on_end(self, request: Request, caller: Caller, answer: Answer) -> None:
        model = request.model
        self._answers.discard(answer)
        if not self._answers:
            self._all_ended.set()
        if self._automatic is not None:
            self._automatic.on_end(answer)
        is_known = bool(answer.usage.prompt_tokens) or answer.first_token is None
        self._accounts.close(
            caller,
            prompt=answer.usage.prompt_tokens,
            completion=answer.completion_tokens,
            uncounted=0 if is_known else _guess(request),
        )
        if answer.first_token is not None:
            self.metrics.first_token.observe(answer.first_token - answer.started)
            self.metrics.generated.labels(model).inc(answer.completion_tokens)
        if answer.finished:
            self.metrics.prompt.labels(model).inc(answer.usage.prompt_tokens)
            self.metrics.cached.labels(model).inc(answer.usage.cached_tokens)
            if answer.timings.decode > 0:
                self.metrics.speed.labels(model).set(answer.completion_tokens / answer.timings.decode)


def _due_in(request: Open, seconds: float | None) -> Open:
    if seconds is None:
        return request
    limits = msgspec.structs.replace(request.limits, deadline=max(seconds, 0.0))
    return msgspec.structs.replace(request, limits=limits)


def _guess(request: Request) -> int:
    """About as many tokens as the prompt has: nobody counts that of an answer which was broken off."""
    if isinstance(request, ChatRequest):
        return sum(len(message.content) for message in request.messages) // _CHARACTERS_PER_TOKEN
    texts = (request.prompt,) if isinstance(request, CompletionRequest) else request.inputs
    return sum(map(len, texts)) // _CHARACTERS_PER_TOKEN


def _kept_as_allowed(request: Kept) -> Kept:
    """How long a model stays in memory concerns everybody, so only an admin says it."""
    if request.keep_alive is None or current_caller().admin:
        return request
    return msgspec.structs.replace(request, keep_alive=None)


def _refuse_unfinished(engine: str, *, finished: bool) -> None:
    if not finished:
        raise RunFailed(f"The engine {engine} ended the answer without a finish reason.")
