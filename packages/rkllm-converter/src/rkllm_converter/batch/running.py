"""Runs the conversions of a batch, one process for each, and keeps going after a failure."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rkllm_converter.batch.child import Stop, run
from rkllm_converter.batch.keys import arguments
from rkllm_converter.batch.log import logging_to
from rkllm_converter.batch.models import Conversion, Models
from rkllm_converter.batch.outcome import GOOD, NOT_BEGUN, STOPPED, Outcome, outcome_of
from rkllm_converter.batch.showing import Show
from rkllm_converter.errors import FolderError

__all__ = ["PROGRAM", "Manner", "command", "locked", "run_all", "stoppable"]

_SAFE: tuple[str, ...] = ("-P",) if sys.version_info >= (3, 11) else ()
PROGRAM: Sequence[str] = (sys.executable, *_SAFE, "-m", "rkllm_converter")
"""-P: what lies in the current folder is not to be taken for a module."""

_LOCK = ".rkllm-convert.lock"
_LOGS = ".logs"
"""In the folder of the results, where neither can be taken for a model: a model's name begins with no dot."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a batch is run.

    `toolkit_python` has the toolkit, None: who converts knows; `log` is the folder of the logs, None: in the output.
    """

    program: Sequence[str] = field(default_factory=lambda: PROGRAM)
    toolkit_python: str | None = None
    log: Path | None = None
    is_dry: bool = False
    fails_fast: bool = False
    is_forced: bool = False
    stop: Stop = field(default_factory=Stop)


def command(models: Models, conversion: Conversion, manner: Manner) -> list[str]:
    """Of one conversion."""
    return [
        *manner.program,
        "model",
        f"--model={conversion.model}",
        f"--output={models.folder(conversion)}",
        *arguments(conversion.options),
        *([f"--toolkit-version={models.toolkit}"] if models.toolkit else []),
        *([f"--toolkit-python={manner.toolkit_python}"] if manner.toolkit_python is not None else []),
        *(["--dry-run"] if manner.is_dry else []),
        "--force" if manner.is_forced else "--if-changed",
        "--json",
    ]


def run_all(models: Models, conversions: Sequence[Conversion], manner: Manner, show: Show) -> list[Outcome]:
    """An outcome for each, in their order, whatever happens to one of them."""
    outcomes: list[Outcome] = []
    for number, conversion in enumerate(conversions, start=1):
        has_failed = any(one.status not in GOOD for one in outcomes)
        if manner.stop.signal is not None or (manner.fails_fast and has_failed):
            folder = str(models.folder(conversion))
            outcomes.append(Outcome(conversion.name, NOT_BEGUN, folder, model=conversion.model))
            continue
        show.began(number, len(conversions), conversion.name)
        outcomes.append(_one(models, conversion, manner, show))
        show.ended(outcomes[-1])
    return outcomes


def _one(models: Models, conversion: Conversion, manner: Manner, show: Show) -> Outcome:
    asked, folder, last = command(models, conversion, manner), str(models.folder(conversion)), ""
    with logging_to(_log_path(models, conversion, manner), show.told) as log:
        log.write(f"== {time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(asked)}")

        def heard(line: str) -> None:
            nonlocal last
            last = line
            log.write(line)
            show.heard(line)

        ended = run(asked, heard=heard, stop=manner.stop)
    found = outcome_of(
        conversion.name,
        folder,
        model=conversion.model,
        code=ended.code,
        answer=ended.answer,
        last_words=last,
        seconds=ended.seconds,
        log=log.path,
    )
    if manner.stop.signal is not None and found.status not in GOOD:
        return Outcome(found.name, STOPPED, folder, seconds=found.seconds, log=found.log, model=found.model)
    return found


def _log_path(models: Models, conversion: Conversion, manner: Manner) -> Path | None:
    """None for a dry run, which is to write nothing, unless logs were asked for."""
    if manner.log is None and manner.is_dry:
        return None
    return (manner.log or models.output / _LOGS) / f"{conversion.name}.log"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one batch at a time works on a folder of results. Raises FolderError.

    The file stays: who removed it could remove the lock of another.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise FolderError(f"{folder}: it cannot be written to: {error.strerror or error}.") from None
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.read(number, 20).decode("ascii", "replace").strip()
            raise FolderError(
                f"{folder}: another batch is at work there{f', process {who}' if who.isdigit() else ''}. Let it end, "
                "or stop it; then run this again."
            ) from None
        except OSError as error:
            raise FolderError(f"{folder}: its file system has no locks: {error.strerror or error}.") from None
        os.ftruncate(number, 0)
        os.pwrite(number, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(number)


@contextlib.contextmanager
def stoppable(stop: Stop) -> Iterator[None]:
    """What ends programs tells `stop`, and nothing is raised. In the main thread only."""
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
