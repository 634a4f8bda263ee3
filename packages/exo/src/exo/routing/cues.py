"""Phrases, found in sentences.

A phrase is words with spaces between them. A word may end in `*` for any ending, `...` stands for up to ten words or,
between Chinese characters, for up to fifteen of these; a phrase with Chinese characters need not begin at a word.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from exo.routing.passages import Sentence
from exo.routing.text import has_ideographs, simplified, words_of

GAP = "..."
_GAP_WORDS = 10
_GAP_CHARACTERS = 15
_MOST_KEPT = 4096
_UMLAUTS = str.maketrans({"\u00e4": "ae", "\u00f6": "oe", "\u00fc": "ue"})
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    is_stem: bool

    def fits(self, word: str) -> bool:
        return word.startswith(self.text) if self.is_stem else word == self.text


_Part = _Word | None
"""None is a gap."""


@dataclass(frozen=True, slots=True)
class Hit(Generic[T]):
    """`owner` has a phrase that begins at the word (or the character, of ideographs) number `at`."""

    owner: T
    phrase: str
    at: int
    is_ideographs: bool


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    """A phrase without its first word. `needed` are those of its words that have no other ending."""

    owner: T
    phrase: str
    rest: tuple[_Part, ...]
    needed: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Entries(Generic[T]):
    """All phrases that may begin with a word, those by themselves of which the very next word is known as well."""

    others: tuple[_Entry[T], ...]
    by_second: dict[str, list[_Entry[T]]]


class PhraseIndex(Generic[T]):
    """Finds the phrases of many owners at once."""

    def __init__(self, phrases: Iterable[tuple[str, T]]) -> None:
        self._whole: dict[str, list[_Entry[T]]] = {}
        self._stems: dict[str, list[_Entry[T]]] = {}
        self._ideographs: dict[str, list[tuple[tuple[str, ...], T, str]]] = {}
        for phrase, owner in phrases:
            self._add(phrase, owner, phrase)
            written_out = phrase.lower().translate(_UMLAUTS)
            if written_out != phrase.lower():
                self._add(phrase, owner, written_out)
        self._lengths = sorted({len(stem) for stem in self._stems})
        self._looked_up: dict[str, _Entries[T]] = {}

    def _add(self, phrase: str, owner: T, spelt: str) -> None:
        text = simplified(spelt)
        if has_ideographs(text):
            pieces = tuple(piece.strip() for piece in text.split(GAP) if piece.strip())
            self._ideographs.setdefault(pieces[0][:2], []).append((pieces, owner, phrase))
            return
        first, *rest = _parts(text)
        if first is None:
            return
        needed = frozenset(part.text for part in rest if part is not None and not part.is_stem)
        table = self._stems if first.is_stem else self._whole
        table.setdefault(first.text, []).append(_Entry(owner, phrase, tuple(rest), needed))

    def hits(self, sentence: Sentence) -> Iterator[Hit[T]]:
        words = sentence.words
        present = frozenset(words)
        for at, (word, following) in enumerate(zip(words, (*words[1:], ""))):
            entries = self._looked_up.get(word) or self._beginning_with(word)
            for entry in entries.others:
                if not entry.rest or (entry.needed <= present and _fits(entry.rest, words, at + 1)):
                    yield Hit(entry.owner, entry.phrase, at, is_ideographs=False)
            for entry in entries.by_second.get(following, ()):
                if len(entry.rest) == 1 or (entry.needed <= present and _fits(entry.rest, words, at + 1)):
                    yield Hit(entry.owner, entry.phrase, at, is_ideographs=False)
        if sentence.ideographs:
            yield from self._hits_of_ideographs(sentence.text)

    def _beginning_with(self, word: str) -> _Entries[T]:
        """All phrases that may begin with `word`. A word that was looked up is kept: most of a text's words recur."""
        stems = (self._stems.get(word[:length], ()) for length in self._lengths if length <= len(word))
        others: list[_Entry[T]] = []
        by_second: dict[str, list[_Entry[T]]] = {}
        for entry in (*self._whole.get(word, ()), *itertools.chain.from_iterable(stems)):
            second = entry.rest[0] if entry.rest else None
            if second is None or second.is_stem:
                others.append(entry)
            else:
                by_second.setdefault(second.text, []).append(entry)
        entries = _Entries(tuple(others), by_second)
        if len(self._looked_up) >= _MOST_KEPT:
            self._looked_up.clear()
        self._looked_up[word] = entries
        return entries

    def _hits_of_ideographs(self, text: str) -> Iterator[Hit[T]]:
        for first in dict.fromkeys((*text, *map(operator.add, text, text[1:]))):
            for pieces, owner, phrase in self._ideographs.get(first, ()):
                at = _find(pieces, text)
                if at >= 0:
                    yield Hit(owner, phrase, at, is_ideographs=True)


def is_phrase(text: str) -> bool:
    """Whether something could ever match."""
    text = simplified(text)
    if has_ideographs(text):
        return not text.strip().startswith(GAP)
    parts = _parts(text)
    return bool(parts) and parts[0] is not None


def _parts(text: str) -> list[_Part]:
    parts: list[_Part] = []
    for piece in text.split():
        if piece == GAP:
            parts.append(None)
            continue
        words = words_of(piece)
        parts += [_Word(word, piece.endswith("*") and number == len(words)) for number, word in enumerate(words, 1)]
    return parts


def _fits(rest: tuple[_Part, ...], words: tuple[str, ...], at: int) -> bool:
    within = 1
    for part in rest:
        if part is None:
            within = _GAP_WORDS + 1
            continue
        at = next((place for place in range(at, min(at + within, len(words))) if part.fits(words[place])), -1) + 1
        if at == 0:
            return False
        within = 1
    return True


def _find(pieces: tuple[str, ...], text: str) -> int:
    """Where the first piece begins, -1 if they are not all there in a row. The first place of each counts."""
    start = text.find(pieces[0])
    end = start + len(pieces[0])
    for piece in pieces[1:]:
        if start < 0:
            break
        found = text.find(piece, end, end + _GAP_CHARACTERS + len(piece))
        if found < 0:
            return -1
        end = found + len(piece)
    return start
