"""`rkllm-convert verify`: whether folders are what their conversion.json says."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rkllm_converter.errors import VerifyFailed
from rkllm_converter.result.verify import verify

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
        except VerifyFailed as error:
            failed = 1
            print("\n".join(f"rkllm-convert: {line}" for line in error.message.splitlines()), file=sys.stderr)
        else:
            size = sum(one.bytes for one in record.files.values()) / 2**20
            print(
                f"{folder}: {len(record.files)} files, {size:,.1f} MB, as they were made with toolkit {record.toolkit}"
            )
            if record.is_stand_in:
                print(f"{folder}: a stand-in has made it: for the simulator only, no NPU runs it", file=sys.stderr)
    return failed
