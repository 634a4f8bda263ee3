"""The real command runner."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from exo.topology import Surroundings


def test_the_defaults_are_the_real_machine() -> None:
    around = Surroundings()
    assert (around.dev, around.proc, around.sysfs) == (Path("/dev"), Path("/proc"), Path("/sys"))
    assert around.platform == sys.platform


def test_a_command_gives_what_it_printed() -> None:
    code = "import sys; sys.stdout.buffer.write(b'one \\xff')"
    assert Surroundings().run([sys.executable, "-c", code], 60) == "one �"


def test_a_command_does_not_read_what_is_typed_at_the_node() -> None:
    code = (
        "import sys; from exo.topology import Surroundings\n"
        "print(Surroundings().run([sys.executable, '-c', 'print(input())'], 60))"
    )
    done = subprocess.run([sys.executable, "-c", code], input="typed", capture_output=True, text=True, check=False)
    assert "typed" not in done.stdout
    assert "CalledProcessError" in done.stderr


def test_a_command_that_fails() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        Surroundings().run([sys.executable, "-c", "raise SystemExit(3)"], 60)


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Surroundings().run([str(tmp_path / "none")], 60)


def test_a_command_that_hangs_is_killed() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        Surroundings().run([sys.executable, "-c", "import time; time.sleep(3600)"], 0.2)
