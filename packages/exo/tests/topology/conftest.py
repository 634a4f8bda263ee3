"""A machine made of files: empty folders for /dev, /proc and /sys, and no command that works."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event

import pytest

from exo.topology import Reader, Surroundings


def no_command(command: Sequence[str], timeout: float) -> str:
    raise FileNotFoundError(2, "No such file or directory", command[0])


@pytest.fixture
def around(tmp_path: Path) -> Surroundings:
    for name in ("dev", "proc", "sys"):
        (tmp_path / name).mkdir()
    return Surroundings(
        dev=tmp_path / "dev", proc=tmp_path / "proc", sysfs=tmp_path / "sys", platform="linux", run=no_command
    )


@pytest.fixture
def reader() -> Reader:
    return Reader(budget=60, limit=30)


@pytest.fixture
def never() -> Iterator[Event]:
    """An event that is set at the end of the test only: a call that waits for it hangs."""
    event = Event()
    yield event
    event.set()
