"""Version numbers of librkllmrt, which look like `1.2.1`, or `1.2.1b1` for a beta of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PATTERN = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})(?:b([0-9]{0,4}))?", re.ASCII)


@dataclass(frozen=True, order=True, slots=True)
class Version:
    """Ordered as the releases are: `1.2.1b1` before `1.2.1`. A beta without a number counts as beta 0."""

    major: int
    minor: int
    patch: int
    final: bool = True
    beta: int = 0

    @classmethod
    def parse(cls, text: str) -> Version:
        """Raises ValueError if `text` is no such number; anything around it counts as part of it."""
        found = _PATTERN.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not a version number of librkllmrt; those look like 1.2.1 or 1.2.1b1.")
        major, minor, patch, beta = found.groups()
        return cls(int(major), int(minor), int(patch), final=beta is None, beta=int(beta or 0))

    def __str__(self) -> str:
        beta = "" if self.final else f"b{self.beta or ''}"
        return f"{self.major}.{self.minor}.{self.patch}{beta}"
