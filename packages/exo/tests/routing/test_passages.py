# ruff: noqa: RUF001 - Chinese has full-width signs
"""A prompt taken apart."""

from __future__ import annotations

import pytest

from exo.routing.passages import Passages, Weights, passages_of

WEIGHTS = Weights(middle=0.7, payload=0.5)


def taken_apart(text: str) -> tuple[list[str], list[str]]:
    found = passages_of(text, WEIGHTS)
    return [sentence.text for sentence in found.asked], [sentence.text for sentence in found.brought]


@pytest.mark.parametrize(
    ("text", "asked", "brought"),
    [
        ("Translate this: Prove that two is even.", ["translate this"], ["prove that two is even"]),
        ("Meet at 8:15 please", ["meet at 8:15 please"], []),
        (
            "Shorten it\nA long text. With a tail that goes on.",
            ["shorten it"],
            ["a long text", "with a tail that goes on"],
        ),
        (
            "What is wrong? 'she said that nobody had asked her'",
            ["what is wrong", '""'],
            ["'she said that nobody had asked her'"],
        ),
        ("翻译成英文：证明这个定理并说明每一步的理由", ["翻译成英文"], ["证明这个定理并说明每一步的理由"]),
    ],
)
def test_what_is_asked_and_what_is_brought(text: str, asked: list[str], brought: list[str]) -> None:
    assert taken_apart(text) == (asked, brought)


def test_a_question_behind_a_pasted_text_is_asked() -> None:
    text = "Here it is:\n" + "Some pasted text. " * 5 + "\n\nWho wrote it?"
    asked, brought = taken_apart(text)
    assert asked == ["here it is", "who wrote it"]
    assert len(brought) == 5


def test_programs_are_put_aside() -> None:
    found = passages_of("Why?\n```python\nprove = translate(1)\n```", WEIGHTS)
    assert (found.code, [sentence.text for sentence in found.asked]) == (True, ["why"])
    assert passages_of("Look\nfor x in y:\n    x.go()", WEIGHTS).code
    assert not passages_of("Look at my day", WEIGHTS).code


def test_data_is_no_program() -> None:
    found = passages_of('Which names?\n```\n{"name": "Eva"}\n```', WEIGHTS)
    assert (found.code, found.data) == (False, True)


def test_the_ends_of_a_prompt_count_more_than_its_middle() -> None:
    found = passages_of("One is here. Two is here. Three is here.", WEIGHTS)
    assert [sentence.weight for sentence in found.asked] == [1.0, 0.7, 1.0]


def test_many_sentences_are_left_out_in_the_middle() -> None:
    found: Passages = passages_of(" ".join(f"Number {number} here." for number in range(100)), WEIGHTS)
    assert found.asked[0].text == "number 0 here"
    assert found.asked[-1].text == "number 99 here"
    assert len(found.asked) < 20
