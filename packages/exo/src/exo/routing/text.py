"""Text as cues see it: lower case, without accents, in sentences and words."""

from __future__ import annotations

import re
import unicodedata

IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff"
"""Of Chinese and Japanese, where no spaces part the words."""
_WORD = re.compile(rf"[^\W\d_{IDEOGRAPHS}]+|\d+(?:[.,:]\d+)*")
_MARKS = re.compile("[\u0300-\u036f]+")
_IDEOGRAPH = re.compile(f"[{IDEOGRAPHS}]")
_END = re.compile(
    rf"([.!?\u2026]{{1,9}}(?=[\s)]|$)|\u3002{{1,9}}|(?<=[{IDEOGRAPHS})])[!?;]{{1,9}}"
    rf"|\n+|(?<=[{IDEOGRAPHS}]) +(?=[{IDEOGRAPHS}]))"
)
_BLANKS = re.compile(r"[^\S\n]{9,}")
_FEW_BLANKS = " " * 8
"""As many as tell a program by its indentation; more would only take time."""
_LONGER = 3
"""How many times longer a text may become by being written out. Some signs stand for a whole phrase."""
_QUOTES = str.maketrans({"\u2019": "'", "\u2018": "'"})


def bounded(text: str, end: int) -> str:
    """The first and the last `end` characters, half as many of ideographs, which say as much."""
    if has_ideographs(text[:end]):
        end //= 2
    part = text if len(text) <= 2 * end else f"{text[:end]}\n\n{text[-end:]}"
    return _BLANKS.sub(_FEW_BLANKS, part)


def simplified(text: str) -> str:
    """Lower case, without accents, full-width signs as plain ones; "ß" is "ss"."""
    if not text.isascii():
        plain = unicodedata.normalize("NFKD", text)[: _LONGER * len(text)]
        text = _MARKS.sub("", plain).translate(_QUOTES)
    return text.casefold()


def words_of(text: str) -> tuple[str, ...]:
    """The words and numbers, without those that are written in ideographs."""
    return tuple(_WORD.findall(text))


def has_ideographs(text: str) -> bool:
    return not text.isascii() and _IDEOGRAPH.search(text) is not None


def count_ideographs(text: str) -> int:
    return 0 if text.isascii() else len(_IDEOGRAPH.findall(text))


def length_in_words(text: str) -> int:
    """Two ideographs count as a word."""
    return len(words_of(text)) + count_ideographs(text) // 2


def sentences_of(text: str) -> list[tuple[str, bool]]:
    """Each sentence and whether it is a question."""
    pieces = _END.split(text)
    found = []
    for piece, end in zip(pieces[::2], [*pieces[1::2], ""]):
        stripped = piece.strip()
        if stripped:
            found.append((stripped, "?" in end or stripped.endswith("?")))
    return found
