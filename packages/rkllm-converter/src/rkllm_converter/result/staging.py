"""The place of a result: it grows in a hidden folder beside its own, and gets its name at the very end.

For an output `models/NAME` there are, while it is made:

- `models/.NAME.work`: the calibration data and the toolkit's log; locked by the process that works on NAME, and kept
  after a failure, for the log
- `models/.NAME.partial`: the files of the result
- `models/.NAME.old`: what was there before, for the moment between two renames; the next run puts it back if NAME is
  missing

Folders with a leading dot are no models for rkllama, so none of these is ever listed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from rkllm_converter.errors import FolderError
from rkllm_converter.result.record import FILE_NAME, hash_file, read_record

__all__ = ["LOG", "Staging", "check_output", "recover", "staging"]

LOG = "toolkit.log"
_MODELFILE = "Modelfile"
_KEPT = "Modelfile.before"


class Staging:
    """The folders of one result. Made by `staging`."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.work = output.with_name(f".{output.name}.work")
        self.partial = output.with_name(f".{output.name}.partial")
        self._old = output.with_name(f".{output.name}.old")

    @property
    def has_left_overs(self) -> bool:
        """Whether a killed run, or one that is still at it, has left something."""
        return any(folder.exists() for folder in (self.work, self.partial, self._old))

    @property
    def log(self) -> Path:
        """Where the output of the toolkit goes."""
        return self.work / LOG

    def recover(self) -> None:
        """Clean up what an interrupted run has left."""
        if self._old.exists():
            if self.output.exists():
                shutil.rmtree(self._old)
            else:
                self._old.rename(self.output)
        if self.partial.exists():
            shutil.rmtree(self.partial)
        for entry in self.work.iterdir():
            entry.unlink()

    def begin(self) -> None:
        """An empty folder for the result's files."""
        self.partial.mkdir()

    def place(self) -> None:
        """The result gets its name, as a whole, also if the power fails in between."""
        _carry_over(self.output, self.partial)
        for path in self.partial.rglob("*"):
            _sync(path)
        _sync(self.partial)
        if self.output.is_dir() and any(self.output.iterdir()):
            self.output.rename(self._old)
        self.partial.rename(self.output)
        _sync(self.output.parent)
        if self._old.exists():
            shutil.rmtree(self._old)

    def discard(self) -> None:
        """After a failure: nothing but the log is left."""
        shutil.rmtree(self.partial, ignore_errors=True)
        for entry in self.work.iterdir():
            if entry.name != LOG:
                entry.unlink()

    def finish(self) -> None:
        shutil.rmtree(self.work)


@contextlib.contextmanager
def staging(output: Path) -> Iterator[Staging]:
    """The folders of a result, for one process at a time. Raises FolderError."""
    here = Staging(_absolute(output))
    try:
        here.output.parent.mkdir(parents=True, exist_ok=True)
        lock = _locked(here.work, here.output)
    except OSError as error:
        raise FolderError(f"{error.filename or here.output.parent} cannot be written: {error.strerror}.") from error
    try:
        here.recover()
        yield here
    finally:
        if here.work.exists() and not any(here.work.iterdir()):
            here.work.rmdir()
        os.close(lock)


def recover(output: Path) -> None:
    """Clean up what a killed run has left, if it has left anything. Raises FolderError, also if one is still at it."""
    here = Staging(_absolute(output))
    if here.has_left_overs:
        with staging(output):
            pass


def _absolute(output: Path) -> Path:
    return Path(os.path.abspath(output))  # noqa: PTH100 - a link that is the output's name stays one


def check_output(output: Path, *, replace: bool) -> None:
    """Raises FolderError if something is in the way; only a folder that a conversion has made is ever replaced."""
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise FolderError(f"{output} is there and is no folder. Name another one with --output.")
    if not output.exists() or not any(output.iterdir()):
        return
    if not (output / FILE_NAME).is_file():
        raise FolderError(f"{output} is not empty, and no conversion has made it. Name another folder with --output.")
    if not replace:
        raise FolderError(f"{output} is there already. Add --force to convert again, or name another --output.")


def _locked(work: Path, output: Path) -> int:
    """A descriptor of the folder `work` that holds the lock on it. Raises FolderError if another process has it."""
    while True:
        work.mkdir(exist_ok=True)
        descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise FolderError(f"{output} is being made by another process. Wait for it, or end it.") from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), work.stat()):
                return descriptor
        os.close(descriptor)  # whoever had the lock before has removed the folder


def _carry_over(before: Path, after: Path) -> None:
    """What a person has put into the folder stays there; a Modelfile that was changed is kept beside the new one."""
    record = read_record(before) if before.is_dir() else None
    if record is None:
        return
    for entry in before.iterdir():
        ours = entry.name in record.files or entry.name == FILE_NAME
        if not ours and not (after / entry.name).exists():
            _copy(entry, after / entry.name)
    modelfile = before / _MODELFILE
    written = record.files.get(_MODELFILE)
    if modelfile.is_file() and written and hash_file(modelfile) != written.sha256:
        shutil.copy2(modelfile, after / _KEPT)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target, follow_symlinks=False)


def _sync(path: Path) -> None:
    if path.is_symlink():
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
