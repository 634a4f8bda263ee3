"""Child processes that end with the process that has started them, however that ends."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["spawn"]

_PR_SET_PDEATHSIG = 1


def spawn(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """A child that the kernel kills when the calling thread is gone. `options` are those of Popen, with text.

    To be called from the main thread: the signal comes when the thread ends, not the process.
    """
    return subprocess.Popen(  # noqa: S603 - the commands are ours
        command,
        text=True,
        encoding="utf-8",
        errors="replace",
        preexec_fn=_dying_with_parent(),  # noqa: PLW1509 - one call of the C library, which was loaded before
        **options,
    )


def _dying_with_parent() -> Callable[[], None]:
    """Linux only, as the toolkit is; elsewhere it does nothing."""
    import ctypes  # noqa: PLC0415 - it opens a library when it is imported

    prctl = getattr(ctypes.CDLL(None), "prctl", None)

    def arrange() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return arrange
