"""How mistakes in flags are told: what is wrong, and where to read on, without all the usage before it."""

from __future__ import annotations

import argparse
from typing import NoReturn

__all__ = ["Parser"]

_REFUSED = 2


class Parser(argparse.ArgumentParser):
    """The parsers of its commands are of this kind too."""

    def error(self, message: str) -> NoReturn:
        self.exit(_REFUSED, f"{self.prog}: {message}\nsee {self.prog} --help\n")
