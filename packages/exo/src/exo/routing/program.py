"""Telling programs and tables from prose, line by line."""

from __future__ import annotations

import re

from exo.routing.text import count_ideographs

_START = re.compile(
    r"\s*(?:(?:async )?def \w+\s*\(|class \w+\s*[:({]|import \w[\w.]*;?$|from [\w.]+ import |#include|#!/"
    r"|return\b.*[;()\[\]\w]$|(?:public|private|protected|static|void|const|let|var|func|fn|function|package|using|struct"
    r"|enum|type) [\w<>\[\]*&]+.*[;={(]|(?:int|float|double|char|long|bool|string|auto) \*?\w+\s*[=;\[(]"
    r"|(?:for|while|if|elif|else if|switch|except|catch|with)\b[^?]*(?:[=<>()\[\]]| in )[^?]*[:{]$"
    r"|(?:while|if|elif|except)(?: not)? \w+:$|(?:else|try|do)\s*[:{]$"
    r"|select\s.+\sfrom\s|insert into |update \w+ set |delete from |create (?:table|index|view) |group by |order by "
    r"|(?:inner |left )?join \w+ .*on |[})\]]+[;,)]*$|\$ \w+|@\w+$|traceback \(most recent|file \".*\", line \d+)"
)
_END = re.compile(r"[;{]$|\)\s*:$|=>$")
_SIGN = re.compile(
    r"==|!=|\+=|-=|&&|\|\||=>|:=|\+\+|\);|\w\[\w+\]|\.\w+\(|</\w|/>"
    r"|\b(?:print|printf|len|range)\(|^\s*[\w.\[\]]+\s=\s[\w\"'\[({-]"
)
_STATEMENT = re.compile(
    r"\b(?:select\s.{1,80}\sfrom\s\w|while(?: ?\(| .{1,30}:\s)|for(?: ?\(| \w+ in .{1,30}[:)])|def \w+\("
    r"|if ?\(.{1,40}\)\s*[{\w]|function\s*\w*\(|return [\w(\[-]+[;}\n])"
)
_OPERATION = re.compile(
    r"\[(?<=\w\[)\w+\]|(?:==|!=)(?:(?<=\w[=!]=)|(?<=\w [=!]=)) ?\w|=(?:(?<=\w\w=)|(?<=\w\w\s=))\s?[a-z_]{2}\w*\("
    r"|\+\+(?<=\w\+\+)|\+=|=>|&&"
)
_PROSE_WORD = re.compile(r"(?<![\w.(\[\"'=])[^\W\d_]{2,}(?![\w(\[=])")
_PROSE_END = re.compile(r"\w[.?!]$|[.?!] \w")
_NEEDED = re.compile(r"[;{)=+&|\[<(]")
"""Without any of these, a line that does not begin like one is no line of a program."""
_FEW_WORDS = 6
_NEXT_TO_NONE = 3
_DATA = re.compile(
    r"\s*(?:[{\[]+\s*\"[\w -]+\"\s*:|\"[\w -]+\"\s*:|(?:[^,\s\u3040-\u9fff]+,){3,}\S+$"
    r"|[^;\s\u3040-\u9fff]+(?:;[^;\s\u3040-\u9fff]*){3,}$|[^\t]+(?:\t[^\t]*){2,}$|[^|]+(?: \| [^|]*){2,}$"
    r"|\|.*\|$|<\w+>.*</\w+>)"
)
_LONGEST_LINE = 400


def is_program_line(line: str) -> bool:
    """`line` is simplified."""
    line = line[:_LONGEST_LINE].rstrip()
    if not line:
        return False
    starts = _START.match(line) is not None
    if not starts and (_NEEDED.search(line) is None or _DATA.match(line)):
        return False
    if 3 * count_ideographs(line) > len(line):
        return False
    words = len(_PROSE_WORD.findall(line))
    few_words = words < _FEW_WORDS
    if starts:
        return few_words or not _PROSE_END.search(line)
    return (few_words and _END.search(line) is not None) or (words < _NEXT_TO_NONE and _SIGN.search(line) is not None)


def is_data_line(line: str) -> bool:
    """Of JSON, XML, or a table with four columns at least."""
    line = line[:_LONGEST_LINE]
    return _DATA.match(line) is not None and not _END.search(line)


def has_statement(text: str) -> bool:
    """Whether there is a piece of a program within a line of prose."""
    return _STATEMENT.search(text) is not None or _OPERATION.search(text) is not None
