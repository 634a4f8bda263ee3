"""The decision: explicit signals first, then the conversation, then the text, then the cost."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

import msgspec

from exo.inference.choice import Candidate, ModelChoice, Situation
from exo.routing.conversation import FollowUpFinder, turns_of
from exo.routing.cost import ModelPicker, Wish
from exo.routing.judgement import Judge, Judgement
from exo.routing.rules import Rules
from exo.routing.signals import Request, leanings_of, signal_of
from exo.types import CompletionRequest, ModelCard, ModelRole


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision with what its text was taken for; None if the text was not looked at."""

    choice: ModelChoice
    judgement: Judgement | None


class Router:
    """Chooses models by rules. It keeps nothing between requests: the same request and situation, the same choice."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._judge = Judge(rules)
        self._follow_ups = FollowUpFinder(rules.follow_ups, self._judge)
        self._picker = ModelPicker(rules.cost)

    @property
    def loads_per_request(self) -> float:
        return self._rules.cost.loads_per_request

    @property
    def load_burst(self) -> int:
        return self._rules.cost.load_burst

    @property
    def idle_seconds_per_load(self) -> float:
        return self._rules.cost.idle_seconds_per_load

    def role_of(self, card: ModelCard) -> ModelRole:
        """The role that the rules give to a model by its id, otherwise that of its card."""
        name = card.id.lower()
        fitting = [role for pattern, role in self._rules.roles.items() if fnmatchcase(name, pattern.lower())]
        return fitting[-1] if fitting else card.role

    def choose(self, request: Request, situation: Situation) -> ModelChoice:
        return self.explain(request, situation).choice

    def explain(self, request: Request, situation: Situation) -> Explanation:
        """As `choose`; `situation` may be without candidates, the model is empty then."""
        situation = self._with_roles(situation)
        wish, judgement = self._wish(request, situation)
        return Explanation(self._picker.pick(request, situation, wish), judgement)

    def _with_roles(self, situation: Situation) -> Situation:
        """With the roles that the rules give to models."""
        candidates = tuple(self._with_role(candidate) for candidate in situation.candidates)
        return msgspec.structs.replace(situation, candidates=candidates)

    def _with_role(self, candidate: Candidate) -> Candidate:
        role = self.role_of(candidate.card)
        if role == candidate.card.role:
            return candidate
        return msgspec.structs.replace(candidate, card=msgspec.structs.replace(candidate.card, role=role))

    def _wish(self, request: Request, situation: Situation) -> tuple[Wish, Judgement | None]:
        signal = signal_of(request, self._rules.signals)
        if signal is not None:
            return Wish(signal.role, signal.rule, signal.reason, firm=True), None
        if isinstance(request, CompletionRequest):
            judged = self._judge.judge(request.prompt)
            return self._by_text(request, judged), judged
        turns = turns_of(request.messages)
        newest = turns.messages[-1] if turns.messages else ""
        judged = self._judge.judge(newest)
        if not (turns.answered or turns.under_way):
            return self._by_text(request, judged), judged
        before = _role_of(situation.previous, situation)
        if before is None:
            earlier = turns.messages if turns.under_way else turns.messages[:-1]
            before = self._follow_ups.replayed(earlier)
        if before is None:
            return self._by_text(request, judged), judged
        if not turns.under_way and self._follow_ups.changes(newest, judged, before):
            reason = f"The conversation turns to another task: {_a_task(judged)}."
            return Wish(judged.role, "task-change", reason), judged
        reason = "The conversation goes on with the model that it began with."
        return Wish(before, "conversation", reason, model=situation.previous), judged

    def _by_text(self, request: Request, judged: Judgement) -> Wish:
        lead, role = judged.lead, judged.role
        weak = abs(lead) < self._rules.text.margin
        for leaning in leanings_of(request, self._rules.signals):
            lead -= leaning.weight
            if lead <= 0 < lead + leaning.weight:
                return Wish("quick", leaning.rule, leaning.reason, weak=True)
        if not judged.counted:
            return Wish(role, "no-cue", "Nothing in the text speaks for any kind of task.", weak=weak)
        return Wish(role, f"text-{judged.kind}", f"The text was taken for {_a_task(judged)}.", weak=weak)


def _a_task(judged: Judgement) -> str:
    return f"a task of the kind {judged.kind}, which calls for a {judged.role} model"


def _role_of(model: str, situation: Situation) -> ModelRole | None:
    found = (candidate.card.role for candidate in situation.candidates if candidate.card.id == model)
    return next(found, None)
