"""`rkllm-convert verify`: whether folders are what their conversion.json says."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rkllm_converter.cli.saying import say
from rkllm_converter.errors import VerifyFailed
from rkllm_converter.result.verify import verify
from rkllm_converter.units import MB, mb

__all__ = ["add_to"]


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    parser = commands.add_parser(
        "verify",
        help="check the files of a result",
        description="Reads every file of a result and compares its SHA-256.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.set_defaults(action=_verify)


def _verify(flags: argparse.Namespace) -> int:
    failed = 0
    for folder in flags.folders:
        try:
            record = verify(folder)
        except (VerifyFailed, OSError) as error:
            failed = 1
            say("\n".join(f"rkllm-convert: {line}" for line in str(error).splitlines()), sys.stderr)
            continue
        size = mb(sum(one.bytes for one in record.files.values()) / MB)
        say(f"{folder}: {len(record.files)} files, {size}, as they were made with toolkit {record.toolkit}")
        if record.is_stand_in:
            say(f"{folder}: a stand-in has made it: for the simulator only, no NPU runs it", sys.stderr)
    return failed
