"""The model `auto`: what is remembered between requests, so that the choice of a model can be a pure decision."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from exo.inference.answer import Answer
from exo.inference.caller import current_caller
from exo.inference.choice import Candidate, ModelChoice, ModelChooser, Situation
from exo.inference.conversation import ConversationModels
from exo.inference.engine import InferenceEngine
from exo.inference.load_budget import LoadBudget
from exo.inference.metrics import NodeMetrics
from exo.models import ModelDescription
from exo.types import ChatRequest, CompletionRequest, ModelCard, ModelLoadError, ModelNotFound, UnsupportedParameter
from exo.types.card import AUTO_MODEL, LATEST

OPEN_MODEL = ""
"""What a request has for its model until one is chosen."""
FALLBACK = "fallback"
"""The rule of a choice whose model could not be loaded."""
_AVOIDED = 60.0
"""Seconds in which a model that could not be loaded is the last choice. Trying it costs the model that is loaded."""
_SEEN_LOAD = 0.05
"""Seconds from which a load took place: requests on a loaded model report next to nothing."""
_TELLING = 8
"""Tokens from which an answer tells how fast a model is."""

logger = logging.getLogger(__name__)
Request = ChatRequest | CompletionRequest
MakeChooser = Callable[[], ModelChooser]
Open = TypeVar("Open", ChatRequest, CompletionRequest)
"""A request that leaves its model open."""


def is_automatic(name: str | None) -> bool:
    """Whether a request with this model's name leaves the choice to the node."""
    return name is not None and name.lower().removesuffix(LATEST) == AUTO_MODEL


@dataclass(frozen=True)
class Decision:
    """A choice, and which of the models cannot think."""

    choice: ModelChoice
    cannot_think: Collection[str]

    def fitted(self, request: Open, model: str) -> Open:
        """The request for one of the models.

        Whoever wants a model to think has been heard by now: one that cannot think answers all the same.
        """
        request = msgspec.structs.replace(request, model=model)
        if _wants_thinking(request) and model in self.cannot_think:
            return msgspec.structs.replace(request, think=None, think_budget=None)
        return request


