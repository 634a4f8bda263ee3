"""Which requests a run makes, in which order: decided before the first of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from exo.benchmark.results import Part, Settings

PROMPTS = {
    "Math": "What is 145 + 278?",
    "Explanation": "What is Python in one sentence?",
    "Code": "Write a Python function to check if a number is prime.",
    "Reasoning": "Is 17 a prime number? Explain.",
    "Creative": "Write a haiku about AI.",
}
_WARM_UP = "Hello! How are you today?"
"""None of the prompts, which the server's cache would know afterwards."""
_LENGTH_ANSWER_TOKENS = 16
"""The sweep of prompt lengths looks at the first token; a few more show that the answer goes on."""
_FRAME_TOKENS = 40
"""About what a chat template, the beginning and the question take."""
_WORDS = (
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work government number night point home water room mother "
    "area money story fact month lot right study book eye job word business issue side kind head house service friend "
    "father power hour game line end member law car city community name president team minute idea kid body back"
)
"""Words that most tokenizers have as one token each."""


@dataclass(frozen=True)
class Question:
    """One request: what is asked, and what it is called in the results.

    `wording` is the text, or makes it: thousands of long ones need not be there at the same time.
    """

    name: str
    wording: str | Callable[[], str]
    repeat: int
    max_tokens: int

    @property
    def text(self) -> str:
        return self.wording if isinstance(self.wording, str) else self.wording()


@dataclass(frozen=True)
class Stage:
    """Requests to one model, `level` of them at a time."""

    part: Part
    model: str
    level: int
    questions: tuple[Question, ...]


def stages(settings: Settings, seed: str) -> list[Stage]:
    """One model after the other, so that each is loaded once. `seed` makes the long prompts of a run its own."""
    return [stage for model in settings.models for stage in _stages_of(model, settings, seed)]


def _stages_of(model: str, settings: Settings, seed: str) -> Iterator[Stage]:
    yield Stage("warm-up", model, 1, (Question("warm-up", _WARM_UP, 0, settings.max_tokens),))
    # The prompts take turns: a repeat right behind itself finds its own prompt in the server's cache.
    rounds = range(settings.repeat)
    yield Stage(
        "prompts",
        model,
        1,
        tuple(Question(kind, text, number, settings.max_tokens) for number in rounds for kind, text in PROMPTS.items()),
    )
    for level in settings.concurrency:
        kinds = (list(PROMPTS)[number % len(PROMPTS)] for number in range(settings.requests))
        yield Stage(
            "concurrency",
            model,
            level,
            tuple(Question(kind, PROMPTS[kind], number, settings.max_tokens) for number, kind in enumerate(kinds)),
        )
    most = min(settings.max_tokens, _LENGTH_ANSWER_TOKENS)
    for length in settings.prompt_lengths:
        yield Stage(
            "lengths",
            model,
            1,
            tuple(
                Question(str(length), partial(long_text, length, f"{seed}/{model}/{length}/{number}"), number, most)
                for number in rounds
            ),
        )


def long_text(tokens: int, seed: str) -> str:
    """A prompt of about `tokens` tokens whose first word depends on `seed`: no cache of prompts knows its beginning."""
    chance = random.Random(seed)  # noqa: S311 - a text, no secret
    known = _WORDS.split()
    words = (chance.choice(known) for _ in range(max(tokens - _FRAME_TOKENS, 1)))
    return f"{chance.randrange(10**8):08d} is the number of this list: {' '.join(words)}. What is the list about?"
