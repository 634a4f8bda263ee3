# ruff: noqa: RUF001 - Chinese has full-width signs
"""Text as cues see it."""

from __future__ import annotations

import pytest

from exo.routing.text import bounded, length_in_words, sentences_of, simplified, words_of


def test_simplified_text_has_no_accents_and_plain_signs() -> None:
    assert simplified("Übersetze: Où EST la Straße？") == "ubersetze: ou est la strasse?"
    assert simplified("c\u2019est") == "c'est"


def test_words_are_parted_from_ideographs_and_apostrophes() -> None:
    assert words_of("写一个python函数") == ("python",)
    assert words_of("l'equation a 3.5 km") == ("l", "equation", "a", "3.5", "km")


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two? 3.5 km", [("one", False), ("two", True), ("3.5 km", False)]),
        ("谁坐在左边？请说明。", [("谁坐在左边", True), ("请说明", False)]),
        ("三个开关在门外 里面一盏灯", [("三个开关在门外", False), ("里面一盏灯", False)]),
        ("first\nsecond", [("first", False), ("second", False)]),
    ],
)
def test_sentences(text: str, sentences: list[tuple[str, bool]]) -> None:
    assert sentences_of(simplified(text)) == sentences


def test_of_a_long_text_only_the_ends_are_read() -> None:
    assert bounded("a" * 50 + "b" * 50, 10) == "a" * 10 + "\n\n" + "b" * 10
    assert bounded("short", 10) == "short"
    assert len(bounded("字" * 100, 10)) == 12


def test_two_ideographs_count_as_a_word() -> None:
    assert length_in_words("two words") == 2
    assert length_in_words("四个汉字") == 2


@pytest.mark.parametrize(("blanks", "left"), [(" " * 5, 5), (" " * 8, 8), (" " * 300, 8), ("\t" * 300, 8)])
def test_of_many_blanks_few_are_left(blanks: str, left: int) -> None:
    """They would only take time: some patterns look at each of them again and again."""
    assert len(bounded(f"a{blanks}b", 1000)) == left + 2


def test_signs_that_stand_for_a_phrase_do_not_make_a_text_long() -> None:
    assert len(simplified("\ufdfa" * 100)) <= 300
