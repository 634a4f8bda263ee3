"""The place of a result: it grows in a hidden folder beside its own, and gets its name at the very end.

For an output `models/NAME` there are, while it is made:

- `models/.NAME.rkllm-work`: the calibration data and the toolkit's log; locked by the process that works on NAME, and
  kept after a failure, for the log
- `models/.NAME.rkllm-partial`: the files of the result
- `models/.NAME.rkllm-old`: what was there before, for the moment between two renames; the next run finishes what was
  begun

Folders with a leading dot are no models for rkllama, so none of these is ever listed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from rkllm_converter.errors import FolderError, VerifyFailed
from rkllm_converter.result.names import MODELFILE
from rkllm_converter.result.record import FILE_NAME, Record, hash_file, read_record

__all__ = ["Staging", "check_output", "recover", "staging"]

_LOG = "toolkit.log"
_KEPT = "Modelfile.before"
_WORK, _PARTIAL, _OLD = ".rkllm-work", ".rkllm-partial", ".rkllm-old"


class Staging:
    """The folders of one result. Made by `staging`. `replace`: an earlier result may go."""

    def __init__(self, output: Path, *, replace: bool = False) -> None:
        self.output = output
        self.work = output.with_name(f".{output.name}{_WORK}")
        self.partial = output.with_name(f".{output.name}{_PARTIAL}")
        self._old = output.with_name(f".{output.name}{_OLD}")
        self._replace = replace

    @property
    def has_left_overs(self) -> bool:
        """Whether a killed run, or one that is still at it, has left something."""
        return any(folder.exists() for folder in (self.work, self.partial, self._old))

    @property
    def log(self) -> Path:
        """Where the output of the toolkit goes."""
        return self.work / _LOG

    def recover(self) -> None:
        """Clean up what an interrupted run has left, but for the log of a failure."""
        if self._old.exists():
            if self.output.exists():
                self._forget_old()
            else:
                self._old.rename(self.output)
        if self.partial.exists():
            shutil.rmtree(self.partial)
        self._leave_the_log()

    def begin(self) -> None:
        """An empty folder for the result's files."""
        self.log.unlink(missing_ok=True)
        self.partial.mkdir()

    def place(self) -> None:
        """The result gets its name, as a whole, also if the power fails in between. Raises FolderError."""
        for path in self.partial.rglob("*"):
            _sync(path)
        _sync(self.partial)
        check_output(self.output, replace=self._replace)  # somebody may have put something there meanwhile
        try:
            if self.output.is_dir() and any(self.output.iterdir()):
                self.output.rename(self._old)
            self.partial.rename(self.output)
        except BaseException:  # also a Ctrl-C: the earlier result gets its name again
            if self._old.exists() and not self.output.exists():
                self._old.rename(self.output)
            raise
        _sync(self.output.parent)
        if self._old.exists():
            self._forget_old()
        self.log.unlink(missing_ok=True)  # what is kept after a failure only

    def discard(self) -> None:
        """After a failure: nothing but the log is left."""
        shutil.rmtree(self.partial, ignore_errors=True)
        self._leave_the_log()

    def finish(self) -> None:
        shutil.rmtree(self.work)

    def _forget_old(self) -> None:
        """Remove the earlier result; what a person has put into it goes into the new one."""
        record = read_record(self._old)
        for entry in sorted(self._old.iterdir(), key=lambda entry: entry.name == MODELFILE):
            if record is None or not _is_of(record, entry):
                entry.rename(_free(self.output / entry.name))
            elif entry.name == MODELFILE and hash_file(entry) != record.files[MODELFILE].sha256:
                entry.rename(_free(self.output / _KEPT))
        shutil.rmtree(self._old)

    def _leave_the_log(self) -> None:
        for entry in self.work.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != _LOG:
                entry.unlink()


@contextlib.contextmanager
def staging(output: Path, *, replace: bool = False) -> Iterator[Staging]:
    """The folders of a result, for one process at a time. Raises FolderError."""
    here = Staging(_absolute(output), replace=replace)
    try:
        here.output.parent.mkdir(parents=True, exist_ok=True)
        lock = _locked(here.work, here.output)
    except OSError as error:
        raise FolderError(f"{error.filename or here.output.parent} cannot be written: {error.strerror}.") from error
    try:
        here.recover()
        yield here
    finally:
        with contextlib.suppress(OSError):  # it holds a log; or it is gone, and somebody else's may be in its place
            if os.path.samestat(os.fstat(lock), here.work.stat()):
                here.work.rmdir()
        os.close(lock)


def recover(output: Path) -> None:
    """Clean up what a killed run has left, if it has left anything. Raises FolderError, also if one is still at it."""
    if Staging(_absolute(output)).has_left_overs:
        with staging(output):
            pass


def check_output(output: Path, *, replace: bool) -> None:
    """Raises FolderError if something is in the way; only a folder that a conversion has made is ever replaced."""
    whole = _absolute(output)
    if not whole.name:
        raise FolderError(f"{output} cannot be a result. Name a folder in it with --output.")
    if any(part.endswith((_WORK, _PARTIAL, _OLD)) for part in whole.parts) or (whole.parent / FILE_NAME).exists():
        raise FolderError(f"{output} would be inside another result. Name a folder beside that with --output.")
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise FolderError(f"{output} is there and is no folder. Name another one with --output.")
    if not output.exists() or not any(output.iterdir()):
        return
    if not (output / FILE_NAME).is_file():
        raise FolderError(f"{output} is not empty, and no conversion has made it. Name another folder with --output.")
    if not replace:
        raise FolderError(f"{output} is there already. Add --force to convert again, or name another --output.")
    try:
        read_record(output)
    except VerifyFailed as error:
        raise FolderError(
            f"{error.message} What is yours in there cannot be told from the rest: remove {output}, or name another "
            "--output."
        ) from error


def _absolute(output: Path) -> Path:
    return Path(os.path.abspath(output))  # noqa: PTH100 - a link that is the output's name stays one


def _locked(work: Path, output: Path) -> int:
    """A descriptor of the folder `work` that holds the lock on it. Raises FolderError if another process has it."""
    while True:
        work.mkdir(exist_ok=True)
        descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise FolderError(f"{output} is being made by another process. Wait for it, or end it.") from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), work.stat()):
                return descriptor
        os.close(descriptor)  # whoever had the lock before has removed the folder


def _is_of(record: Record, entry: Path) -> bool:
    """Whether a conversion has made it: files and folders that are named there, as such."""
    if entry.is_symlink():
        return False
    if entry.is_dir():
        return any(name.startswith(f"{entry.name}/") for name in record.files)
    return entry.is_file() and (entry.name == FILE_NAME or entry.name in record.files)


def _free(path: Path) -> Path:
    """The path, with a number behind it if something is there."""
    numbered, number = path, 1
    while numbered.exists() or numbered.is_symlink():
        number += 1
        numbered = path.with_name(f"{path.name}.{number}")
    return numbered


def _sync(path: Path) -> None:
    mode = path.lstat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
