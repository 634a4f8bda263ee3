"""Which of the models answers, once it is known what role a request calls for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exo.inference.choice import Candidate, ModelChoice, Situation
from exo.routing.rules import Cost
from exo.routing.signals import Request
from exo.routing.tokens import estimated_tokens
from exo.types import ChatRequest, ModelRole


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request calls for, and why. A `firm` one is not given up to spare a load; a `weak` one easily is.

    `model` is the one that should answer if it can, empty for any of the role.
    """

    role: ModelRole
    rule: str
    reason: str
    firm: bool = False
    weak: bool = False
    model: str = ""


class ModelPicker:
    """Picks models by what their use would cost."""

    def __init__(self, rules: Cost) -> None:
        self._rules = rules

    def pick(self, request: Request, situation: Situation, wish: Wish) -> ModelChoice:
        """`model` is empty if there are no candidates."""
        fitting = self._fitting(request, situation.candidates)
        ranked = self._ranked(request, situation, fitting)
        own = [candidate for candidate in ranked if candidate.card.role == wish.role]
        own.sort(key=lambda candidate: candidate.card.id != wish.model)
        rest = [candidate for candidate in ranked if candidate.card.role != wish.role]
        if not own or not rest:
            return self._without_alternative(situation, wish, [*own, *rest])
        first, other = own[0], rest[0]
        rule, reason = self._why_other(request, situation, wish, first, other)
        if rule:
            return _choice(wish, [other, *own, *rest[1:]], rule, reason)
        return _choice(wish, [*own, *rest], wish.rule, wish.reason)

    def _without_alternative(self, situation: Situation, wish: Wish, ranked: Sequence[Candidate]) -> ModelChoice:
        if not ranked:
            return ModelChoice(model="", role=wish.role, rule=wish.rule, reason=wish.reason)
        if ranked[0].card.role == wish.role:
            return _choice(wish, ranked, wish.rule, wish.reason)
        if any(candidate.card.role == wish.role for candidate in situation.candidates):
            return _choice(wish, ranked, "context", f"The {wish.role} model has too short a context for the request.")
        return _choice(wish, ranked, "only-role", f"There is no {wish.role} model here, so another one answers.")

    def _why_other(
        self, request: Request, situation: Situation, wish: Wish, first: Candidate, other: Candidate
    ) -> tuple[str, str]:
        """The rule by which `other` answers in place of `first`, and the reason; empty if `first` does."""
        if wish.firm:
            return "", ""
        deadline = request.limits.deadline
        if deadline is not None:
            needed = self._seconds(request, situation, first)
            if needed > deadline and self._seconds(request, situation, other) < needed:
                return "deadline", f"The {wish.role} model would not be done before the deadline of {deadline:g} s."
        comes_anyway = situation.waiting.get(first.card.id, 0) > 0  # others wait for it: the load is theirs
        if first.loaded or comes_anyway or not other.loaded:
            return "", ""
        if not situation.may_load:
            return "load-budget", f"A {wish.role} model is called for, but models were loaded too often of late."
        if wish.weak:
            return "loaded-already", f"The text says little for a {wish.role} model, and another one is loaded."
        return "", ""

    def _fitting(self, request: Request, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those whose context is long enough; all if it is for none, as the engine knows better numbers."""
        limited = [candidate for candidate in candidates if candidate.context > 0]
        needed = estimated_tokens(request, self._rules) if limited else 0
        return [candidate for candidate in candidates if not 0 < candidate.context < needed] or list(candidates)

    def _ranked(self, request: Request, situation: Situation, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The best first: one whose calls of tools are understood, one that is loaded, one that few wait for."""
        wants_tools = isinstance(request, ChatRequest) and bool(request.tools)
        return sorted(
            candidates,
            key=lambda candidate: (
                wants_tools and candidate.card.tools is None,
                not candidate.loaded,
                situation.waiting.get(candidate.card.id, 0),
            ),
        )

    def _seconds(self, request: Request, situation: Situation, candidate: Candidate) -> float:
        """Until the answer would be complete, roughly."""
        rules = self._rules
        load = 0.0 if candidate.loaded else candidate.load_seconds
        reasons = candidate.card.role == "reasoning"
        tokens = request.limits.max_tokens or rules.answer_tokens * (rules.reasoning_factor if reasons else 1.0)
        answer = tokens / (candidate.tokens_per_s or rules.tokens_per_s)
        each = answer if candidate.tokens_per_s else rules.seconds_per_request
        queue = situation.waiting.get(candidate.card.id, 0) * each
        return (rules.load_seconds if load is None else load) + queue + answer


def _choice(wish: Wish, ranked: Sequence[Candidate], rule: str, reason: str) -> ModelChoice:
    ids = [candidate.card.id for candidate in ranked]
    return ModelChoice(model=ids[0], role=wish.role, rule=rule, reason=reason, others=tuple(ids[1:]))
