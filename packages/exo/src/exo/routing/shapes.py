"""The shapes of a prompt: what can be seen of it without knowing a single cue."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Literal

from exo.routing.passages import Passages, Sentence
from exo.routing.rules import Shape, ShapeRules, Words
from exo.routing.text import count_ideographs

_FORMULA = re.compile(
    "[\u222b\u2211\u221a\u220f\u2264\u2265\u2260\u221e\u2202\u2208\u2200\u2203\u21d2\u00b2\u00b3\u2115\u211d\u2124\u2261]"
    r"|\\(?:frac|int|sum|sqrt|lim|mathbb)|\$[^$\n]{2,80}\$|[=<>] ?-?\d{0,9}[xyznk]\b"
)
_TERM = re.compile(
    r"(?<![\w.])(?:\d{0,9}[a-z]\s?\^\s?[\d({a-z]|\d{1,9} ?\^ ?[\dn]|(?:sin|cos|tan|ln|log\d{0,2}|exp|sqrt|lim)\s?\("
    r"|[fgh]\([a-z]\)|\d{0,9}[xyzabnk] ?[-+*/] ?\d{0,9}[a-z]? ?[=<>]|\d{0,9}[xyznkabc] ?[=<>] ?-?\d"
    r"|\d{1,9}[xyzn]\b ?[-+=]|\d{1,9}! ?[-+*/=):])"
)
_SUM = re.compile(
    r"^\D{0,40}?\(?-?\d[\d.,]*\)?\s?(?:%\s?(?:of|von|de)?|(?:percent|prozent|por ciento|pour cent)"
    r" (?:of|von|de)|[-+*/x\u00d7\u00f7:\u2212]"
    r"|mal|plus|minus|times|multiplied by|divided by|over|geteilt durch|por|mas|menos|entre|fois|moins"
    r"|divise par|dividido (?:por|entre)"
    r"|multipli\w+ (?:by|par|por)|\u4e58\u4ee5?|\u52a0\u4e0a?|\u51cf\u53bb?|\u9664\u4ee5)"
    r"\s?\(?-?\d[\d.,]*\)?(?:\s?[-+*/x]\s?\d[\d.,]*)?\D{0,25}$"
)
_ROOT = re.compile(
    r"^\D{0,30}(?:square root of|half of|halfte von|la mitad de|la moitie de|wurzel (?:aus|von)|raiz cuadrada de"
    r"|racine carree de) \d{1,5}\D{0,3}$"
)
_IDEOGRAPH_NUMBER = re.compile(
    "(?<!\u7b2c)[\u4e8c\u4e24\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d\u5341\u767e\u5343\u534a]+"
)
_BULLET = re.compile(r"^\s{0,20}(?:[-*\u2022\u00b7]|\d{1,2}[.)]|[a-z]\))\s", re.MULTILINE)
_CALL = re.compile(r"\b[a-z_][\w.]{0,60}\(\)|\b[a-z]+_[a-z_]+\b|`[^`\n]{1,60}`")
_CALL_SIGNS = ("()", "_", "`")
_SIGN = re.compile("\\d ?[%\u20ac$\u00a3\u00b0]|[\u20ac$\u00a3] ?\\d")
_EXCLAIMED = re.compile(
    r"!|[:;]-?[)(dp](?!\w)|\^\^|<3|[\u54c8\u563f]{2}|\u7b11\u6b7b|[\U0001f300-\U0001faff\u2600-\u27bf]"
)
_LAUGH = re.compile(
    r"\b(?:lo+l|lmao|omg|xd+|(?:ha){2,9}h?|(?:ja){2,9}|(?:je){2,9}|(?:hi){2,9}|mdr+|ptdr+|uf+|pf+|ugh+|grr+)\b"
)
_LONGEST_SUM = 90
_LONGEST_LOOK = 600
_BULLETS = 3
_PASTED = 12
_STORY_SENTENCES = 2
_NUMBER = re.compile(r"\d(?<![a-z0-9_.]\d)\d{0,11}(?:[.,:/]\d{1,9}){0,4}")


Label = Literal["number", "unit", "condition", "mathematical", "how-many", "personal", "question", "request"]
"""What a word of ShapeRules stands for."""


def labelled_words(rules: ShapeRules) -> Iterator[tuple[str, Label]]:
    """What has to be looked for before the shapes can be told."""
    lists: tuple[tuple[Words, Label], ...] = (
        (rules.number_words, "number"),
        (rules.units, "unit"),
        (rules.condition_words, "condition"),
        (rules.mathematical_words, "mathematical"),
        (rules.how_many, "how-many"),
        (rules.personal_words, "personal"),
        (rules.question_words, "question"),
        (rules.request_words, "request"),
    )
    return ((word, label) for words, label in lists for word in words)


class ShapeFinder:
    """Says which shapes a prompt has."""

    def __init__(self, rules: ShapeRules) -> None:
        self._rules = rules

    def shapes_of(
        self, text: str, passages: Passages, own: Counter[Label], brought_along: Counter[Label]
    ) -> frozenset[Shape]:
        """`text` is the prompt, bounded; formulas are looked for in what was not simplified.

        `own` and `brought_along` count the labelled words in what is asked and in what was brought along.
        """
        asked = " ".join(sentence.text for sentence in passages.asked)
        found = self._of_length(passages)
        if passages.code:
            found.add("code")
        if passages.data:
            found.add("data")
        if _EXCLAIMED.search(asked if passages.brought else text.lower()) or _LAUGH.search(asked):
            found.add("exclaimed")
        if any(sentence.is_question for sentence in passages.asked[-1:]):
            found.add("question")
        if any(sign in asked for sign in _CALL_SIGNS) and _CALL.search(asked[:_LONGEST_LOOK]):
            found.add("call")
        if not passages.code and _has_formula(text[:_LONGEST_LOOK].lower()):
            found.add("formula")
        plain = len(asked) <= _LONGEST_SUM and not passages.brought and "formula" not in found
        if plain and (_SUM.search(asked) or _ROOT.search(asked)):
            found.add("sum")
        if len(_BULLET.findall(text)) >= _BULLETS:
            found.add("list")
        if not passages.code:
            found |= self._of_a_problem(passages, own, own + brought_along)
        return frozenset(found)

    def _of_length(self, passages: Passages) -> set[Shape]:
        words = sum(map(_length_of, passages.asked))
        brought = sum(map(_length_of, passages.brought))
        lengths: tuple[tuple[Shape, bool], ...] = (
            ("short", words <= self._rules.short and brought < _PASTED),
            ("long", words + brought >= self._rules.long),
            ("brief", words <= self._rules.brief),
            ("detailed", words >= self._rules.detailed),
            ("pasted", brought >= _PASTED),
        )
        return {name for name, there in lengths if there}

    def _of_a_problem(self, passages: Passages, own: Counter[Label], labels: Counter[Label]) -> set[Shape]:
        sentences = [*passages.asked, *passages.brought]
        numbers = sum(map(_numbers_in, sentences)) + labels["number"]
        asks = any(sentence.is_question for sentence in sentences[-2:]) or own["question"] > 0
        how_many = labels["how-many"] > 0
        found: set[Shape] = set()
        silent = not own["request"] and not own["question"] and not any(each.is_question for each in passages.asked)
        if own["personal"] and silent:
            found.add("told")
        if labels["mathematical"]:
            found.add("mathematical")
        if len(sentences) >= self._rules.statements:
            found.add("statements")
        if numbers >= self._rules.numbers:
            found.add("numbers")
            if asks or how_many:
                found.add("numbers-and-question")
                if len(sentences) >= _STORY_SENTENCES or how_many:
                    found.add("story")
        if numbers >= self._rules.many_numbers:
            found.add("many-numbers")
        units = labels["unit"] + sum(len(_SIGN.findall(each.text)) for each in sentences)
        if min(units, numbers) >= self._rules.quantities:
            found.add("quantities")
        if labels["condition"] >= self._rules.conditions:
            found.add("conditions")
        return found


def _length_of(sentence: Sentence) -> int:
    """In words; two ideographs are one."""
    return len(sentence.words) + (count_ideographs(sentence.text) // 2 if sentence.ideographs else 0)


def _has_formula(text: str) -> bool:
    return _FORMULA.search(text) is not None or _TERM.search(text) is not None


def _numbers_in(sentence: Sentence) -> int:
    count = len(_NUMBER.findall(sentence.text))
    return count + len(_IDEOGRAPH_NUMBER.findall(sentence.text)) if sentence.ideographs else count
