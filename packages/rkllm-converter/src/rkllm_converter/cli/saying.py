"""Printing for people. What comes from models, hubs and toolkits may hold anything."""

from __future__ import annotations

import os
import sys
from typing import TextIO

__all__ = ["mend_streams", "say", "visible"]


def say(text: str, stream: TextIO | None = None) -> None:
    """Print on stdout, or on `stream`. Somebody who no longer reads ends nothing: a conversion may have taken hours."""
    chosen = stream or sys.stdout
    try:
        print(visible(text), file=chosen, flush=True)
    except (OSError, ValueError):  # closed, or a pipe without a reader; nor may Python complain of it at its end
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 2 if chosen is sys.stderr else 1)
        os.close(devnull)


def visible(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in text)


def mend_streams() -> None:
    """Streams that were closed lead nowhere, and no character is one too many for them."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_WRONLY)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - for as long as this runs
        getattr(sys, name).reconfigure(errors="backslashreplace")
