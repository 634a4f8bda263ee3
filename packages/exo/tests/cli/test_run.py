"""What `exo run` shows."""

from __future__ import annotations

import signal

from exo.cli.run import _ctrl_c_ends_the_program, _piece_of, _shown
from exo.types import Delta


def test_reasoning_is_shown_in_a_terminal_only() -> None:
    piece = Delta(reasoning="Hm.", text="Yes")
    assert _shown(piece, in_terminal=True) == "\x1b[2mHm.\x1b[0mYes"
    assert _shown(piece, in_terminal=False) == "Yes"
    assert _shown(Delta(text="Yes"), in_terminal=True) == "Yes"


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
