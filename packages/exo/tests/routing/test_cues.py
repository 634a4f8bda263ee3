"""Phrases, found in sentences."""

from __future__ import annotations

import pytest

from exo.routing.cues import PhraseIndex, is_phrase
from exo.routing.passages import Sentence
from exo.routing.text import has_ideographs, simplified, words_of


def sentence(text: str) -> Sentence:
    plain = simplified(text)
    return Sentence(plain, words_of(plain), is_question=False, weight=1.0, ideographs=has_ideographs(plain))


@pytest.mark.parametrize(
    ("phrase", "text", "at"),
    [
        ("prove", "Please prove it", 1),
        ("démontre*", "DEMONTREZ que", 0),
        ("write ... function", "write me a short python function", 0),
        ("how many ... left", "and how many apples are left", 1),
        ("qu'est-ce", "Qu\u2019est-ce que c'est", 0),
        ("证明", "请证明", 1),
        ("写...函数", "写一个python函数", 0),
        ("tl;dr", "tl;dr please", 0),
        ("löse*", "bitte loesen", 1),
        ("Übersetz*", "uebersetze das", 0),
        ("löse*", "bitte lösen", 1),
    ],
)
def test_a_phrase_is_found_where_it_begins(phrase: str, text: str, at: int) -> None:
    assert [hit.at for hit in PhraseIndex([(phrase, 1)]).hits(sentence(text))] == [at]


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("prove", "proven"),
        ("write ... function", "write " + "very " * 11 + "long function"),
        ("how many ... left", "how many are right"),
        ("写...函数", "写信" + "给" * 20 + "函数"),
        ("in german", "in the german"),
    ],
)
def test_a_phrase_that_is_not_there(phrase: str, text: str) -> None:
    assert list(PhraseIndex([(phrase, 1)]).hits(sentence(text))) == []


def test_words_looked_up_before_are_found_again() -> None:
    index = PhraseIndex([("plan*", "plan"), ("planet", "planet")])
    for _ in range(2):
        assert {hit.owner for hit in index.hits(sentence("a planet"))} == {"plan", "planet"}


def test_what_could_never_match_is_no_phrase() -> None:
    assert is_phrase("how many ... left")
    assert not is_phrase("%")
    assert not is_phrase("... left")
