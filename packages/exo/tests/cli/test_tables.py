from __future__ import annotations

from exo.cli.tables import _widths

LINES = [("NAME", "MAX CONTEXT"), ("smollm2-135m", "not in the store")]


def test_columns_are_folded_between_words() -> None:
    assert _widths(LINES, 80) == [12, 16]
    assert _widths(LINES, 30) == [12, 16]
    assert _widths(LINES, 29) == [12, 15]
    assert _widths(LINES, 21) == [12, 7]
    assert _widths(LINES, 20) == [None, None]  # words do not fit
