"""The command `rkllm-convert`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import cast

from rkllm_converter import __version__
from rkllm_converter.cli import batch, model, stand_in, verify
from rkllm_converter.errors import ConvertError, Refused
from rkllm_facts.errors import FactsError

__all__ = ["main", "make_parser"]

_REFUSED, _FAILED = 2, 1
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 1 for a failure; 2 for what was refused before anything was done."""
    flags = make_parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    action = cast("Callable[[argparse.Namespace], int]", flags.action)
    try:
        return action(flags)
    except (ConvertError, FactsError) as error:
        print("\n".join(f"rkllm-convert: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return _REFUSED if isinstance(error, Refused | FactsError) else _FAILED
    except KeyboardInterrupt:
        print("rkllm-convert: interrupted; nothing half made was left.", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # `rkllm-convert ... | head`; the rest of the output goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        print(f"rkllm-convert: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        return _FAILED


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rkllm-convert",
        description="From a model of Hugging Face to a folder that rkllama serves on a Rockchip NPU.",
    )
    parser.add_argument("--version", action="version", version=f"rkllm-convert {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    model.add_to(commands)
    batch.add_to(commands)
    verify.add_to(commands)
    stand_in.add_to(commands)
    return parser


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - what a handler is given
    """SIGTERM ends a conversion as Ctrl-C does, cleaning up."""
    raise KeyboardInterrupt
