"""What `exo run` shows."""

from __future__ import annotations

import signal

from exo.cli.run import _answer_only, _ctrl_c_ends_the_program, _piece_of, _Terminal
from exo.types import Delta


def test_reasoning_is_shown_in_a_terminal_only() -> None:
    pieces = [Delta(reasoning="Hm."), Delta(reasoning=" So."), Delta(text="Yes"), Delta(text=".")]
    show = _Terminal()
    assert "".join(map(show, pieces)) == "\x1b[2mHm.\x1b[0m\x1b[2m So.\x1b[0m\n\nYes."
    assert "".join(map(_answer_only, pieces)) == "Yes."


def test_a_chunk_of_a_node() -> None:
    line = (
        'data: {"choices": [{"delta": {"reasoning_content": "Hm.", "content": null}}, {"delta": {"content": "Yes"}}]}'
    )
    assert _piece_of(line) == Delta(reasoning="Hm.", text="Yes")


def test_ctrl_c_at_the_prompt_is_the_systems() -> None:
    before = signal.getsignal(signal.SIGINT)
    with _ctrl_c_ends_the_program():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is before
