"""Which model answers once the role is known."""

from __future__ import annotations

from typing import Any

import msgspec
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


FOUR = {
    "q1": Candidate(card=ModelCard(id="q1", role="quick")),
    "q2": Candidate(card=ModelCard(id="q2", role="quick")),
    "r1": Candidate(card=ModelCard(id="r1", role="reasoning")),
    "r2": Candidate(card=ModelCard(id="r2", role="reasoning")),
}


def order(wish: Wish, *, loaded: str = "", request: ChatRequest | None = None, **state: Any) -> tuple[str, str]:
    """All four models in the order of the choice, and the rule."""
    candidates = tuple(msgspec.structs.replace(each, loaded=name in loaded.split()) for name, each in FOUR.items())
    choice = PICKER.pick(request or ask(), Situation(candidates=candidates, **state), wish)
    assert choice.role == wish.role
    return " ".join((choice.model, *choice.others)), choice.rule


@pytest.mark.parametrize(
    ("loaded", "waiting", "expected"),
    [
        ("q2 r2", {}, ("r2 q2 r1 q1", "text-proof")),
        ("q2", {}, ("q2 r1 r2 q1", "load-budget")),
        ("q2", {"r2": 1}, ("r2 q2 r1 q1", "text-proof")),
        ("", {"q2": 3}, ("q2 r1 r2 q1", "load-budget")),
        ("", {}, ("r1 r2 q1 q2", "text-proof")),
    ],
)
def test_without_a_budget_models_that_need_a_load_come_last(
    loaded: str, waiting: dict[str, int], expected: tuple[str, str]
) -> None:
    assert order(REASON, loaded=loaded, waiting=waiting, may_load=False) == expected
    weak = Wish("reasoning", "text-proof", "Why.", weak=True)
    assert order(weak, loaded=loaded, waiting=waiting, may_load=False) == expected
    rule = expected[1].replace("load-budget", "loaded-already")
    assert order(weak, loaded=loaded, waiting=waiting) == (expected[0], rule)


def test_without_a_budget_the_model_of_a_conversation_gives_way_to_another_one_of_its_role() -> None:
    before = Wish("reasoning", "conversation", "Why.", model="r1")
    assert order(before, loaded="q1 r2") == ("r1 r2 q1 q2", "conversation")
    assert order(before, loaded="q1 r2", may_load=False) == ("r2 q1 r1 q2", "load-budget")
    assert order(before, loaded="r1 r2", waiting={"r1": 5}, may_load=False) == ("r1 r2 q1 q2", "conversation")


def test_without_a_budget_one_role_alone_causes_no_load_either() -> None:
    caller = Candidate(card=ModelCard(id="r2", role="reasoning", tools="hermes"))
    request = ask(tools=(Tool(name="f"),))
    assert picked(REASON, thinking(loaded=True), caller, request=request, may_load=False) == ("r", "load-budget")
    quick_wish = Wish("quick", "text-chat", "Why.")
    assert picked(quick_wish, thinking(loaded=True), caller, request=request, may_load=False) == ("r", "load-budget")


def test_a_load_that_is_on_the_way_is_preferred_to_a_further_one() -> None:
    assert order(REASON, waiting={"r2": 2}) == ("r2 r1 q1 q2", "text-proof")


@pytest.mark.parametrize(
    ("loaded", "deadline", "waiting", "state", "expected"),
    [
        ("q1 r1", 200.0, {"r1": 20}, {}, ("r2 r1 q1 q2", "deadline")),  # the budget allows the load of r2
        ("q1 r1", 200.0, {"r1": 20}, {"may_load": False}, ("q1 r1 r2 q2", "deadline")),
        ("q1 r1", 60.0, {"q1": 20}, {}, ("q2 r1 r2 q1", "deadline")),  # nor does q1 meet it
        ("q1 r1", 60.0, {"q1": 20}, {"may_load": False}, ("r1 q1 r2 q2", "text-proof")),
        ("q1 r1", 10.0, {"q1": 20}, {}, ("q2 r1 r2 q1", "deadline")),  # none does, q2 is done first
        ("q1 r1", 10.0, {"r1": 20, "q1": 3}, {"may_load": False}, ("q1 r1 r2 q2", "deadline")),
        ("q1", 60.0, {}, {"may_load": False}, ("q1 r1 r2 q2", "load-budget")),
        ("q1 q2", 60.0, {"q1": 1, "q2": 1, "r1": 1}, {"may_load": False}, ("q1 r1 q2 r2", "deadline")),
        ("q1 q2", 60.0, {"q1": 9, "q2": 8}, {"may_load": False}, ("q2 q1 r1 r2", "load-budget")),
        ("", 60.0, {}, {"may_load": False}, ("q1 r1 r2 q2", "deadline")),  # there is a load anyway
    ],
)
def test_a_deadline_picks_a_model_that_meets_it_and_that_the_budget_allows(
    loaded: str, deadline: float, waiting: dict[str, int], state: dict[str, Any], expected: tuple[str, str]
) -> None:
    request = ask(limits=Limits(deadline=deadline))
    assert order(REASON, loaded=loaded, request=request, waiting=waiting, **state) == expected


def test_a_deadline_does_not_overrule_a_firm_wish() -> None:
    firm = Wish("reasoning", "think", "Why.", firm=True)
    request = ask(limits=Limits(deadline=1.0))
    assert order(firm, loaded="q1", request=request, may_load=False) == ("r1 r2 q1 q2", "think")


def test_a_high_limit_of_tokens_is_no_long_answer() -> None:
    limits = Limits(deadline=3600.0, max_tokens=64_000)
    assert order(REASON, loaded="q1", request=ask(limits=limits)) == ("r1 r2 q1 q2", "text-proof")
    limits = Limits(deadline=60.0, max_tokens=200)
    assert order(REASON, request=ask(limits=limits)) == ("r1 r2 q1 q2", "text-proof")


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
