"""The model `auto`: what is remembered between requests, so that the choice of a model can be a pure decision."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeVar

import msgspec

from exo.inference.answer import Answer
from exo.inference.choice import Candidate, ModelChoice, ModelChooser, Situation
from exo.inference.conversation import conversation_key
from exo.inference.engine import InferenceEngine
from exo.inference.metrics import NodeMetrics
from exo.types import ChatRequest, CompletionRequest, ModelCard, ModelLoadError, UnsupportedParameter
from exo.types.card import AUTO_MODEL, LATEST

_REMEMBERED = 4096
"""Conversations whose model is remembered; the oldest is forgotten."""
_AVOIDED = 60.0
"""Seconds in which a model that could not be loaded is the last choice. Trying it costs the model that is loaded."""
_SEEN_LOAD = 0.05
"""Seconds from which a load took place: requests on a loaded model report next to nothing."""
FALLBACK = "fallback"
"""The rule of a choice whose model could not be loaded."""

logger = logging.getLogger(__name__)
Request = ChatRequest | CompletionRequest
MakeChooser = Callable[[], ModelChooser]
Open = TypeVar("Open", ChatRequest, CompletionRequest)
"""A request that leaves its model open."""


def is_automatic(name: str | None) -> bool:
    """Whether a request with this model's name leaves the choice to the node."""
    return name is not None and name.lower().removesuffix(LATEST) == AUTO_MODEL


class LoadBudget:
    """How many loads the automatic choice may cause, at first `burst`.

    Each request earns `per_request`, and each second in which the node had nothing to do `per_idle_second`: a load then
    keeps nobody waiting but who caused it. No more than `burst` are saved up.
    """

    def __init__(self, *, burst: int, per_request: float, per_idle_second: float) -> None:
        self._burst = float(burst)
        self._per_request = per_request
        self._per_idle_second = per_idle_second
        self._saved = self._burst

    @classmethod
    def of(cls, chooser: ModelChooser) -> LoadBudget:
        return cls(
            burst=chooser.load_burst,
            per_request=chooser.loads_per_request,
            per_idle_second=1 / chooser.idle_seconds_per_load,
        )

    def earn(self, *, idle: float) -> None:
        """A request has come, after so many seconds without any."""
        earned = self._per_request + idle * self._per_idle_second
        self._saved = min(self._burst, self._saved + earned)

    def spend(self) -> None:
        """A load takes place."""
        self._saved -= 1

    def has(self, loads: int) -> bool:
        """Whether so many loads may take place."""
        return self._saved >= loads


