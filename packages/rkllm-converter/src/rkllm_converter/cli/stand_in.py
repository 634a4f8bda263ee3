"""`rkllm-convert stand-in`: a toolkit to try the converter with, where Rockchip's cannot be had."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rkllm_converter.cli.saying import say
from rkllm_converter.standin import write_stand_in
from rkllm_converter.toolkit.versions import NEWEST, TOOLKITS

__all__ = ["add_to"]

_TEXT = """Writes a stand-in for Rockchip's toolkit. It checks what it is asked for as the toolkit is documented to, and
makes models that only the simulator rkllm-sim runs. Use it with PYTHONPATH=DIR rkllm-convert model ..."""


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    parser = commands.add_parser(
        "stand-in", help="write a toolkit to try this with, for the simulator", description=_TEXT
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--toolkit-version", choices=[one.version for one in TOOLKITS], default=NEWEST)
    parser.set_defaults(action=_write)


def _write(flags: argparse.Namespace) -> int:
    say(str(write_stand_in(flags.folder, flags.toolkit_version)))
    return 0
