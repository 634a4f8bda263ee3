"""Follow-up turns."""

from __future__ import annotations

import pytest

from exo.routing import read_rules
from exo.routing.conversation import FollowUpFinder, Turns, turns_of
from exo.routing.judgement import Judge
from exo.types import Message, Role

JUDGE = Judge(read_rules())
FINDER = FollowUpFinder(read_rules().follow_ups, JUDGE)


def conversation(*turns: tuple[Role, str]) -> tuple[Message, ...]:
    return tuple(Message(role=role, content=text) for role, text in turns)


def test_the_turns_of_a_conversation() -> None:
    messages = conversation(("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"))
    assert turns_of(messages) == Turns(("a", "c"), answered=True, under_way=False)
    assert turns_of(messages[:2]) == Turns(("a",), answered=False, under_way=False)
    assert turns_of(messages[:3]) == Turns(("a",), answered=False, under_way=True)
    assert turns_of(()) == Turns((), answered=False, under_way=True)


@pytest.mark.parametrize(
    "text",
    [
        "and why?",
        "Shorter please",
        "now in German",
        "Danke!",
        "et pourquoi ?",
        "¿y por qué?",
        "为什么呢",
        "Thanks, go on",
    ],
)
def test_a_message_that_goes_on(text: str) -> None:
    assert FINDER.goes_on(text)


@pytest.mark.parametrize(
    "text", ["Prove that it halts", "Why " + "is that so " * 10, "Write a function that adds more"]
)
def test_a_message_of_its_own(text: str) -> None:
    assert not FINDER.goes_on(text)


def test_a_clear_change_of_the_task() -> None:
    proof = "Prove that there are infinitely many primes."
    assert FINDER.changes(proof, JUDGE.judge(proof), "quick")
    assert not FINDER.changes(proof, JUDGE.judge(proof), "reasoning")
    thanks = "Danke, und wie geht es dir?"
    assert not FINDER.changes(thanks, JUDGE.judge(thanks), "reasoning")


def test_a_conversation_is_replayed_where_nobody_remembers_it() -> None:
    assert FINDER.replayed(()) is None
    assert FINDER.replayed(("Prove that 2 is prime.", "and why?")) == "reasoning"
    assert FINDER.replayed(("Prove that 2 is prime.", "Translate into German: the cat sleeps on the mat.")) == "quick"


def test_only_the_last_few_messages_are_replayed() -> None:
    assert FINDER.replayed(("Prove that 2 is prime.", *["hello there"] * 10)) == "quick"
