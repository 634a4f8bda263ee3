"""The order of the decision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from exo.inference.choice import Candidate, ModelChooser, Situation
from exo.routing import Router, read_rules
from exo.types import AnswerFormat, ChatRequest, CompletionRequest, Message, ModelCard, Role

RULES = read_rules()
ROUTER = Router(RULES)
MODELS = (
    Candidate(card=ModelCard(id="q", role="quick"), loaded=True),
    Candidate(card=ModelCard(id="r", role="reasoning"), loaded=True),
)
PROOF = "Prove that there are infinitely many primes."
GREETING = "Hi, how are you today?"


def chosen(*turns: str, previous: str = "", models: tuple[Candidate, ...] = MODELS, **fields: Any) -> tuple[str, str]:
    """Turns are by turns the user's and the model's."""
    roles: tuple[Role, Role] = ("user", "assistant")
    messages = tuple(Message(role=roles[number % 2], content=text) for number, text in enumerate(turns))
    request = ChatRequest(model="auto", messages=messages, **fields)
    choice = ROUTER.choose(request, Situation(candidates=models, previous=previous))
    assert choice.reason.isascii()
    assert len(choice.reason) <= 200
    return choice.model, choice.rule


def test_the_router_is_a_chooser_with_its_budget() -> None:
    chooser: ModelChooser = ROUTER
    budget = (chooser.loads_per_request, chooser.load_burst, chooser.idle_seconds_per_load)
    assert budget == (RULES.cost.loads_per_request, RULES.cost.load_burst, RULES.cost.idle_seconds_per_load)


def test_a_role_by_the_rules_comes_before_that_of_the_card(tmp_path: Path) -> None:
    own = tmp_path / "rules.toml"
    own.write_text('[roles]\n"My-*" = "reasoning"\n"my-small*" = "quick"\n')
    router = Router(read_rules(own))
    assert router.role_of(ModelCard(id="my-Large")) == "reasoning"
    assert router.role_of(ModelCard(id="my-small", role="reasoning")) == "quick"
    assert router.role_of(ModelCard(id="other", role="reasoning")) == "reasoning"
    assert router.role_of(ModelCard(id="other")) == "quick"


def test_signals_come_before_the_text() -> None:
    assert chosen(PROOF, think=False) == ("q", "think")
    assert chosen(GREETING, effort="high") == ("r", "effort")


def test_the_text_decides_a_first_turn() -> None:
    assert chosen(PROOF) == ("r", "text-proof")
    assert chosen(GREETING) == ("q", "text-chat")


@pytest.mark.parametrize(
    "text", ["and why?", "shorter please", "now in German", "danke", "Is there another way to see it?"]
)
def test_follow_ups_stay_with_their_model(text: str) -> None:
    assert chosen(PROOF, "So be it.", text, previous="r") == ("r", "conversation")
    assert chosen(GREETING, "Fine.", text, previous="q") == ("q", "conversation")


def test_a_follow_up_stays_with_the_very_model_and_not_only_with_its_role() -> None:
    second = Candidate(card=ModelCard(id="r2", role="reasoning"), loaded=True)
    assert chosen(PROOF, "So be it.", "and why?", previous="r2", models=(*MODELS, second)) == ("r2", "conversation")


def test_a_clear_change_of_the_task_changes_the_model() -> None:
    assert chosen(GREETING, "Fine.", PROOF, previous="q") == ("r", "task-change")
    assert chosen(PROOF, "So.", "Translate into French: the cat sleeps on the mat.", previous="r") == (
        "q",
        "task-change",
    )


def test_a_conversation_that_nobody_remembers_is_replayed() -> None:
    assert chosen(PROOF, "So be it.", "and why?") == ("r", "conversation")
    assert chosen(GREETING, "Fine.", "and why?") == ("q", "conversation")
    assert chosen(PROOF, "So be it.", "and why?", previous="gone") == ("r", "conversation")


def test_a_turn_that_is_under_way_stays() -> None:
    assert chosen(PROOF, "I look it up.", previous="r") == ("r", "conversation")


def test_a_json_format_leans_to_quick_as_much_as_the_rules_say() -> None:
    assert chosen(PROOF, format=AnswerFormat()) == ("r", "text-proof")
    heavier = msgspec.structs.replace(RULES, signals=msgspec.structs.replace(RULES.signals, format=20.0))
    messages = (Message(role="user", content=PROOF),)
    request = ChatRequest(model="auto", messages=messages, format=AnswerFormat())
    choice = Router(heavier).choose(request, Situation(candidates=MODELS))
    assert (choice.model, choice.rule) == ("q", "format")


def test_a_text_without_any_cue() -> None:
    assert chosen("")[0] == "q"


def test_a_completion_is_judged_by_its_prompt() -> None:
    request = CompletionRequest(model="auto", prompt=PROOF)
    assert ROUTER.choose(request, Situation(candidates=MODELS)).model == "r"


def test_the_same_request_gets_the_same_choice() -> None:
    assert {chosen(PROOF) for _ in range(5)} == {chosen(PROOF)}


def test_no_text_of_a_request_is_in_the_reason() -> None:
    request = ChatRequest(model="auto", messages=(Message(role="user", content="Prove my xyzzy secret"),))
    assert "xyzzy" not in ROUTER.choose(request, Situation(candidates=MODELS)).reason


def test_roles_by_the_rules_count_for_models_without_a_card(tmp_path: Path) -> None:
    models = (
        Candidate(card=ModelCard(id="llama3.2"), loaded=True),
        Candidate(card=ModelCard(id="DeepSeek-R1-8B"), loaded=True),
    )
    assert chosen(PROOF, models=models)[0] == "DeepSeek-R1-8B"
    assert chosen(GREETING, models=models)[0] == "llama3.2"
    own = tmp_path / "rules.toml"
    own.write_text('[roles]\n"deepseek*" = "quick"\n"llama*" = "reasoning"\n')
    request = ChatRequest(model="auto", messages=(Message(role="user", content=PROOF),))
    assert Router(read_rules(own)).choose(request, Situation(candidates=models)).model == "llama3.2"
