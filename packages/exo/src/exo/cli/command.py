"""What a plugin registers to add a command."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Protocol

Action = Callable[[argparse.Namespace, Mapping[str, str]], int]


class Command(Protocol):
    """A further command, registered under its name in the entry-point group `exo.commands`."""

    help: str

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments."""

    def run(self, flags: argparse.Namespace, env: Mapping[str, str]) -> int:
        """Do it; returns the exit code. An ExoError is printed, and the exit code is then 2."""
