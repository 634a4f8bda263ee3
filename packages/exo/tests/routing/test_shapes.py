# ruff: noqa: RUF001 - Chinese has full-width signs
"""The shapes of a prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from exo.routing import read_rules
from exo.routing.cues import PhraseIndex
from exo.routing.passages import Sentence, Weights, passages_of
from exo.routing.shapes import Label, ShapeFinder, labelled_words

RULES = read_rules().shapes
INDEX = PhraseIndex(labelled_words(RULES))


def labels(sentences: Iterable[Sentence]) -> Counter[Label]:
    return Counter(hit.owner for sentence in sentences for hit in INDEX.hits(sentence))


def shapes(text: str) -> frozenset[str]:
    passages = passages_of(text, Weights())
    return frozenset(ShapeFinder(RULES).shapes_of(text, passages, labels(passages.asked), labels(passages.brought)))


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("What is 145 + 278?", "sum"),
        ("wieviel ist 7 mal 8", "sum"),
        ("12乘以12等于多少", "sum"),
        ("solve 3x + 5 = 20", "formula"),
        ("find ∫ x² dx", "formula"),
        ("hello", "short"),
        ("is it?", "question"),
        ("what does len() do", "call"),
        ("def f(x):\n    return x", "code"),
        ("a,b,c,d\n1,2,3,4\n5,6,7,8", "data"),
        ("I have 3 apples, eat 1 and buy 7. How many are left?", "story"),
        ("小明有5个苹果，吃了2个，又买了7个，还剩几个", "numbers-and-question"),
        ("two numbers add up to 31, one is 5 bigger. which", "numbers-and-question"),
        ("10 days, 900 euro, 2 kids", "quantities"),
        ("Anna is older than Ben. Cleo is not next to Ben.", "conditions"),
        ("- one\n- two\n- three", "list"),
        ("shorter please: the meeting that was to be held on Monday takes place on Tuesday instead of that", "brief"),
        ("I finally fixed my bike", "told"),
        ("今天我终于到家了", "told"),
        ("what a day!", "exclaimed"),
        ("17 points hahaha", "exclaimed"),
        ("f(x) is 3x + 1", "formula"),
        ("5!/3! as a number", "formula"),
    ],
)
def test_a_prompt_has_a_shape(text: str, shape: str) -> None:
    assert shape in shapes(text)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("solve 3x + 5 = 20", "sum"),
        ("A train leaves at 9 and travels 3 + 4 hours at 80 km/h, another at 90; when do they meet?", "sum"),
        ("求函数f(x)=x^3-3x的极值", "sum"),
        ("my room is 3 x 4 metres", "formula"),
        ("the year 2024", "numbers"),
        ("well, thanks", "question"),
        ("I passed with 17!", "formula"),
        ("I need help with my bike", "told"),
        ("I wonder: is my bike there?", "told"),
        ("a day in the hall", "exclaimed"),
    ],
)
def test_a_prompt_has_it_not(text: str, shape: str) -> None:
    assert shape not in shapes(text)
