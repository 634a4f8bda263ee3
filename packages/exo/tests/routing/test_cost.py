"""Which model answers once the role is known."""

from __future__ import annotations

from typing import Any

import pytest

from exo.inference.choice import Candidate, Situation
from exo.routing import read_rules
from exo.routing.cost import ModelPicker, Wish
from exo.types import ChatRequest, Limits, Message, ModelCard, Tool

PICKER = ModelPicker(read_rules().cost)
QUICK = ModelCard(id="q", role="quick", tools="hermes")
THINKING = ModelCard(id="r", role="reasoning")
REASON = Wish("reasoning", "text-proof", "Why.")


def picked(wish: Wish, *candidates: Candidate, request: ChatRequest | None = None, **state: Any) -> tuple[str, str]:
    request = request or ask()
    choice = PICKER.pick(request, Situation(candidates=candidates, **state), wish)
    assert len({choice.model, *choice.others}) == 1 + len(choice.others)
    return choice.model, choice.rule


def ask(text: str = "x", **fields: Any) -> ChatRequest:
    return ChatRequest(model="auto", messages=(Message(role="user", content=text),), **fields)


def quick(**fields: Any) -> Candidate:
    return Candidate(card=QUICK, **fields)


def thinking(**fields: Any) -> Candidate:
    return Candidate(card=THINKING, **fields)


def test_the_model_of_the_role_answers_and_the_other_stands_by() -> None:
    choice = PICKER.pick(ask(), Situation(candidates=(quick(loaded=True), thinking())), REASON)
    assert (choice.model, choice.others, choice.rule, choice.role) == ("r", ("q",), "text-proof", "reasoning")


def test_a_load_that_others_wait_for_costs_nothing_more() -> None:
    models = (quick(loaded=True), thinking())
    assert picked(REASON, *models, may_load=False, waiting={"q": 1}) == ("q", "load-budget")
    assert picked(REASON, *models, may_load=False, waiting={"q": 1, "r": 1}) == ("r", "text-proof")


def test_the_budget_of_loads_keeps_the_loaded_model() -> None:
    models = (quick(loaded=True), thinking())
    assert picked(REASON, *models, may_load=False) == ("q", "load-budget")
    assert picked(REASON, quick(), thinking(), may_load=False) == ("r", "text-proof")
    firm = Wish("reasoning", "think", "Why.", firm=True)
    assert picked(firm, *models, may_load=False) == ("r", "think")


def test_weak_evidence_is_not_worth_a_load() -> None:
    weak = Wish("reasoning", "text-proof", "Why.", weak=True)
    assert picked(weak, quick(loaded=True), thinking()) == ("q", "loaded-already")
    assert picked(weak, quick(loaded=True), thinking(loaded=True)) == ("r", "text-proof")


@pytest.mark.parametrize(
    ("deadline", "waiting", "expected"),
    [
        (3600.0, {}, ("r", "text-proof")),
        (60.0, {}, ("q", "deadline")),
        (200.0, {"r": 20}, ("q", "deadline")),
        (200.0, {"r": 20, "q": 200}, ("r", "text-proof")),
    ],
)
def test_a_deadline_that_could_not_be_met(deadline: float, waiting: dict[str, int], expected: tuple[str, str]) -> None:
    request = ask(limits=Limits(deadline=deadline))
    models = (quick(loaded=True, tokens_per_s=15.0), thinking(load_seconds=10.0, tokens_per_s=10.0))
    assert picked(REASON, *models, request=request, waiting=waiting) == expected


def test_one_role_only() -> None:
    assert picked(REASON, quick()) == ("q", "only-role")
    assert picked(REASON, thinking()) == ("r", "text-proof")
    assert PICKER.pick(ask(), Situation(candidates=()), REASON).model == ""


def test_a_context_that_is_too_short() -> None:
    long = ask("word " * 4000)
    assert picked(REASON, quick(context=8192), thinking(context=2048), request=long) == ("q", "context")
    assert picked(REASON, quick(context=1024), thinking(context=2048), request=long) == ("r", "text-proof")
    assert picked(REASON, quick(context=8192), thinking(context=0), request=long) == ("r", "text-proof")
    capped = ask(limits=Limits(max_tokens=4000))
    assert picked(REASON, quick(context=8192), thinking(context=2048), request=capped) == ("q", "context")


def test_ideographs_take_more_tokens() -> None:
    models = (quick(context=8192), thinking(context=2048))
    assert picked(REASON, *models, request=ask("字" * 2000)) == ("q", "context")
    assert picked(REASON, *models, request=ask("a" * 2000)) == ("r", "text-proof")


def test_among_models_of_a_role_the_one_at_hand_answers() -> None:
    second = Candidate(card=ModelCard(id="r2", role="reasoning"), loaded=True)
    assert picked(REASON, thinking(), second)[0] == "r2"
    assert picked(REASON, thinking(loaded=True), second, waiting={"r": 2})[0] == "r2"
    assert picked(REASON, thinking(loaded=True), second)[0] == "r"
    before = Wish("reasoning", "conversation", "Why.", model="r")
    assert picked(before, thinking(), second)[0] == "r"


def test_tools_go_to_a_model_that_is_known_to_call_them() -> None:
    caller = Candidate(card=ModelCard(id="r2", role="reasoning", tools="hermes"))
    request = ask(tools=(Tool(name="f"),))
    assert picked(REASON, thinking(loaded=True), caller, request=request)[0] == "r2"
