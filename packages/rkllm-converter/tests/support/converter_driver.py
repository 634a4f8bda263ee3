"""Runs `rkllm-convert`, and dies at a chosen place: `converter_driver.py MODULE:NAME before|after ARGUMENTS`.

The function MODULE:NAME of the converter is replaced by one that kills this process with SIGKILL before or after the
real one has run. With `-` for the place nothing is replaced.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

from rkllm_converter.cli.main import main


def arrange(place: str, when: str) -> None:
    module, _, name = place.partition(":")
    owner: Any = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    real = getattr(owner, last)

    def dying(*arguments: Any, **options: Any) -> Any:
        if when == "after":
            real(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, last, dying)


if __name__ == "__main__":
    if sys.argv[1] != "-":
        arrange(sys.argv[1], sys.argv[2])
    raise SystemExit(main(sys.argv[3:]))
