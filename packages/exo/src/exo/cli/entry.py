"""How a command begins and ends: its arguments, its exit code, and readers that have gone away."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import select
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from exo.types import ExoError

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it: 128 and the number of the signal."""
_NOBODY_READS = 141
"""As of a program that SIGPIPE has ended."""
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""With those that turn the direction of a text."""


def run_command(name: str, work: Callable[[], int]) -> int:
    """The exit code of `work`; 2 with one sentence on stderr for an ExoError, 130 after Ctrl-C.

    141, without a word, if whoever read stdout or stderr has gone away, as in `list | head -1`. What the caller has
    closed, as by `>&-`, counts as /dev/null.
    """
    _replace_closed()
    try:
        try:
            return work()
        except ExoError as error:
            print(f"{name}: {visible(error.message)}", file=sys.stderr)
            return 2
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        if not lose_broken_outputs():  # it is about something else
            raise
        if not isinstance(error, BrokenPipeError):
            print(f"{name}: The output cannot be written: {error.strerror}.", file=sys.stderr)
            return 2
        return _NOBODY_READS


def visible(text: str) -> str:
    """With control characters escaped, except ends of lines: a file's content or a name must not steer a terminal."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def _replace_closed() -> None:
    """Python has None for what is closed, and the next file that is opened gets its number: in this order, these do."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for good


def lose_broken_outputs() -> list[TextIO]:
    """Let what cannot be written go to /dev/null, else Python complains of it when it ends. Returns those outputs."""
    return [output for output in (sys.stdout, sys.stderr) if _is_broken(output)]


def _is_broken(output: TextIO) -> bool:
    try:
        output.flush()  # does nothing for an output without a buffer (PYTHONUNBUFFERED), so more is asked below
        os.write(output.fileno(), b"")  # no byte, which fails on a full device
        if not _is_closed(output.fileno()):
            return False
    except io.UnsupportedOperation:  # not a file
        return False
    except OSError:
        pass
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, output.fileno())
    os.close(nowhere)
    return True


def _is_closed(pipe: int) -> bool:
    """Whether nobody can read any more."""
    poll = select.poll()
    poll.register(pipe, 0)
    return bool(poll.poll(0))


class CommandParser(argparse.ArgumentParser):
    """Of one command: flags may stand between its words and behind them, and it says itself what it does not know."""

    _within = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse's, which would leave words behind a flag to the parser of the whole program."""
        if self._within:
            return super().parse_known_args(args, namespace)
        with self._being_within():
            if self._takes_the_rest():
                found, unknown = super().parse_known_args(args, namespace)
            else:
                found, unknown = self.parse_known_intermixed_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def _takes_the_rest(self) -> bool:
        """As the parser of a plugin's command may, which has commands of its own."""
        return any(action.nargs in (argparse.PARSER, argparse.REMAINDER) for action in self._get_positional_actions())

    @contextlib.contextmanager
    def _being_within(self) -> Iterator[None]:
        self._within = True  # parse_known_intermixed_args calls parse_known_args
        try:
            yield
        finally:
            self._within = False
