"""Which requests a run makes."""

from __future__ import annotations

import pytest

from exo.benchmark import plan
from exo.benchmark.plan import PROMPTS, long_text, stages
from exo.benchmark.results import Settings


def test_the_five_prompts() -> None:
    assert PROMPTS == {
        "Math": "What is 145 + 278?",
        "Explanation": "What is Python in one sentence?",
        "Code": "Write a Python function to check if a number is prime.",
        "Reasoning": "Is 17 a prime number? Explain.",
        "Creative": "Write a haiku about AI.",
    }


def test_one_model_after_the_other_each_warmed_up_once() -> None:
    settings = Settings(models=("a", "b"), repeat=2, concurrency=(1, 4), requests=7, prompt_lengths=(128, 512))
    of_one = [
        ("warm-up", 1, 1),
        ("prompts", 1, 10),
        ("concurrency", 1, 7),
        ("concurrency", 4, 7),
        ("lengths", 1, 2),
        ("lengths", 1, 2),
    ]
    found = [(stage.model, stage.part, stage.level, len(stage.questions)) for stage in stages(settings, "seed")]
    assert found == [(model, *stage) for model in "ab" for stage in of_one]


def test_without_sweeps_there_are_the_prompts_only() -> None:
    assert [stage.part for stage in stages(Settings(models=("a",)), "seed")] == ["warm-up", "prompts"]


def test_the_warm_up_asks_none_of_the_prompts() -> None:
    warm_up, prompts = stages(Settings(models=("a",)), "seed")
    assert warm_up.questions[0].text not in {question.text for question in prompts.questions}


def test_a_prompt_never_follows_itself() -> None:
    _, prompts = stages(Settings(models=("a",), repeat=3), "seed")
    names = [question.name for question in prompts.questions]
    assert names == [*PROMPTS] * 3
    assert [question.repeat for question in prompts.questions] == [0] * 5 + [1] * 5 + [2] * 5


@pytest.mark.parametrize("most", [8, 500])
def test_the_sweep_of_lengths_asks_for_few_tokens(most: int) -> None:
    *_, lengths = stages(Settings(models=("a",), prompt_lengths=(128,), max_tokens=most), "seed")
    assert {question.max_tokens for question in lengths.questions} == {min(most, 16)}


def test_every_long_prompt_begins_differently() -> None:
    settings = Settings(models=("a", "b"), repeat=3, prompt_lengths=(128, 512))

    def beginnings(seed: str) -> set[str]:
        lengths = [stage for stage in stages(settings, seed) if stage.part == "lengths"]
        return {question.text[:8] for stage in lengths for question in stage.questions}

    assert len(beginnings("one run") | beginnings("the next run")) == 2 * 2 * 2 * 3


def test_a_long_prompt_is_made_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def make(tokens: int, seed: str) -> str:
        made.append(tokens)
        return seed

    monkeypatch.setattr(plan, "long_text", make)
    *_, lengths = stages(Settings(models=("a",), repeat=1000, prompt_lengths=(1_000_000,)), "seed")
    assert (len(lengths.questions), made) == (1000, [])
    assert lengths.questions[7].text == "seed/a/1000000/7"
    assert made == [1_000_000]


@pytest.mark.parametrize("tokens", [1, 128, 1024, 8192])
def test_a_long_prompt_has_about_a_word_for_each_token(tokens: int) -> None:
    words = len(long_text(tokens, "seed").split())
    assert max(tokens - 40, 0) <= words <= tokens + 20
