# ruff: noqa: RUF001 - Chinese has full-width signs
"""The shapes of a prompt."""

from __future__ import annotations

import pytest

from exo.routing import read_rules
from exo.routing.passages import Weights, passages_of
from exo.routing.shapes import ShapeFinder

FINDER = ShapeFinder(read_rules().shapes)


def shapes(text: str) -> frozenset[str]:
    return frozenset(FINDER.shapes_of(text, passages_of(text, Weights())))


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
        ("10 days, 900 euro, 2 kids", "quantities"),
        ("Anna is older than Ben. Cleo is not next to Ben.", "conditions"),
        ("- one\n- two\n- three", "list"),
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
    ],
)
def test_a_prompt_has_it_not(text: str, shape: str) -> None:
    assert shape not in shapes(text)
