"""A prompt taken apart: what it asks for, and what it only brings along.

The words of a pasted text, a quotation or a program say little about what somebody wants to have done with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from exo.routing.program import has_statement, is_data_line, is_program_line
from exo.routing.text import count_ideographs, has_ideographs, sentences_of, simplified, words_of

_QUOTED = re.compile(
    '"[^"]{25,3000}"|\u201c[^\u201c\u201d]{10,3000}\u201d|\u201e[^\u201e\u201c\u201d"]{25,3000}[\u201c\u201d"]'
    "|\u00ab[^\u00ab\u00bb]{25,3000}\u00bb|\u300c[^\u300c\u300d]{10,3000}\u300d|(?<!\\w)'[^'\n]{25,600}'(?!\\w)"
)
_COLON = re.compile(r":(?!\d|//|\w)|:(?=[\u3400-\u9fff])|->")
_LEAST_AFTER = 20
_FARTHEST = 220
_SHORT_PARAGRAPH = 400
_FEW_WORDS_BEFORE = 2
_LOOKED_AT = 300
_MOST = 4
"""Sentences from each end."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """Simplified. `weight` is how much its words count, from 0 to 1."""

    text: str
    words: tuple[str, ...]
    is_question: bool
    weight: float
    ideographs: bool


@dataclass(frozen=True, slots=True)
class Weights:
    """How much words count by where they stand, and what the words of an abbreviation are."""

    middle: float = 0.7
    payload: float = 0.35
    written_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Passages:
    """`asked` are the sentences that may ask for something, `brought` those of a text that was brought along.

    `code`: there is a program in it; `data`: a table, JSON.
    """

    asked: tuple[Sentence, ...]
    brought: tuple[Sentence, ...]
    code: bool
    data: bool


@dataclass(slots=True)
class _Taken:
    """What has been put aside so far."""

    prose: list[str] = field(default_factory=list)
    code: bool = False
    data: bool = False


def passages_of(text: str, weights: Weights) -> Passages:
    taken = _Taken()
    rest = _without_fences(simplified(text), taken)
    rest = _QUOTED.sub(lambda found: _put_aside(found.group(), taken), rest)
    rest = _without_programs(rest, taken)
    asked = _without_pasted(rest, taken)
    code = taken.code or has_statement(" ".join([asked[:_LOOKED_AT], *taken.prose])[: 2 * _LOOKED_AT])
    sentences = _without_middle(sentences_of(asked))
    last = len(sentences) - 1
    brought = _without_middle([sentence for piece in taken.prose for sentence in sentences_of(piece)])
    return Passages(
        tuple(
            _sentence(sentence, question, 1.0 if number in {0, last} else weights.middle, weights)
            for number, (sentence, question) in enumerate(sentences)
        ),
        tuple(_sentence(sentence, question, weights.payload, weights) for sentence, question in brought),
        code=code and not (taken.data and not taken.code),
        data=taken.data,
    )


def _without_middle(sentences: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """A decision has to be quick, and what is asked for stands at one of the ends."""
    return sentences if len(sentences) <= 2 * _MOST else [*sentences[:_MOST], *sentences[-_MOST:]]


def _sentence(text: str, question: bool, weight: float, weights: Weights) -> Sentence:  # noqa: FBT001 - of this module
    words = words_of(text)
    if not weights.written_out.keys().isdisjoint(words):
        words = tuple(part for word in words for part in weights.written_out.get(word, (word,)))
    return Sentence(text, words, question, weight, has_ideographs(text))


def _without_fences(text: str, taken: _Taken) -> str:
    pieces = text.split("```")
    for block in pieces[1::2]:
        _look_at_lines(block.split("\n")[1:] or [block], taken, otherwise_code=True)
    return "\n\n".join(pieces[::2])


def _look_at_lines(lines: list[str], taken: _Taken, *, otherwise_code: bool) -> None:
    filled = [line for line in lines if line.strip()]
    if filled and 2 * sum(map(is_data_line, filled)) > len(filled):
        taken.data = True
    elif otherwise_code:
        taken.code = True


def _put_aside(quoted: str, taken: _Taken) -> str:
    taken.prose.append(quoted)
    return ' "" '


def _without_programs(text: str, taken: _Taken) -> str:
    kept = []
    for line in text.split("\n"):
        if is_program_line(line):
            taken.code = True
        elif is_data_line(line) and line.count(" ") < len(line) // 4:
            taken.data = True
        else:
            kept.append(line)
            continue
        # What introduces a program on the same line still counts: "fix this: while x: pass"
        before, colon, _ = line.partition(": ")
        if colon and len(words_of(before)) > _FEW_WORDS_BEFORE and not is_program_line(before):
            kept.append(before)
    return "\n".join(kept)


def _without_pasted(text: str, taken: _Taken) -> str:
    """Puts aside what a colon introduces, or what stands between a first and a last paragraph."""
    text = text.strip()
    found = _COLON.search(text, 0, _FARTHEST)
    if found:
        before, after = text[: found.start()], text[found.end() :].strip()
        long_enough = len(after) + 2 * count_ideographs(after) >= _LEAST_AFTER
        if long_enough and len(words_of(before)) + count_ideographs(before) > 0:
            body, _, last = after.rpartition("\n\n")
            if body and len(last) <= _SHORT_PARAGRAPH:
                taken.prose.append(body)
                return f"{before}\n{last}"
            taken.prose.append(after)
            return before
    first, _, others = text.partition("\n")
    body, blank, last = others.strip().rpartition("\n\n")
    if not blank:
        body, _, last = others.strip().rpartition("\n")
        if not last.endswith("?"):
            body, last = others, ""
    if len(first) <= _FARTHEST and len(body) > len(first):
        taken.prose.append(body)
        return f"{first}\n{last}"
    if len(last) <= _FARTHEST and len(others) > 2 * len(last) and blank:
        taken.prose.append(body)
        return f"{first}\n{last}"
    return text
