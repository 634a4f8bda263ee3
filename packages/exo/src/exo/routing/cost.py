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
        ranked = self._ranked(request, situation, self._fitting(request, situation.candidates))
        if not ranked:
            return ModelChoice(model="", role=wish.role, rule=wish.rule, reason=wish.reason)
        ranked.sort(key=lambda candidate: (candidate.card.role != wish.role, candidate.card.id != wish.model))
        rule, reason = _why(situation, wish, ranked[0])
        if wish.firm:
            return _choice(wish, ranked, rule, reason)
        spared = _with_loads_spared(situation, wish, ranked)
        if spared[0] is not ranked[0]:
            rule, reason = _why_spared(situation)
        first = self._first_in_time(request, situation, spared)
        if first is not spared[0]:
            rule = "deadline"
            reason = f"The first choice, a {spared[0].card.role} model, would not be done before the deadline."
        return _choice(wish, [first, *(other for other in spared if other is not first)], rule, reason)

    def _first_in_time(self, request: Request, situation: Situation, ranked: Sequence[Candidate]) -> Candidate:
        """The first that meets the deadline, or else is done first; none for which a load would be one too many."""
        deadline = request.limits.deadline
        if deadline is None or self._seconds(request, situation, ranked[0]) <= deadline:
            return ranked[0]
        any_load = situation.may_load or not _is_at_hand(situation, ranked[0])  # then there is a load anyway
        open_to = [candidate for candidate in ranked if any_load or _is_at_hand(situation, candidate)]
        seconds = [self._seconds(request, situation, candidate) for candidate in open_to]
        in_time = (candidate for candidate, needed in zip(open_to, seconds) if needed <= deadline)
        return next(in_time, open_to[seconds.index(min(seconds))])

    def _fitting(self, request: Request, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those whose context is long enough; all if it is for none, as the engine knows better numbers."""
        limited = [candidate for candidate in candidates if candidate.context > 0]
        needed = estimated_tokens(request, self._rules) if limited else 0
        return [candidate for candidate in candidates if not 0 < candidate.context < needed] or list(candidates)

    def _ranked(self, request: Request, situation: Situation, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The best first: calls of tools are understood, it is loaded, its load is on the way, few wait for it."""
        wants_tools = isinstance(request, ChatRequest) and bool(request.tools)
        return sorted(
            candidates,
            key=lambda candidate: (
                wants_tools and candidate.card.tools is None,
                not candidate.loaded,
                not _is_at_hand(situation, candidate),
                situation.waiting.get(candidate.card.id, 0),
            ),
        )

    def _seconds(self, request: Request, situation: Situation, candidate: Candidate) -> float:
        """Until the answer would be complete, roughly."""
        rules = self._rules
        load = 0.0 if candidate.loaded else candidate.load_seconds
        reasons = candidate.card.role == "reasoning"
        tokens = rules.answer_tokens * (rules.reasoning_factor if reasons else 1.0)
        if request.limits.max_tokens is not None:  # which may be far more than anybody expects
            tokens = min(tokens, request.limits.max_tokens)
        answer = tokens / (candidate.tokens_per_s or rules.tokens_per_s)
        each = answer if candidate.tokens_per_s else rules.seconds_per_request
        queue = situation.waiting.get(candidate.card.id, 0) * each
        return (rules.load_seconds if load is None else load) + queue + answer


def _is_at_hand(situation: Situation, candidate: Candidate) -> bool:
    """Whether it is loaded, or others wait for it: the load is theirs then."""
    return candidate.loaded or situation.waiting.get(candidate.card.id, 0) > 0


def _with_loads_spared(situation: Situation, wish: Wish, ranked: Sequence[Candidate]) -> Sequence[Candidate]:
    """Those at hand first, of either role, if a load is not allowed or the wish not worth one."""
    if situation.may_load and not wish.weak:
        return ranked
    return sorted(ranked, key=lambda candidate: not _is_at_hand(situation, candidate))


def _why(situation: Situation, wish: Wish, first: Candidate) -> tuple[str, str]:
    """The rule and the reason for the best candidate."""
    if first.card.role == wish.role:
        return wish.rule, wish.reason
    if any(candidate.card.role == wish.role for candidate in situation.candidates):
        return "context", f"The {wish.role} model has too short a context for the request."
    return "only-role", f"There is no {wish.role} model here, so another one answers."


def _why_spared(situation: Situation) -> tuple[str, str]:
    if not situation.may_load:
        return "load-budget", "The first choice would have to be loaded, but models were loaded too often of late."
    return "loaded-already", "The first choice would have to be loaded, and the text says little for it."


def _choice(wish: Wish, ranked: Sequence[Candidate], rule: str, reason: str) -> ModelChoice:
    ids = [candidate.card.id for candidate in ranked]
    return ModelChoice(model=ids[0], role=wish.role, rule=rule, reason=reason, others=tuple(ids[1:]))
