"""Child processes that end with the process that has started them, however that ends; and how one has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

__all__ = ["ending", "exit_code", "kill_group", "spawn"]

_PR_SET_PDEATHSIG = 1
_TURN = 0.05
"""Seconds between two looks at whether a child has ended."""
_HINTS = {
    "SIGKILL": " Most likely this machine ran out of memory: free some, or add swap.",
    "SIGILL": " This CPU lacks an instruction that the toolkit or torch was compiled for.",
}


def spawn(
    command: Sequence[str],
    *,
    stdin: int | None = None,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    start_new_session: bool = False,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """A child that the kernel kills when the calling thread is gone. The rest is as Popen has it, with text.

    What the child starts itself is not killed by the kernel: give it a session of its own, and end with `kill_group`.
    To be called from the main thread: the signal comes when the thread ends, not the process.
    """
    return subprocess.Popen(  # noqa: S603 - the commands are ours
        command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=start_new_session,
        cwd=cwd,
        env=env,
        text=True,
        encoding="utf-8",
        errors="replace",
        preexec_fn=_dying_with_parent(),  # noqa: PLW1509 - a few calls of the C library, which was loaded before
    )


def exit_code(child: subprocess.Popen[str], timeout: float | None = None) -> int | None:
    """As `Popen.wait` has it, None if it is still running then.

    Leaves it to be waited for: until then its number, which is its group's too, is nobody else's.
    """
    end = None if timeout is None else time.monotonic() + timeout
    if child.returncode is not None:
        return child.returncode
    while (found := os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | (os.WNOHANG if end else 0))) is None:
        if end is not None and time.monotonic() > end:
            return None
        time.sleep(_TURN)
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def kill_group(child: subprocess.Popen[str]) -> None:
    """A child in a session of its own, with all that it has left there. It is gone afterwards, after Ctrl-C too."""
    if child.returncode is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()  # Popen's own end does not wait after Ctrl-C


def ending(code: int, place: str = "") -> str:
    """The rest of a sentence that begins with who it was, for a child without an answer; `code` as of Popen.

    `was ended by SIGKILL in build. Most likely ...`, with `build` as the place.
    """
    inside = f" in {place}" if place else ""
    if code >= 0:
        return f"ended by itself{inside} (exit code {code}), without an answer."
    try:
        name = signal.Signals(-code).name
    except ValueError:  # real-time signals have no names
        name = f"signal {-code}"
    return f"was ended by {name}{inside}.{_HINTS.get(name, '')}"


def _dying_with_parent() -> Callable[[], None]:
    """Linux only, as this package is."""
    import ctypes  # noqa: PLC0415 - it opens a library when it is imported

    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has died since the fork, and no signal will come of it
            os._exit(1)

    return arrange
