"""The source of a Go template as texts and actions, and actions as tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

__all__ = ["Action", "SyntaxProblem", "Token", "items_of", "short"]


class SyntaxProblem(Exception):
    """The source is no template; `line` counts from 1."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(f"line {line}: {what}")


Kind: TypeAlias = Literal["constant", "variable", "field", "dot", "word", "sign"]


class Token(NamedTuple):
    kind: Kind
    text: str
    value: Any
    is_apart: bool
    """There is white space before it."""


class Action(NamedTuple):
    line: int
    tokens: list[Token]


_BLANK = " \t\r\n"
_COMMENT = re.compile(r"/\*(.*?)\*/(?=}}|[ \t\r\n]-}})", re.DOTALL)
_SPACE = re.compile(r"[ \t\r\n]*")
_TOKEN = re.compile(
    r"""(?P<quoted>"(?:\\.|[^"\\\n])*")
    |(?P<raw>`[^`]*`)
    |(?P<char>'(?:\\.|[^'\\\n])*')
    |(?P<number>[+-]?(?:0[xXbBoO][0-9a-fA-F_]+|[0-9][0-9_]*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+))
    |(?P<variable>\$\w*)
    |(?P<field>\.[^\W\d]\w*)
    |(?P<dot>\.)
    |(?P<word>[^\W\d]\w*)
    |(?P<sign>:=|[=|(),])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))", re.DOTALL)
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"} | {c: c for c in "\\'\""}
_WORDS = {"true": True, "false": False, "nil": None}
_KINDS: dict[str, Kind] = {"variable": "variable", "field": "field", "dot": "dot", "word": "word", "sign": "sign"}


def items_of(source: str) -> Iterator[str | Action]:
    """Texts and actions, with the white space taken away where `{{-` and `-}}` say so."""
    at, line, trims = 0, 1, False
    while (start := source.find("{{", at)) >= 0:
        text = source[at:start]
        line += text.count("\n")
        inner = start + 2
        if source.startswith("-", inner) and source[inner + 1 : inner + 2] in (*_BLANK,):
            yield _trimmed(text, begin=trims, end=True)
            inner += 2
        else:
            yield _trimmed(text, begin=trims, end=False)
        comment = _COMMENT.match(source, inner)
        if comment:
            trims = not source.startswith("}}", comment.end())
            at = comment.end() + (4 if trims else 2)
        else:
            if source.startswith("/*", inner):
                raise SyntaxProblem(line, "the comment that begins here is not closed with */}}")
            tokens, at, trims = _tokens(source, inner, line)
            yield Action(line, tokens)
        line += source.count("\n", start, at)
    yield _trimmed(source[at:], begin=trims, end=False)


def _trimmed(text: str, *, begin: bool, end: bool) -> str:
    text = text.lstrip(_BLANK) if begin else text
    return text.rstrip(_BLANK) if end else text


def _tokens(source: str, at: int, line: int) -> tuple[list[Token], int, bool]:
    """The tokens of an action, where the source goes on, and whether white space is taken away there."""
    found: list[Token] = []
    while True:
        begun, at = at, _space_end(source, at)
        if source.startswith("}}", at):
            return found, at + 2, False
        if at > begun and source.startswith("-}}", at):
            return found, at + 3, True
        match = _TOKEN.match(source, at)
        if match is None:
            if at == len(source):
                raise SyntaxProblem(line, "the {{ of this line is not closed")
            raise SyntaxProblem(line, f"{source[at : at + 20].splitlines()[0]!r} is not understood")
        try:
            found.append(_token(match, is_apart=at > begun))
        except (ValueError, OverflowError) as error:
            raise SyntaxProblem(line, f"{short(match[0])} is not understood: {error}") from error
        at = match.end()


def _space_end(source: str, at: int) -> int:
    match = _SPACE.match(source, at)
    return match.end() if match else at


def _token(match: re.Match[str], *, is_apart: bool) -> Token:
    """Raises ValueError for a constant that cannot be."""
    text, kind = match[0], str(match.lastgroup)
    if kind == "raw":
        return Token("constant", text, text[1:-1].replace("\r", ""), is_apart)
    if kind in ("quoted", "char"):
        value = _ESCAPE.sub(_unescaped, text[1:-1])
        if kind == "char" and len(value) != 1:
            raise ValueError("one character stands between single quotes")
        return Token("constant", text, ord(value) if kind == "char" else value, is_apart)
    if kind == "number":
        return Token("constant", text, _number(text), is_apart)
    if kind == "word" and text in _WORDS:
        return Token("constant", text, _WORDS[text], is_apart)
    return Token(_KINDS[kind], text, None, is_apart)


def _number(text: str) -> int | float:
    if re.fullmatch(r"[+-]?(?:0[xXbBoO].*|[0-9_]+)", text):
        value = int(text, 0)
        if not -(2**63) <= value < 2**64:
            raise ValueError("it has more than 64 bits")
        return value
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("it is too large")
    return number


def _unescaped(match: re.Match[str]) -> str:
    byte, four, eight, octal, letter = match.groups()
    if letter is not None:
        if letter not in _ESCAPED:
            raise ValueError(f"there is no escape \\{letter}")
        return _ESCAPED[letter]
    number = int(octal, 8) if octal else int(byte or four or eight, 16)
    is_half = 0xD800 <= number < 0xE000
    if is_half or ((byte or octal) and number > 0x7F):
        raise ValueError(f"{match[0]} is no character; write it as it is, or with \\u")
    return chr(number)


def short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."
