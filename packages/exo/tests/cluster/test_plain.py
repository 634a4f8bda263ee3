from __future__ import annotations

import pytest

from exo.cluster.plain import plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("qwen3 4b", "qwen3 4b"),
        ("\x1b]0;owned\x07red\x1b[31m", "]0;owned red [31m"),
        ("one\r\ntwo\u2028three\x9b1m", "one two three 1m"),
        ("\u202eevil", "evil"),
        ("", ""),
        ("x" * 300, "x" * 199 + "…"),
    ],
)
def test_a_line_that_does_nothing_to_a_terminal(text: str, shown: str) -> None:
    assert plain(text) == shown
    assert plain(text).isprintable()
