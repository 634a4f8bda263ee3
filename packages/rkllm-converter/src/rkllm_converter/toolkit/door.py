"""The one way to the toolkit: a child process in the interpreter that has it.

The toolkit is never imported here. It wants a Python and packages of its own, prints as it likes, takes the memory of
the whole model, and may crash. It gets a session of its own, so that whatever it starts ends with it. Only if this
process is killed (SIGKILL) does the kernel end the one child alone, and what that has started may live on.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, TypedDict

from rkllm_converter.children import ending, exit_code, kill_group, spawn
from rkllm_converter.errors import CallFailed, ToolkitDied, ToolkitMissing
from rkllm_converter.toolkit.calls import Call
from rkllm_converter.toolkit.environment import environment

__all__ = ["Found", "find", "has_gpu", "run"]

_RUNNER = Path(__file__).with_name("runner.py")
_TAIL_BYTES = 8192
_TAIL_LINES = 12
_GOODBYE = 60.0
"""Seconds that the toolkit has to clean up when all its calls are done."""
_PATIENCE = 120.0
"""Seconds for an answer: the import of torch alone reads gigabytes, maybe from a slow disk."""

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\S\n]+$", re.MULTILINE)
_HOW_TO_INSTALL = (
    "Install the wheel from Rockchip's release page of rknn-llm (x86_64 Linux, CPython 3.9 to 3.12), in a Python of "
    "its own if need be, and name that Python with --toolkit-python."
)


class _Probed(TypedDict):
    """What the runner answers to `probe`. `stranger`: the version of the index's rkllm; `module`: where one lies."""

    python: list[int]
    prefix: str
    version: str | None
    stranger: str | None
    module: str | None
    problem: str | None
    is_stand_in: bool


class _Step(TypedDict, total=False):
    """What it answers to `run`: one of the first three, and a `problem` with `failed`."""

    began: str
    failed: str
    done: bool
    problem: str


_STEPS = (("began",), ("failed", "problem"), ("done",))


@dataclass(frozen=True, slots=True)
class Found:
    """A Python and the toolkit that is in it.

    - `python`: its whole path
    - `version`: need not be one that is known here
    - `folder`: of the environment, with the packages in it
    """

    python: str
    python_version: tuple[int, int]
    version: str
    is_stand_in: bool
    folder: Path


def find(python: str | None = None) -> Found:
    """Which toolkit that interpreter has, by default the one that runs this. Imports the toolkit, which takes seconds.

    Raises ToolkitMissing, and ToolkitDied if the import ends the process or has no end.
    """
    chosen = _absolute(python) if python else sys.executable
    answer: _Probed = _ask(chosen, "probe", "importing the toolkit", dict)
    version, problem = answer["version"], answer["problem"]
    if version is None:
        raise ToolkitMissing(_missing(chosen, answer["stranger"], answer["module"]))
    if problem is not None:
        raise ToolkitMissing(
            f"{chosen} has the toolkit {version}, but it cannot be used: {problem}. {_mend(answer['stranger'])}"
        )
    major, minor = answer["python"]
    return Found(chosen, (major, minor), version, answer["is_stand_in"], Path(answer["prefix"]))


def has_gpu(found: Found) -> bool:
    """Whether the torch beside the toolkit finds a GPU. Takes seconds."""
    return bool(_ask(found.python, "gpu", "asking torch for a GPU", bool))


def run(found: Found, calls: Sequence[Call], *, log: Path, began: Callable[[str], None]) -> None:
    """Run all calls in one process, and keep what the toolkit prints in `log`. `began` is told each method's name.

    It runs where `log` is, since toolkits write files to wherever they are. Raises CallFailed and ToolkitDied. Nothing
    that happens after the last call is an error.
    """
    with (
        log.open("wb") as stream,
        _child(found.python, "run", stdin=subprocess.PIPE, stderr=stream, cwd=log.absolute().parent) as child,
    ):
        _tell(child, {"calls": [asdict(one) for one in calls]})
        method = "its beginning"
        for answer in _steps(child):
            if "began" in answer:
                method = answer["began"]
                began(method)
            elif "failed" in answer:
                raise CallFailed(answer["failed"], _failed(found, answer, log))
            else:
                exit_code(child, _GOODBYE)
                return
        raise ToolkitDied(f"The toolkit {found.version} {ending(_code(child), method)} {_last_words(log)}")


def _absolute(python: str) -> str:
    """A bare name is looked for here, once, so that one and the same Python is used and told of."""
    at = python if os.sep in python else shutil.which(python)
    return str(Path(at).absolute()) if at else python


