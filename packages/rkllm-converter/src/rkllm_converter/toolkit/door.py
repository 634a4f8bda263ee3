"""The one way to the toolkit: a child process in the interpreter that has it.

The toolkit is never imported here. It wants a Python and packages of its own, prints as it likes, takes the memory of
the whole model, and may crash.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from rkllm_converter.children import spawn
from rkllm_converter.errors import CallFailed, ToolkitDied, ToolkitMissing
from rkllm_converter.toolkit.calls import Call

__all__ = ["Found", "find", "has_gpu", "run"]

_RUNNER = Path(__file__).with_name("runner.py")
_TAIL_BYTES = 8192
_TAIL_LINES = 12
_GOODBYE = 60.0
"""Seconds that the toolkit has to clean up when all its calls are done."""

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\S\n]+$", re.MULTILINE)
_HOW_TO_INSTALL = (
    "Install the wheel from Rockchip's release page of rknn-llm (x86_64 Linux, CPython 3.9 to 3.12), in a Python of "
    "its own if need be, and name that Python with --toolkit-python."
)
_HINTS = {
    "SIGKILL": "Most likely this machine ran out of memory: free some, or add swap.",
    "SIGILL": "This CPU lacks an instruction that the toolkit or torch was compiled for.",
}


@dataclass(frozen=True, slots=True)
class Found:
    """A Python and the toolkit that is in it. `version` need not be one that is known here."""

    python: str
    python_version: tuple[int, int]
    version: str
    is_stand_in: bool


def find(python: str | None = None) -> Found:
    """Which toolkit that interpreter has, by default the one that runs this. Imports the toolkit, which takes seconds.

    Raises ToolkitMissing, and ToolkitDied if the import ends the process.
    """
    chosen = python or sys.executable
    answer = _ask(chosen, "probe")
    version, problem = answer["version"], answer["problem"]
    if version is None:
        raise ToolkitMissing(_missing(chosen, answer["stranger"], answer["module"]))
    if problem is not None:
        raise ToolkitMissing(
            f"{chosen} has the toolkit {version}, but it cannot be used: {problem}. {_mend(answer['stranger'])}"
        )
    major, minor = answer["python"]
    return Found(chosen, (major, minor), version, answer["is_stand_in"])


def has_gpu(found: Found) -> bool:
    """Whether the torch beside the toolkit finds a GPU. Takes seconds."""
    return bool(_ask(found.python, "gpu"))


def run(found: Found, calls: Sequence[Call], *, log: Path, began: Callable[[str], None]) -> None:
    """Run all calls in one process, and keep what the toolkit prints in `log`. `began` is told each method's name.

    Raises CallFailed and ToolkitDied. Nothing that happens after the last call is an error.
    """
    with log.open("wb") as stream, _child(found.python, "run", stdin=subprocess.PIPE, stderr=stream) as child:
        _tell(child, {"calls": [asdict(one) for one in calls]})
        method = "its beginning"
        for answer in _answers(child):
            if "began" in answer:
                method = answer["began"]
                began(method)
            elif "failed" in answer:
                raise CallFailed(answer["failed"], _failed(found, answer, log))
            else:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(_GOODBYE)
                return
        raise ToolkitDied(
            f"The toolkit {found.version} {_end(child.wait(), method)} All that it said is in {log}. "
            f"The last lines:\n{_tail(log.read_bytes())}"
        )


def _ask(python: str, question: str) -> Any:
    with (
        tempfile.TemporaryFile() as said,
        _child(python, question, stdin=subprocess.DEVNULL, stderr=said) as child,
    ):
        for answer in _answers(child):
            return answer
        code = child.wait()
        said.seek(0)
        tail = _tail(said.read())
    if code < 0:
        raise ToolkitDied(f"{python} {_end(code, 'importing the toolkit')} The last lines:\n{tail}")
    last = tail.splitlines()[-1:] or ["no message"]
    raise ToolkitMissing(f"{python} is no Python that could have the toolkit: {last[0]}. {_HOW_TO_INSTALL}")


@contextlib.contextmanager
def _child(python: str, task: str, *, stdin: int, stderr: IO[bytes]) -> Iterator[subprocess.Popen[str]]:
    """Is gone afterwards, whatever happens here."""
    try:
        child = spawn([python, str(_RUNNER), task], stdin=stdin, stdout=subprocess.PIPE, stderr=stderr)
    except OSError as error:
        raise ToolkitMissing(
            f"{python} cannot be started: {error.strerror}. Name a Python that has the toolkit."
        ) from error
    with child:
        try:
            yield child
        finally:
            child.kill()


def _tell(child: subprocess.Popen[str], job: dict[str, Any]) -> None:
    if child.stdin is not None:
        with contextlib.suppress(BrokenPipeError), child.stdin as stdin:  # if it is gone already, its answers say so
            json.dump(job, stdin)


def _answers(child: subprocess.Popen[str]) -> Iterator[Any]:
    for line in child.stdout or ():  # each is short, and comes by one write: there are no halves
        yield json.loads(line)


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


def _failed(found: Found, answer: dict[str, str], log: Path) -> str:
    return (
        f"{answer['failed']} of the toolkit {found.version} failed: {answer['problem']}. All that it said is in {log}. "
        f"The last lines:\n{_tail(log.read_bytes())}"
    )


def _end(code: int, place: str) -> str:
    if code >= 0:
        return f"ended by itself in {place} (exit code {code}), without an answer."
    try:
        name = signal.Signals(-code).name
    except ValueError:  # real-time signals have no names
        name = f"signal {-code}"
    hint = f" {_HINTS[name]}" if name in _HINTS else ""
    return f"was ended by {name} in {place}.{hint}"


def _tail(said: bytes) -> str:
    """The last lines, without colours and empty ones; of a progress bar its last state."""
    text = _ESCAPES.sub("", said[-_TAIL_BYTES:].decode("utf-8", "replace"))
    lines = [line.rpartition("\r")[2] for line in text.split("\n")]
    return "\n".join([line for line in lines if line.strip()][-_TAIL_LINES:])
