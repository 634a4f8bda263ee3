"""The tokens that a tokenizer.json adds to its vocabulary: where they stand, and how other text is kept from them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

__all__ = ["AddedToken", "AddedTokens", "Piece"]

_BLANKS = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
"""White space as the tokenizers library sees it: Unicode's White_Space, which is not quite Python's."""
_BLANKS_AFTER = re.compile(f"[{_BLANKS}]*")
_WORD = re.compile(r"\w")

Piece = tuple[str, int | None]
"""A piece of text and the id of the added token that it is, or None for plain text."""


class AddedToken(msgspec.Struct, frozen=True):
    """As in tokenizer.json. `lstrip` and `rstrip`: the white space before and after it belongs to the token."""

    id: int
    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True
    special: bool = False

    @property
    def is_text(self) -> bool:
        """Whether it only abbreviates text, such as a run of blanks: then it stands for what a user may write too."""
        return not self.special and (len(self.content) == 1 or not self.content.strip("▁").strip())


class AddedTokens:
    """Finds added tokens as the tokenizers library does: leftmost, longest, those not `normalized` before the others.

    One difference: `normalized` ones are looked for in the text as it is written, not in the normalised one.
    """

    def __init__(self, tokens: Iterable[AddedToken]) -> None:
        by_text = {token.content: token for token in tokens if token.content}
        self.ids: Mapping[str, int] = {text: token.id for text, token in by_text.items()}
        self.texts: Mapping[int, str] = {token.id: text for text, token in by_text.items()}
        self.special_ids = frozenset(token.id for token in by_text.values() if token.special)
        self.guarded_ids = frozenset(token.id for token in by_text.values() if not token.is_text)
        """Ids that text of a user never becomes."""
        self._stages = _stages(by_text.values())
        self._text_stages = _stages(token for token in by_text.values() if token.is_text)
        guarded = [text for text, token in by_text.items() if not token.is_text and len(text) > 1]
        self._guarded = re.compile(_pattern(guarded)) if guarded else None
        self._beginnings = frozenset(text[:size] for text in guarded for size in range(1, len(text)))
        self._longest = max(map(len, guarded), default=0)

    def split(self, text: str) -> list[Piece]:
        """Cut at every added token."""
        return _cut(text, self._stages)

    def split_text(self, text: str) -> list[Piece]:
        """Cut only at those that stand for text."""
        return _cut(text, self._text_stages)

    def break_up(self, text: str) -> list[str]:
        """Cut every guarded token's text after its first character, so that no piece holds one."""
        return [piece for piece in self.protect(text, "\0").split("\0") if piece] if "\0" not in text else list(text)

    def protect(self, text: str, sentinel: str) -> str:
        """Put `sentinel` into each guarded token's text, after its first character, so that none is found any more.

        Also at the end of a text that ends with the beginning of one, which what follows might complete. `sentinel` is
        a character that occurs nowhere in `text`. A token of a single character cannot be protected.
        """
        if self._guarded is None:
            return text
        count = 1
        while count:  # again: a token that overlapped with another one may be left
            text, count = self._guarded.subn(lambda match: match[0][0] + sentinel + match[0][1:], text)
        if any(text[-size:] in self._beginnings for size in range(1, min(self._longest, len(text) + 1))):
            text += sentinel
        return text


class _Stage:
    """One pass over the text, for tokens that are looked for together."""

    def __init__(self, tokens: Sequence[AddedToken]) -> None:
        self._tokens = {token.content: token for token in tokens}
        self._pattern = re.compile(_pattern(self._tokens))

    def cut(self, text: str) -> Iterator[Piece]:
        done = 0
        for match in self._pattern.finditer(text):
            token = self._tokens[match[0]]
            start, stop = match.span()
            if token.single_word and (_WORD.match(text[start - 1 : start]) or _WORD.match(text, stop)):
                continue
            if token.lstrip:
                start = done + len(text[done:start].rstrip(_BLANKS))
            if token.rstrip:
                blanks = _BLANKS_AFTER.match(text, stop)
                stop = blanks.end() if blanks else stop
            if done < start:
                yield text[done:start], None
            yield text[start:stop], token.id
            done = stop
        if done < len(text):
            yield text[done:], None


def _stages(tokens: Iterable[AddedToken]) -> list[_Stage]:
    tokens = list(tokens)
    stages = [token for token in tokens if not token.normalized], [token for token in tokens if token.normalized]
    return [_Stage(stage) for stage in stages if stage]


def _cut(text: str, stages: Sequence[_Stage]) -> list[Piece]:
    pieces: list[Piece] = [(text, None)] if text else []
    for stage in stages:
        pieces = [new for old in pieces for new in (stage.cut(old[0]) if old[1] is None else (old,))]
    return pieces


def _pattern(texts: Iterable[str]) -> str:
    """A regular expression for the longest of `texts`: shared beginnings once, for there may be hundreds of texts."""
    root: dict[str, Any] = {}
    for text in texts:
        node = root
        for char in text:
            node = node.setdefault(char, {})
        node[""] = {}
    return _branches(root)


def _branches(node: Mapping[str, Any]) -> str:
    found = [re.escape(char) + _branches(below) for char, below in node.items() if char]
    if not found:
        return ""
    joined = found[0] if len(found) == 1 and "" not in node else f"(?:{'|'.join(found)})"
    return f"{joined}?" if "" in node else joined
