"""Brings files of a repository into a folder: resumed, checked, and in view."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from exo.models.hub_client import HubClient, HubFile, Interrupted, Patience, Repository
from exo.models.progress import Progress, Report
from exo.types import NotEnoughDisk, PullError

_UNFINISHED = ".part"
_CHUNK = 1 << 20
_PROGRESS_EVERY = 0.1
_MUCH = 1 << 20
"""So many bytes more than any attempt had count as progress: the attempts are counted anew."""
_SPARE = 64 << 20


@dataclass(frozen=True)
class Wanted:
    """A file to bring, and where from. In the folder it has the last part of its path as its name."""

    repository: Repository
    file: HubFile

    @property
    def name(self) -> str:
        return PurePosixPath(self.file.path).name


class Download:
    """Files on their way into `folder`; each keeps a name that says which content it is, until `finish`."""

    def __init__(self, client: HubClient, folder: Path, report: Report) -> None:
        self._client = client
        self._folder = folder
        self._report = report
        self._brought: list[Wanted] = []

    def prepare(self, wanted: list[Wanted]) -> None:
        """Make the folder, remove what is of no use from an earlier pull, and see that the rest fits on the disk."""
        self._folder.mkdir(parents=True, exist_ok=True)
        parts = {self._part(one).name for one in wanted}
        for child in list(self._folder.iterdir()):
            if child.name not in parts:
                remove(child)
        missing = sum(max((one.file.size or 0) - _size(self._part(one)), 0) for one in wanted)
        needed = missing + missing // 20 + _SPARE if missing else 0
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise NotEnoughDisk(
                f"{wanted[0].repository.id} needs {needed} bytes on the disk of {self._folder.parent}, "
                f"and {free} are free. Remove a model, or use another folder for models."
            )

    def bring(self, wanted: Wanted) -> None:
        """Bring the whole file, in as many attempts as it takes. Raises PullError; what has arrived is kept."""
        part = self._part(wanted)
        part.touch()
        try:
            with part.open("r+b") as out:
                self._bring(wanted, out)
                out.flush()
                os.fsync(out.fileno())
        finally:
            if wanted.file.size and not _size(part):
                part.unlink(missing_ok=True)
        self._brought.append(wanted)

    def verify(self) -> None:
        """Compare the files with the hashes of the hub. Raises PullError, and removes the file that differs."""
        for one in self._brought:
            if not one.file.sha256:
                continue
            found = self._sha256(one)
            if found != one.file.sha256:
                self._part(one).unlink(missing_ok=True)
                raise PullError(
                    f"{one.name} of {one.repository.id} arrived damaged: its sha256 is {found}, "
                    f"the hub says {one.file.sha256}. It is removed; pull again."
                )

    def finish(self) -> dict[str, int]:
        """Give the files their names, and remove what came only in part. Returns the names with the sizes in bytes."""
        sizes = {}
        for one in self._brought:
            self._part(one).rename(self._folder / one.name)
            sizes[one.name] = _size(self._folder / one.name)
        for part in self._folder.glob(f"*{_UNFINISHED}"):
            part.unlink()
        return sizes

    def _bring(self, wanted: Wanted, out: BinaryIO) -> None:
        patience = Patience(self._client, wanted.repository.id)
        meter = _Meter(wanted, self._report)
        # A file of unknown length cannot be told from a part of it, so it begins anew.
        out.seek(0, os.SEEK_END if wanted.file.size is not None else os.SEEK_SET)
        out.truncate()
        meter.show(out.tell(), always=True)
        furthest = out.tell()
        while out.tell() != wanted.file.size:
            try:
                self._attempt(wanted, out, meter)
                break
            except Interrupted as failure:
                if out.tell() - furthest >= _MUCH:
                    patience.reset()
                furthest = max(furthest, out.tell())
                if failure.start_over or wanted.file.size is None:
                    out.seek(0)
                    out.truncate()
                patience.failed(failure)
        meter.show(out.tell(), always=True)

    def _attempt(self, wanted: Wanted, out: BinaryIO, meter: _Meter) -> None:
        size = wanted.file.size
        with contextlib.closing(self._client.content(wanted.repository, wanted.file, out.tell())) as pieces:
            for position, piece in pieces:
                if position != out.tell():  # the whole file once more
                    out.seek(position)
                    out.truncate()
                if size is not None and position + len(piece) > size:
                    raise Interrupted(f"the hub sent more than the {size} bytes of {wanted.name}", start_over=True)
                out.write(piece)
                meter.show(out.tell())
        if size is not None and out.tell() < size:
            raise Interrupted(f"{wanted.name} ended after {out.tell()} of {size} bytes")

    def _sha256(self, wanted: Wanted) -> str:
        digest = hashlib.sha256()
        with self._part(wanted).open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                self._client.raise_if_cancelled(wanted.repository.id)
        return digest.hexdigest()

    def _part(self, wanted: Wanted) -> Path:
        return self._folder / f"{wanted.name}.{wanted.file.key}{_UNFINISHED}"


class _Meter:
    """Reports how much of a file is here, not more often than a reader can follow."""

    def __init__(self, wanted: Wanted, report: Report) -> None:
        self._wanted = wanted
        self._report = report
        self._next = 0.0

    def show(self, completed: int, *, always: bool = False) -> None:
        now = time.monotonic()
        if always or now >= self._next:
            self._next = now + _PROGRESS_EVERY
            name = self._wanted.name
            self._report(Progress(f"pulling {name}", file=name, total=self._wanted.file.size, completed=completed))


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
