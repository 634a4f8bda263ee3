"""The command `rkllm-convert`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import cast

from rkllm_converter import __version__
from rkllm_converter.cli import batch, model, stand_in, verify
from rkllm_converter.cli.parser import Parser
from rkllm_converter.cli.saying import mend_streams, say
from rkllm_converter.errors import ConvertError, Refused
from rkllm_facts.errors import FactsError

__all__ = ["main", "make_parser"]

_REFUSED, _FAILED = 2, 1
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 1 for a failure; 2 for options, a models.yaml or a pre-flight that was refused."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    mend_streams()
    try:
        flags = make_parser().parse_args(argv)
        action = cast("Callable[[argparse.Namespace], int]", flags.action)
        return action(flags)
    except (ConvertError, FactsError) as error:
        _complain(str(error))
        return _REFUSED if isinstance(error, Refused | FactsError) else _FAILED
    except KeyboardInterrupt:
        _complain("interrupted; nothing half made was left.")
        return _INTERRUPTED
    except OSError as error:
        _complain(f"{error.filename or 'the system'}: {error.strerror or error}")
        return _FAILED


def _complain(text: str) -> None:
    say("\n".join(f"rkllm-convert: {line}" for line in text.splitlines()), sys.stderr)


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
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
    """SIGTERM and a terminal that is closed end a conversion as Ctrl-C does, cleaning up."""
    raise KeyboardInterrupt