class AutomaticChoice:
    """Chooses models, and remembers what that needs. One owner: the event loop.

    `make_chooser` makes what decides, with the first request that needs it: in a thread, as rules have to be read.
    """

    def __init__(self, engine: InferenceEngine, make_chooser: MakeChooser, metrics: NodeMetrics) -> None:
        self._engine = engine
        self._make_chooser = make_chooser
        self._metrics = metrics
        self._making: asyncio.Task[ModelChooser] | None = None
        self._budget: LoadBudget | None = None
        self._busy_until = time.monotonic()
        self._conversations: OrderedDict[str, str] = OrderedDict()
        self._load_seconds: dict[str, float] = {}
        self._tokens_per_s: dict[str, float] = {}
        self._failed: dict[str, float] = {}
        self._thinking: set[str] = set()

    async def choose(self, request: Request, cards: Sequence[ModelCard], waiting: Counter[str]) -> ModelChoice:
        """The model for a request. `cards` are those that can be served, the default first; `waiting` as in Situation.

        Raises UnsupportedParameter if none has the context that the request wants.
        """
        chooser, budget = await self._decided_by()
        budget.earn(idle=0.0 if waiting.total() else time.monotonic() - self._busy_until)
        candidates = await self._candidates(request, cards)
        to_come = {model for model in waiting if waiting[model]} - set(self._engine.loaded())
        situation = Situation(
            candidates=candidates,
            waiting=waiting,
            previous=self._previous(request, candidates),
            may_load=budget.has(len(to_come) + 1),
        )
        return self._without_failed(chooser.choose(request, situation))

    def fitted(self, request: Open, model: str) -> Open:
        """The request for the model that was chosen.

        Whoever wants a model to think has been heard by now: one that cannot think answers all the same.
        """
        request = msgspec.structs.replace(request, model=model)
        if _wants_thinking(request) and model not in self._thinking:
            return msgspec.structs.replace(request, think=None)
        return request

    async def answer(self, request: Open, choice: ModelChoice, ask: Callable[[Open], Awaitable[Answer]]) -> Answer:
        """What `ask` makes of the request for the chosen model; if that one cannot be loaded, for the next.

        Raises what the first of them raised if none can be loaded.
        """
        failure: ModelLoadError | None = None
        for model in (choice.model, *choice.others):
            try:
                answer = await ask(self.fitted(request, model))
            except ModelLoadError as error:
                logger.warning("%s was chosen for request %s, but: %s", model, request.id, error.message)
                self._failed[model] = time.monotonic()
                failure = failure or error
                continue
            self._failed.pop(model, None)
            answer.choice = choice if failure is None else _fallen_back(choice, model)
            self._metrics.decisions.labels(model, answer.choice.rule).inc()
            self._remember(request, model)
            return answer
        raise failure or ModelLoadError("There is no model to choose from.")

    def on_start(self, model: str) -> None:
        """A request that was decided here has its slot now, and `model` has to be loaded for it, or is."""
        if self._budget is not None and model not in self._engine.loaded():
            self._budget.spend()

    def on_end(self, answer: Answer) -> None:
        """Learn from any answer how long loads take and how fast models are."""
        self._busy_until = time.monotonic()
        if answer.timings.load > _SEEN_LOAD:
            self._load_seconds[answer.model] = answer.timings.load
        if answer.finished and answer.timings.decode > 0:
            self._tokens_per_s[answer.model] = answer.completion_tokens / answer.timings.decode

    async def _decided_by(self) -> tuple[ModelChooser, LoadBudget]:
        if self._making is None:
            self._making = asyncio.create_task(asyncio.to_thread(self._make_chooser), name="read the routing rules")
        chooser = await asyncio.shield(self._making)  # others wait for it too
        self._budget = self._budget or LoadBudget.of(chooser)
        return chooser, self._budget

    async def _candidates(self, request: Request, cards: Sequence[ModelCard]) -> tuple[Candidate, ...]:
        loaded: Collection[str] = self._engine.loaded()
        wanted = request.limits.context or 0
        described = {card.id: await self._engine.describe(card.id) for card in cards}
        contexts = {model: found.context_length for model, found in described.items()}
        self._thinking = {model for model, found in described.items() if "thinking" in found.capabilities}
        fitting = [card for card in cards if not 0 < contexts[card.id] < wanted]
        if not fitting:
            raise UnsupportedParameter(
                f"options.num_ctx is {wanted}, but no model is served with more than {max(contexts.values())} tokens.",
                param="options.num_ctx",
            )
        return tuple(
            Candidate(
                card=card,
                context=contexts[card.id],
                loaded=card.id in loaded,
                load_seconds=self._load_seconds.get(card.id),
                tokens_per_s=self._tokens_per_s.get(card.id),
            )
            for card in fitting
        )

    def _previous(self, request: Request, candidates: Sequence[Candidate]) -> str:
        found = self._conversations.get(_key(request), "") if isinstance(request, ChatRequest) else ""
        return found if any(candidate.card.id == found for candidate in candidates) else ""

    def _remember(self, request: Request, model: str) -> None:
        if isinstance(request, ChatRequest):
            key = _key(request)
            self._conversations[key] = model
            self._conversations.move_to_end(key)
            if len(self._conversations) > _REMEMBERED:
                self._conversations.popitem(last=False)

    def _without_failed(self, choice: ModelChoice) -> ModelChoice:
        """Models that could not be loaded a moment ago come last."""
        until = time.monotonic() - _AVOIDED
        order = sorted((choice.model, *choice.others), key=lambda model: self._failed.get(model, until) > until)
        if order[0] == choice.model:
            return choice
        return msgspec.structs.replace(_fallen_back(choice, order[0]), others=tuple(order[1:]))


def _wants_thinking(request: Request) -> bool:
    return isinstance(request, ChatRequest) and bool(request.think)


def _key(request: ChatRequest) -> str:
    """Of the conversation, whichever model answers."""
    return conversation_key(msgspec.structs.replace(request, model=AUTO_MODEL))


def _fallen_back(choice: ModelChoice, model: str) -> ModelChoice:
    return msgspec.structs.replace(
        choice,
        model=model,
        rule=FALLBACK,
        fallback_from=choice.fallback_from or choice.model,
        reason=f"the model for {choice.role} requests cannot be loaded, so another one answers",
    )
