"""The shapes of a prompt: what can be seen of it without knowing a single cue."""

from __future__ import annotations

import re

from exo.routing.cues import PhraseIndex
from exo.routing.passages import Passages, Sentence
from exo.routing.rules import Shape, ShapeRules
from exo.routing.text import length_in_words

_FORMULA = re.compile(
    "[\u222b\u2211\u221a\u220f\u2264\u2265\u2260\u221e\u2202\u2208\u2200\u2203\u21d2\u00b2\u00b3\u2115\u211d\u2124\u2261]"
    r"|\\(?:frac|int|sum|sqrt|lim|mathbb)|\$[^$\n]{2,80}\$|\b\d{0,9}[a-z]\s?\^\s?[\d({a-z]"
    r"|\b(?:sin|cos|tan|ln|log|exp|sqrt|lim)\s?\(|\b[fgh]\([a-z]\)"
    r"|(?<![\w.])\d{0,9}[xyzabnk] ?[-+*/] ?\d{0,9}[a-z]? ?[=<>]"
    r"|(?<![\w.])\d{0,9}[xyznkabc] ?[=<>] ?-?\d|[=<>] ?-?\d{0,9}[xyznk]\b|\d[xyzn]\b ?[-+=]|\d ?\^ ?[\dn]"
    r"|\b\d{1,9}!(?!\w)"
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
_SIGN = re.compile("\\d ?[%\u20ac$\u00a3\u00b0]|[\u20ac$\u00a3] ?\\d")
_EXCLAIMED = re.compile(
    r"!|[:;]-?[)(dp](?!\w)|\^\^|<3|\bx?d+\b$|\b(?:lo+l|lmao|omg|(?:ha|ja|je|hi|he){2,}h?|mdr+|ptdr+|uf+|pf+|ugh+|grr+)\b"
    "|[\u54c8\u563f]{2}|\u7b11\u6b7b|[\U0001f300-\U0001faff\u2600-\u27bf]"
)
_LONGEST_SUM = 90
_LONGEST_LOOK = 600
_BULLETS = 3
_PASTED = 12
_STORY_SENTENCES = 2
_NUMBER = re.compile(r"(?<![a-z0-9_.])[-+]?\d{1,12}(?:[.,:/]\d{1,9}){0,4}")


class ShapeFinder:
    """Says which shapes a prompt has."""

    def __init__(self, rules: ShapeRules) -> None:
        self._rules = rules
        self._phrases = PhraseIndex(
            [
                *((word, "number") for word in rules.number_words),
                *((word, "unit") for word in rules.units),
                *((word, "condition") for word in rules.condition_words),
                *((word, "mathematical") for word in rules.mathematical_words),
                *((word, "how-many") for word in rules.how_many),
                *((word, "personal") for word in rules.personal_words),
                *((word, "request") for word in rules.request_words),
            ]
        )

    def shapes_of(self, text: str, passages: Passages) -> frozenset[Shape]:
        """`text` is the prompt, bounded; formulas are looked for in what was not simplified."""
        asked = " ".join(sentence.text for sentence in passages.asked)
        brought = sum(length_in_words(sentence.text) for sentence in passages.brought)
        words = length_in_words(asked)
        found: set[Shape] = set()
        if words <= self._rules.short and brought < _PASTED:
            found.add("short")
        if words + brought >= self._rules.long:
            found.add("long")
        if words <= self._rules.brief:
            found.add("brief")
        if _EXCLAIMED.search(asked):
            found.add("exclaimed")
        if words >= self._rules.detailed:
            found.add("detailed")
        if brought >= _PASTED:
            found.add("pasted")
        if passages.code:
            found.add("code")
        if passages.data:
            found.add("data")
        if any(sentence.is_question for sentence in passages.asked[-1:]):
            found.add("question")
        if _CALL.search(asked[:_LONGEST_LOOK]):
            found.add("call")
        if not passages.code and _FORMULA.search(text[:_LONGEST_LOOK].lower()):
            found.add("formula")
        plain = len(asked) <= _LONGEST_SUM and not passages.brought and "formula" not in found
        if plain and (_SUM.search(asked) or _ROOT.search(asked)):
            found.add("sum")
        if len(_BULLET.findall(text)) >= _BULLETS:
            found.add("list")
        if not passages.code:
            found |= self._of_a_problem(passages)
        return frozenset(found)

    def _of_a_problem(self, passages: Passages) -> set[Shape]:
        sentences = [*passages.asked, *passages.brought]
        own = [hit for sentence in passages.asked for hit in self._phrases.hits(sentence)]
        hits = [*own, *(hit for sentence in passages.brought for hit in self._phrases.hits(sentence))]
        numbers = sum(map(_numbers_in, sentences)) + sum(hit.owner == "number" for hit in hits)
        conditions = sum(hit.owner == "condition" for hit in hits)
        asks = any(sentence.is_question for sentence in sentences[-2:])
        how_many = any(hit.owner == "how-many" for hit in hits)
        found: set[Shape] = set()
        owners = {hit.owner for hit in own}
        if "personal" in owners and "request" not in owners and not any(each.is_question for each in passages.asked):
            found.add("told")
        if any(hit.owner == "mathematical" for hit in hits):
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
        units = sum(hit.owner == "unit" for hit in hits) + sum(len(_SIGN.findall(each.text)) for each in sentences)
        if min(units, numbers) >= self._rules.quantities:
            found.add("quantities")
        if conditions >= self._rules.conditions:
            found.add("conditions")
        return found


def _numbers_in(sentence: Sentence) -> int:
    count = len(_NUMBER.findall(sentence.text))
    return count + len(_IDEOGRAPH_NUMBER.findall(sentence.text)) if sentence.ideographs else count
