"""Telling programs and tables from prose."""

from __future__ import annotations

import pytest

from exo.routing.program import has_statement, is_data_line, is_program_line


@pytest.mark.parametrize(
    "line",
    [
        "def f(x):",
        "    return x[0]",
        "for (var i = 0; i < n; i++) {",
        "} else {",
        "x += 1",
        "select a from b where c",
        "#include <a.h>",
    ],
)
def test_lines_of_programs(line: str) -> None:
    assert is_program_line(line)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "for the party i need a plan:",
        "let a = b. then a2 = ab, so a and b are the same thing.",
        "import my contacts from the old phone please",
        "sort each line into a department (sales, staff, post):",
        "what does len() do in python?",
        "给每条评论打标签(好评/差评):",
    ],
)
def test_lines_of_prose(line: str) -> None:
    assert not is_program_line(line)


@pytest.mark.parametrize(
    ("line", "data"),
    [
        ('{"name": "eva"}', True),
        ("a,b,c,d", True),
        ("| a | b |", True),
        ("eggs, milk, bread, and the rest of the list", False),
        ("苹果,橘子,香蕉,梨", False),
        ("小张去;小王去;小刘不去;小陈不去", False),
    ],
)
def test_lines_of_data(line: str, *, data: bool) -> None:
    assert is_data_line(line) is data


def test_a_statement_within_prose() -> None:
    assert has_statement("my loop never ends: while i < 10: print(i)")
    assert has_statement("when x == 3 it stops")
    assert has_statement("total = sum(values) is wrong")
    assert not has_statement("n = 2k, so n2 = 4k2 = 2(2k2)")
    assert not has_statement("my day never ends: while i work, others sleep")
