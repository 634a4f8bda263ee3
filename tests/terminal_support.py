"""A command on a pseudo-terminal of its own, as a person sits before it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import final

import psutil

from support import environment, wait_until

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""A control sequence of a terminal."""
_SIT_DOWN = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
"""Makes stdin the terminal whose Ctrl-C the command gets."""


@final
class Terminal:
    """A context manager that always ends the command."""

    def __init__(self, *command: str | Path, columns: int = 80, env: Mapping[str, str] | None = None) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        own = {name: value for name, value in environment().items() if name not in ("COLUMNS", "LINES")}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SIT_DOWN, *map(str, command)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env=own | {"TERM": "xterm"} | dict(env or {}),
        )
        os.close(theirs)
        self.raw = ""
        """All that was shown so far, with control sequences."""
        self._seen = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    @property
    def shown(self) -> str:
        """All that was shown so far, without control sequences."""
        return CONTROL.sub("", self.raw).replace("\r\n", "\n")

    def wait_for(self, text: str, *, timeout: float = 60) -> None:
        """Until `text` is shown behind what was waited for before."""
        deadline = time.monotonic() + timeout
        while text not in self.shown[self._seen :]:
            assert time.monotonic() < deadline, f"{text!r} is not shown:\n{self.raw!r}"
            assert self._read(deadline), f"ended before {text!r} was shown:\n{self.raw!r}"
        self._seen = self.shown.index(text, self._seen) + len(text)

    def type(self, text: str) -> None:
        """Once the command waits for it: Ctrl-C drops what is typed but not yet read."""
        waiting = (psutil.STATUS_SLEEPING, psutil.STATUS_IDLE)
        process = psutil.Process(self._process.pid)
        wait_until(lambda: process.status() in waiting, timeout=20, what="the command waits")
        os.write(self._ours, text.encode())

    def end(self, *, timeout: float = 60) -> int:
        """The exit code of a command that ends by itself."""
        deadline = time.monotonic() + timeout
        while self._read(deadline):
            assert time.monotonic() < deadline, f"does not end:\n{self.raw!r}"
        return self._process.wait(timeout)

    def _read(self, deadline: float) -> bool:
        """False once nobody has the other end."""
        with contextlib.suppress(OSError):  # the end of a terminal is an error
            if not select.select([self._ours], [], [], max(deadline - time.monotonic(), 0))[0]:
                return True
            part = os.read(self._ours, 1 << 16)
            self.raw += part.decode()
            return bool(part)
        return False
