"""How a change comes into a model store: one at a time, and in one step.

A new model is written into a hidden folder beside its place and renamed, so that it is never listed half made.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from exo.models.folder import clear, is_known, unlink
from exo.models.store import PARTIAL_SUFFIX, ModelStore
from exo.types import ModelExists, PullError, StoreError

_LOCKS: dict[str, threading.Lock] = {}
"""By the real path of a store's root: for file systems that know no locks."""


@contextlib.contextmanager
def changing(root: Path) -> Iterator[None]:
    """One change of a store at a time, in this process and, where the file system can tell, in others."""
    with _lock_of(root), contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            descriptor = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def pulling(path: Path, name: str) -> Iterator[None]:
    """Hold the lock file `path` while `name` is pulled; it is removed at the end. Raises PullError if it is taken."""
    descriptor = _lock(path, name)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def lock_file(place: Path) -> Path:
    """The file for `pulling` a model into the folder `place`."""
    return place.with_name(f".{place.name}.lock")


def check_free(store: ModelStore, name: str, suffix: str, *, force: bool) -> None:
    """Raises ModelExists if there is a model of that name, with `force` only StoreError if a file is in its place."""
    place = store.folder(name)
    if not force and (os.path.lexists(place) or store.find(name, suffix) is not None):
        raise ModelExists(
            f"{name!r} is there already. Choose another name, or replace it: --force of the command, "
            f'"force": true of the request.'
        )
    if os.path.lexists(place) and not place.is_dir() and not place.is_symlink():
        raise StoreError(f"{place} is a file, no model's folder, and is not replaced. Move it away.")


@contextlib.contextmanager
def new_folder(root: Path, name: str, suffix: str) -> Iterator[Path]:
    """A hidden folder, gone at the end if it has not been moved to its place.

    "~" is in no model's name, so it is never the folder of an unfinished pull. What a killed process left there is
    cleared; if there is something else in it, it stays.
    """
    for number in itertools.count(1):
        folder = root / f".{name}~{number}{PARTIAL_SUFFIX}"
        if not os.path.lexists(folder) or not clear(folder, suffix):
            break
    folder.mkdir()
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            clear(folder, suffix)


def put_in_place(store: ModelStore, new: Path, name: str, suffix: str) -> None:
    """Move a finished folder to the place of a model, under `changing`, after `check_free`.

    Until then the old model is there, from then on the new one. What the store does not know of the old folder comes
    into the new one; the rest of it has the path `new` afterwards.
    """
    place, in_root = store.folder(name), store.find(name, suffix)
    if not os.path.lexists(place):
        new.rename(place)
    else:
        _exchange(new, place)
        if not new.is_symlink():
            _keep_strange(new, place, suffix)
    if in_root is not None and in_root.folder is None:
        unlink(in_root.path)


def recover(place: Path, suffix: str) -> None:
    """Undo or end an exchange in which a process was killed; under `changing`."""
    aside = _aside(place)
    if not os.path.lexists(aside):
        return
    if not os.path.lexists(place):
        aside.rename(place)
        return
    if not aside.is_symlink():
        _keep_strange(aside, place, suffix)
    clear(aside, suffix)


def _keep_strange(old: Path, new: Path, suffix: str) -> None:
    for entry in old.iterdir():
        if not is_known(entry, suffix) and not os.path.lexists(new / entry.name):
            entry.rename(new / entry.name)


def _aside(place: Path) -> Path:
    return place.with_name(f".{place.name}.old")


def _exchange(new: Path, old: Path) -> None:
    """Let two folders change places, in one step where the system can; else `old` comes back if the next step fails."""
    if _exchange_at_once(new, old):
        return
    aside = _aside(old)
    old.rename(aside)
    try:
        new.rename(old)
    except OSError:
        aside.rename(old)
        raise
    aside.rename(new)


def _exchange_at_once(new: Path, old: Path) -> bool:
    """renameat2 of Linux with RENAME_EXCHANGE; False where the C library or the file system has none."""
    import ctypes  # noqa: PLC0415 - only to replace a model

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    at_working_directory, exchange = -100, 2
    # int renameat2(int olddirfd, const char *oldpath, int newdirfd, const char *newpath, unsigned int flags)
    renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    renameat2.restype = ctypes.c_int
    return bool(renameat2(at_working_directory, bytes(new), at_working_directory, bytes(old), exchange) == 0)


def _lock_of(root: Path) -> threading.Lock:
    return _LOCKS.setdefault(os.path.realpath(root), threading.Lock())


def _lock(path: Path, name: str) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise PullError(f"{name} is being pulled already. Wait until that pull has ended.") from None
        except BaseException:  # also Ctrl-C: the lock would stay
            os.close(descriptor)
            raise
        os.close(descriptor)  # whoever held it has removed it meanwhile
