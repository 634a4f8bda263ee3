"""The command `rkllm-convert batch`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkllm_converter.cli.saying import say
from rkllm_converter.cli.values import toolkit_python
from rkllm_converter.errors import BadModels, FolderError, Refused, ToolkitError, UnknownToolkit

if TYPE_CHECKING:
    from rkllm_converter.batch.models import Models
    from rkllm_converter.batch.outcome import Outcome
    from rkllm_converter.batch.running import Manner

__all__ = ["add_to", "run_batch"]

_DONE, _SOME_FAILED, _REFUSED, _BY_SIGNAL = 0, 1, 2, 128
_TEXT = "Run the conversions that a file lists, one process for each. What is done and unchanged is skipped."
_EXAMPLE = "models.yaml"


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds the command; its action takes the flags and returns the exit code.

    0: all are done, unchanged or planned; 1: some failed; 2: nothing was begun, because of the file, a flag, a toolkit
    that is missing, or another batch that is at work; 128 and its number after a signal.
    """
    batch = commands.add_parser("batch", help="run many conversions, listed in a file", description=_TEXT)
    add = batch.add_argument
    add("file", nargs="?", type=Path, default=Path(_EXAMPLE), metavar="FILE", help=f"default: ./{_EXAMPLE}")
    add("--only", action="append", default=[], metavar="NAME", help="only the conversion of that name; repeatable")
    add("--dry-run", action="store_true", help="only look whether each can be done, and what to expect of it")
    add("--force", action="store_true", help="convert what is done and unchanged again, too")
    add("--fail-fast", action="store_true", help="begin no other conversion after a failure")
    add("--log", type=Path, metavar="DIR", help="where the lines of each are kept (default: .logs in the output)")
    add("--toolkit-python", **toolkit_python())
    add("--toolkit-version", metavar="V", help="call the toolkit as this release of it, whatever the file says")
    add("--json", action="store_true", help="print one JSON object with all results in place of the table")
    add("--example", action="store_true", help="print a file with ten conversions, and do nothing else")
    batch.set_defaults(action=_batch)


def _batch(flags: argparse.Namespace) -> int:
    from rkllm_converter.batch.running import Manner  # noqa: PLC0415 - YAML is not light, and other commands need none

    if flags.example:
        return _example()
    manner = Manner(
        toolkit_python=flags.toolkit_python,
        log=flags.log,
        is_dry=flags.dry_run,
        fails_fast=flags.fail_fast,
        is_forced=flags.force,
    )
    return run_batch(flags.file, manner, only=flags.only, toolkit_version=flags.toolkit_version, prints_json=flags.json)


def run_batch(
    file: Path,
    manner: Manner,
    *,
    only: Sequence[str] = (),
    toolkit_version: str | None = None,
    prints_json: bool = False,
) -> int:
    """The exit code. Raises Refused where nothing was begun. For the main thread, which signals and children need."""
    from rkllm_converter.batch.models import chosen  # noqa: PLC0415 - as above
    from rkllm_converter.batch.reading import read  # noqa: PLC0415 - as above
    from rkllm_converter.batch.running import locked, run_all, stoppable  # noqa: PLC0415 - as above
    from rkllm_converter.batch.showing import Show  # noqa: PLC0415 - as above

    began = time.monotonic()
    try:
        models = read(file, toolkit_version=toolkit_version)
    except BadModels as error:  # as compilers say it, so that editors find the line
        say(error.message, sys.stderr)
        return _REFUSED
    except UnknownToolkit as error:
        raise Refused([f"--toolkit-version: {error.message}"]) from None
    conversions = chosen(models, only)
    if not manner.is_dry:
        _look_for_toolkit(manner.toolkit_python, models.toolkit)
    try:
        lock = nullcontext() if manner.is_dry else locked(models.output)
        with lock, stoppable(manner.stop):
            outcomes = run_all(models, conversions, manner, Show(sys.stderr))
            _print_results(models, outcomes, time.monotonic() - began, manner, prints_json=prints_json)
    except FolderError as error:  # nothing was begun, so it is no failure
        raise Refused([error.message]) from None
    return _exit_code(outcomes, manner)


def _look_for_toolkit(python: str | None, version: str | None) -> None:
    """Once, as without it every conversion would fail. Raises Refused."""
    from rkllm_converter.toolkit.door import find  # noqa: PLC0415 - as above
    from rkllm_converter.toolkit.versions import toolkit  # noqa: PLC0415 - as above

    try:
        found = find(python)
        toolkit(version or found.version)
    except ToolkitError as error:
        raise Refused([error.message]) from error


def _print_results(
    models: Models, outcomes: Sequence[Outcome], seconds: float, manner: Manner, *, prints_json: bool
) -> None:
    from rkllm_converter.batch.showing import summary  # noqa: PLC0415 - as above

    if not prints_json:
        say("\n".join(summary(outcomes)))
        return
    words = {_DONE: "done", _SOME_FAILED: "failed"}
    result = {
        "status": words.get(_exit_code(outcomes, manner), "stopped"),
        "output": str(models.output),
        "seconds": round(seconds, 3),
        "conversions": [one.as_json() for one in outcomes],
    }
    say(json.dumps(result, indent=2))


def _exit_code(outcomes: Sequence[Outcome], manner: Manner) -> int:
    from rkllm_converter.batch.outcome import GOOD  # noqa: PLC0415 - as above

    if manner.stop.signal is not None:
        return _BY_SIGNAL + manner.stop.signal
    return _DONE if all(one.status in GOOD for one in outcomes) else _SOME_FAILED


def _example() -> int:
    from importlib.resources import files  # noqa: PLC0415 - for this flag only

    say((files("rkllm_converter") / _EXAMPLE).read_text(encoding="utf-8").rstrip())
    return _DONE
