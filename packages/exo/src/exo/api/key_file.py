"""A key file that is read again whenever it has changed."""

from __future__ import annotations

import logging
import stat
from pathlib import Path
from typing import Protocol

from exo.api.keys import KeyRing
from exo.types import ConfigurationError

logger = logging.getLogger(__name__)
_NO_FILE = ()
"""How a pipe or a folder looks."""


class Keys(Protocol):
    """Keys that may change while the node runs. Without any it is false, and the node asks for none."""

    def __bool__(self) -> bool: ...
    def current(self) -> KeyRing: ...


class KeyFile:
    """The keys of a file, and of the environment. It is always true: whoever names a file wants to be asked for keys.

    A file that cannot be read, or makes no sense, leaves the earlier keys in force; one that holds no key lets nobody
    in. What is no regular file, such as a pipe, is read once.
    """

    def __init__(self, path: Path, others: KeyRing | None = None) -> None:
        """Raises ConfigurationError, also if there is no key at all."""
        self._path = path
        self._others = others or KeyRing()
        self._seen = _look_of(path)  # before it is read: what changes meanwhile is seen the next time
        self._ring = self._read()
        if not self._ring:
            raise ConfigurationError("API keys are asked for, but there is none in the environment or in the key file.")

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"KeyFile({str(self._path)!r})"

    def current(self) -> KeyRing:
        """The keys that count now. One look at the file's attributes, which takes microseconds."""
        look = _look_of(self._path)
        if look != self._seen:
            self._seen = look
            self._read_again()
        return self._ring

    def _read(self) -> KeyRing:
        return self._others.merged(KeyRing.from_file(self._path))

    def _read_again(self) -> None:
        if self._seen == _NO_FILE:  # to read it could take for ever
            _complain(f"The key file {self._path} is no file any more.")
            return
        try:
            self._ring = self._read()
        except ConfigurationError as error:
            _complain(error.message)
            return
        if self._ring:
            logger.info("the key file %s has changed; keys now: %d", self._path, len(self._ring))
        else:
            logger.warning("the key file %s holds no key any more: nobody is let in", self._path)


def _complain(what: str) -> None:
    logger.error("%s The earlier keys stay in force until the file is mended.", what)


def _look_of(path: Path) -> tuple[int, ...] | None:
    """What changes with a file's content, its place or its permissions; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return _NO_FILE
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