class AutomaticChoice:
    """Chooses models, and remembers what that needs. One owner: the event loop.

    `make_chooser` makes what decides, with the first request that needs it: in a thread, as rules have to be read.
    `loaded` tells the ids of the models in memory, and never raises.
    """

    def __init__(
        self,
        engine: InferenceEngine,
        make_chooser: MakeChooser,
        metrics: NodeMetrics,
        *,
        loaded: Callable[[], Collection[str]],
    ) -> None:
        self._engine = engine
        self._make_chooser = make_chooser
        self._metrics = metrics
        self._loaded = loaded
        self._making: asyncio.Task[ModelChooser] | None = None
        self._budget: LoadBudget | None = None
        self._idle_since = time.monotonic()
        self._conversations = ConversationModels()
        self._load_seconds: dict[str, float] = {}
        self._tokens_per_s: dict[str, float] = {}
        self._failed: dict[str, float] = {}
        self._coming: set[str] = set()
        """Models whose load was spent for and has not come to its end: requests that leave meanwhile cost it once."""

    async def decide(
        self, request: Request, cards: Sequence[ModelCard], waiting: Callable[[], Counter[str]]
    ) -> Decision:
        """Choose the model for a request.

        `cards` are those that can be served, the default first; `waiting` tells what Situation has of that name. Raises
        UnsupportedParameter if none has the context that the request wants, ModelNotFound if none can chat.
        """
        chooser, budget = await self._decided_by()
        described = await self._described(cards)
        now_waiting = waiting()  # after everything that takes time: other requests may have come meanwhile
        if not now_waiting.total():
            now = time.monotonic()
            budget.earn_idle(now - self._idle_since)
            self._idle_since = now
        loaded = self._loaded()
        situation = Situation(
            candidates=self._candidates(request, described, loaded),
            waiting=now_waiting,
            previous=self._previous(request, described),
            may_load=budget.has(len(set(now_waiting) - set(loaded)) + 1),
        )
        choice = self._without_failed(chooser.choose(request, situation))
        return Decision(choice, {card.id for card, found in described if _cannot(found, "thinking")})

    async def answer(self, request: Open, decision: Decision, ask: Callable[[Open], Awaitable[Answer]]) -> Answer:
        """What `ask` makes of the request for the chosen model; if that one cannot be loaded, for the next.

        Raises what the first of them raised if none can be loaded.
        """
        failure: ModelLoadError | None = None
        choice: ModelChoice = decision.choice
        for model in (choice.model, *choice.others):
            try:
                answer = await ask(decision.fitted(request, model))
            except ModelLoadError as error:
                logger.warning("%s was chosen for request %s, but: %s", model, request.id, error.message)
                self._failed[model] = time.monotonic()
                self._coming.discard(model)
                failure = failure or error
                continue
            self._failed.pop(model, None)
            answer.choice = choice if failure is None else _fallen_back(choice, model)
            self._metrics.decisions.labels(model, answer.choice.rule).inc()
            if isinstance(request, ChatRequest):
                self._conversations.remember(current_caller().name, request, model)
            return answer
        raise failure or ModelLoadError("There is no model to choose from.")

    async def quick_first(self, cards: Sequence[ModelCard]) -> list[ModelCard]:
        """In the order in which they are to be the default: embedding models last, reasoning ones before those."""
        chooser, _ = await self._decided_by()
        return sorted(cards, key=lambda card: (card.pooling is not None, chooser.role_of(card) != "quick"))

    def on_start(self, model: str) -> None:
        """A request that was decided here has its slot now, and `model` has to be loaded for it, or is."""
        if self._budget is None:
            return
        self._budget.earn_request()
        self._coming -= set(self._loaded())
        if model not in self._loaded() and model not in self._coming:
            self._coming.add(model)
            self._budget.spend()

    def on_end(self, answer: Answer) -> None:
        """Learn from any answer how long loads take and how fast models are."""
        self._idle_since = time.monotonic()
        if answer.timings.load > _SEEN_LOAD:
            self._load_seconds[answer.model] = answer.timings.load
        if answer.finished and answer.timings.decode > 0 and answer.completion_tokens >= _TELLING:
            self._tokens_per_s[answer.model] = answer.completion_tokens / answer.timings.decode

    async def _decided_by(self) -> tuple[ModelChooser, LoadBudget]:
        if self._making is None:
            self._making = asyncio.create_task(asyncio.to_thread(self._make_chooser), name="read the routing rules")
        chooser = await asyncio.shield(self._making)  # others wait for it too
        self._budget = self._budget or LoadBudget.of(chooser)
        return chooser, self._budget

    async def _described(self, cards: Sequence[ModelCard]) -> list[tuple[ModelCard, ModelDescription]]:
        """The models that can chat. One of another node's that is called `auto` is its choice, not a model."""
        found = []
        for card in cards:
            try:
                description = await self._engine.describe(card.id)
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything; the other models can answer
                logger.warning("%s is no choice: the engine cannot describe it: %r", card.id, error)
                continue
            if not (is_automatic(card.id) or _cannot(description, "completion")):
                found.append((card, description))
        if not found:
            raise ModelNotFound(AUTO_MODEL, [card.id for card in cards])
        return found

    def _candidates(
        self, request: Request, described: Sequence[tuple[ModelCard, ModelDescription]], loaded: Collection[str]
    ) -> tuple[Candidate, ...]:
        wanted = request.limits.context or 0
        fitting = [(card, found.context_length) for card, found in described if not 0 < found.context_length < wanted]
        if not fitting:
            longest = max(found.context_length for _, found in described)
            raise UnsupportedParameter(
                f"options.num_ctx is {wanted}, but no model is served with more than {longest} tokens.",
                param="options.num_ctx",
            )
        return tuple(
            Candidate(
                card=card,
                context=context,
                loaded=card.id in loaded,
                load_seconds=self._load_seconds.get(card.id),
                tokens_per_s=self._tokens_per_s.get(card.id),
            )
            for card, context in fitting
        )

    def _previous(self, request: Request, described: Sequence[tuple[ModelCard, ModelDescription]]) -> str:
        if not isinstance(request, ChatRequest):
            return ""
        found = self._conversations.before(current_caller().name, request)
        return found if any(card.id == found for card, _ in described) else ""

    def _without_failed(self, choice: ModelChoice) -> ModelChoice:
        """Models that could not be loaded a moment ago come last."""
        until = time.monotonic() - _AVOIDED
        order = sorted((choice.model, *choice.others), key=lambda model: self._failed.get(model, until) > until)
        if order[0] == choice.model:
            return choice
        return msgspec.structs.replace(_fallen_back(choice, order[0]), others=tuple(order[1:]))


def _cannot(description: ModelDescription, capability: str) -> bool:
    """Whether it is known that a model lacks it; of some nothing is known."""
    return bool(description.capabilities) and capability not in description.capabilities


def _wants_thinking(request: Request) -> bool:
    return isinstance(request, ChatRequest) and bool(request.think)


def _fallen_back(choice: ModelChoice, model: str) -> ModelChoice:
    return msgspec.structs.replace(
        choice,
        model=model,
        rule=FALLBACK,
        fallback_from=choice.fallback_from or choice.model,
        reason=f"The model for {choice.role} requests cannot be loaded, so another one answers.",
    )
