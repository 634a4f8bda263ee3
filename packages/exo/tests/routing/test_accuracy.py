"""How well the packaged rules do on labelled prompts. bench/routing.py prints the same by kind and language."""

from __future__ import annotations

import typing
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from exo.inference.choice import Candidate, Situation
from exo.routing import Router, read_rules
from exo.types import ChatRequest, Message, ModelCard, ModelRole

PROMPTS = Path(__file__).parent / "prompts"
SETS = [("dev.jsonl", 0.96), ("validation.jsonl", 0.92), ("test.jsonl", 0.92)]
FALSE_REASONING = 0.05
KINDS = {
    "mathematics": "reasoning",
    "proof": "reasoning",
    "logic": "reasoning",
    "code": "reasoning",
    "planning": "reasoning",
    "question": "quick",
    "chat": "quick",
    "rewriting": "quick",
    "extraction": "quick",
    "translation": "quick",
}


class Labelled(msgspec.Struct, forbid_unknown_fields=True):
    prompt: str
    kind: str
    role: ModelRole
    language: typing.Literal["en", "zh", "de", "es", "fr"]


def read(name: str) -> list[Labelled]:
    lines = (PROMPTS / name).read_text(encoding="utf-8").splitlines()
    return [msgspec.json.decode(line, type=Labelled) for line in lines if line]


@pytest.mark.parametrize(("name", "accuracy"), SETS)
def test_the_packaged_rules_find_the_role(name: str, accuracy: float) -> None:
    router = Router(read_rules())
    cards = (ModelCard(id="quick", role="quick"), ModelCard(id="thinking", role="reasoning"))
    situation = Situation(candidates=tuple(Candidate(card=card, loaded=True) for card in cards))
    wrong = Counter[str]()
    prompts = read(name)
    for each in prompts:
        request = ChatRequest(model="auto", messages=(Message(role="user", content=each.prompt),))
        wrong[each.role] += router.choose(request, situation).role != each.role
    assert 1 - wrong.total() / len(prompts) >= accuracy
    assert wrong["quick"] / sum(each.role == "quick" for each in prompts) <= FALSE_REASONING


@pytest.mark.parametrize("name", [name for name, _ in SETS])
def test_the_prompts_are_labelled_as_defined_and_differ(name: str) -> None:
    prompts = read(name)
    assert all(KINDS[each.kind] == each.role for each in prompts)
    assert len({each.prompt for each in prompts}) == len(prompts)
    counts = Counter((each.kind, each.language) for each in prompts)
    assert len(counts) == len(KINDS) * 5


def test_no_prompt_is_in_two_sets() -> None:
    prompts = [each.prompt.casefold().strip() for name, _ in SETS for each in read(name)]
    assert len(set(prompts)) == len(prompts)