def _ask(python: str, question: str, place: str, kind: type[dict[str, Any] | bool]) -> Any:
    """The answer of the runner, as JSON of that kind. `place` is what it does meanwhile."""
    with (
        tempfile.TemporaryFile() as said,
        _child(python, question, stdin=subprocess.DEVNULL, stderr=said) as child,
    ):
        try:
            answer = _first_answer(child, kind, time.monotonic() + _PATIENCE)
        except TimeoutError:
            raise ToolkitDied(
                f"{python} gave no answer within {_PATIENCE:.0f} seconds, {place}. Try again: what "
                f"was read once from a slow disk comes faster. The last lines:\n{_tail(said)}"
            ) from None
        if answer is not None:
            return answer
        code = _code(child)
        tail = _tail(said)
    if code < 0:
        raise ToolkitDied(f"{python} {ending(code, place)} The last lines:\n{tail}")
    last = tail.splitlines()[-1:] or ["no message"]
    raise ToolkitMissing(f"{python} is no Python that could have the toolkit: {last[0]}. {_HOW_TO_INSTALL}")


@contextlib.contextmanager
def _child(
    python: str, task: str, *, stdin: int, stderr: IO[bytes], cwd: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Is gone afterwards with all that it has started, whatever happens here."""
    try:
        child = spawn(
            [python, str(_RUNNER), task],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            cwd=cwd,
            env=environment(),
        )
    except OSError as error:
        raise ToolkitMissing(
            f"{python} cannot be started: {error.strerror}. Name a Python that has the toolkit."
        ) from error
    with child:
        try:
            yield child
        finally:
            kill_group(child)


def _tell(child: subprocess.Popen[str], job: dict[str, Any]) -> None:
    if child.stdin is not None:
        with contextlib.suppress(BrokenPipeError), child.stdin as stdin:  # if it is gone already, its answers say so
            json.dump(job, stdin)


def _steps(child: subprocess.Popen[str]) -> Iterator[_Step]:
    """Its answers to `run`. Whatever else the toolkit has written there is none."""
    for line in child.stdout or ():
        answer = _parsed(line)
        if isinstance(answer, dict) and any(_is_step(answer, *names) for names in _STEPS):
            yield _Step(**answer)  # type: ignore[typeddict-item] # its names and types were looked at


def _is_step(answer: Mapping[str, Any], *names: str) -> bool:
    return answer.keys() == {*names} and all(isinstance(one, str) or one is True for one in answer.values())


def _first_answer(child: subprocess.Popen[str], kind: type[dict[str, Any] | bool], end: float) -> Any:
    """Of that kind; None if there is none by the time it has ended. Raises TimeoutError."""
    assert child.stdout is not None  # noqa: S101 - it is a pipe
    number, begun = child.stdout.fileno(), b""
    while select.select([number], [], [], max(end - time.monotonic(), 0))[0]:
        data = os.read(number, _TAIL_BYTES)
        *lines, begun = (begun + data).split(b"\n")
        for answer in map(_parsed, lines):
            if isinstance(answer, kind) and (
                isinstance(answer, bool) or answer.keys() == _Probed.__annotations__.keys()
            ):
                return answer
        if not data:
            return None
    raise TimeoutError


def _parsed(line: str | bytes) -> Any:
    """None for what is no JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _code(child: subprocess.Popen[str]) -> int:
    """Of one that has closed its answers."""
    return exit_code(child) or 0


def _missing(python: str, stranger: str | None, module: str | None) -> str:
    if stranger is not None:
        return (
            f"{python} has the package rkllm {stranger} of the Python index, which is not Rockchip's toolkit "
            f"(that one is called rkllm-toolkit, and is not in the index). Uninstall it. {_HOW_TO_INSTALL}"
        )
    if module is not None:
        return (
            f"{python} would import rkllm from {module}, but has no package rkllm-toolkit: its version is not known. "
            f"Take that away. {_HOW_TO_INSTALL}"
        )
    return f"{python} has no rkllm-toolkit. {_HOW_TO_INSTALL}"


def _mend(stranger: str | None) -> str:
    if stranger is None:
        return "Install what it needs: the requirements are beside the wheel."
    return (
        f"The package rkllm {stranger} of the Python index is in its way: uninstall both, then install the wheel of "
        "Rockchip's release page again."
    )


def _failed(found: Found, answer: _Step, log: Path) -> str:
    return f"{answer['failed']} of the toolkit {found.version} failed: {answer['problem']}. {_last_words(log)}"


def _last_words(log: Path) -> str:
    with log.open("rb") as said:
        return f"All that it said is in {log}. The last lines:\n{_tail(said)}"


def _tail(said: IO[bytes]) -> str:
    """The last lines, without colours and empty ones; of a progress bar its last state."""
    said.seek(max(said.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
    text = _ESCAPES.sub("", said.read(_TAIL_BYTES).decode("utf-8", "replace"))
    lines = [line.rpartition("\r")[2] for line in text.split("\n")]
    return "\n".join([line for line in lines if line.strip()][-_TAIL_LINES:])
