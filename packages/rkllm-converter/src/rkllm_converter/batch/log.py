"""The lines of one conversion, kept in a file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

__all__ = ["Log", "logging_to"]


class Log:
    """`path` is None where nothing is kept.

    A log that cannot be written is said once, to `complain`, and is no reason to end a conversion of hours.
    """

    def __init__(self, path: Path | None, complain: Callable[[str], None]) -> None:
        self.path = str(path) if path else None
        self._complain = complain
        self._stream: TextIO | None = None
        if path is not None:
            with self._excusing():
                path.parent.mkdir(parents=True, exist_ok=True)
                self._stream = path.open("a", encoding="utf-8", errors="backslashreplace")

    def write(self, line: str) -> None:
        if self._stream is not None:
            with self._excusing():
                print(line, file=self._stream, flush=True)

    def close(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            with contextlib.suppress(OSError):  # what is left is what could not be written before
                stream.close()

    @contextlib.contextmanager
    def _excusing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._complain(f"{self.path}: the log cannot be written: {error.strerror or error}.")
            self.path = None
            self.close()


@contextlib.contextmanager
def logging_to(path: Path | None, complain: Callable[[str], None]) -> Iterator[Log]:
    """Adds to the file, as what an earlier run said may still be wanted."""
    log = Log(path, complain)
    try:
        yield log
    finally:
        log.close()
