"""Children that end with their parent, and how an end is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from rkllm_converter.children import ending, spawn


@pytest.mark.slow
def test_a_child_whose_parent_died_before_it_could_ask_for_the_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", "print('at work')"]
    assert spawn(command, stdout=subprocess.PIPE).communicate()[0] == "at work\n"
    monkeypatch.setattr(os, "getpid", lambda: 1)  # as it is for a child that has another parent by then
    orphan = spawn(command, stdout=subprocess.PIPE)
    assert orphan.communicate()[0] == ""
    assert orphan.returncode == 1


@pytest.mark.parametrize(
    ("code", "place", "told"),
    [
        (
            -signal.SIGKILL,
            "",
            "was ended by SIGKILL. Most likely this machine ran out of memory: free some, or add swap.",
        ),
        (-signal.SIGKILL, "build", "was ended by SIGKILL in build. Most likely this machine ran out of memory"),
        (-signal.SIGILL, "build", "was ended by SIGILL in build. This CPU lacks an instruction"),
        (-signal.SIGSEGV, "build", "was ended by SIGSEGV in build."),
        (-40, "", "was ended by signal 40."),
        (3, "build", "ended by itself in build (exit code 3), without an answer."),
        (0, "", "ended by itself (exit code 0), without an answer."),
    ],
)
def test_an_end_is_told_with_its_likely_cause(code: int, place: str, told: str) -> None:
    assert ending(code, place).startswith(told)
    assert ("memory" in ending(code, place)) is (code == -signal.SIGKILL)
