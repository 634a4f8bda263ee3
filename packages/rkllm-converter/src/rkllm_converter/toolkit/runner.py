"""Asks for the toolkit, or runs its calls, in the interpreter that has it: a file by itself, for Python 3.9 and up.

    python runner.py probe     which toolkit there is
    python runner.py gpu       whether torch finds a GPU
    python runner.py run       runs the calls on stdin: {"calls": [{"method": ..., "arguments": {...}}]}

The answers are lines of JSON on what was stdout at the start, with empty ones between them. All that the toolkit
prints goes to stderr.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, Callable  # noqa: UP035 - Python 3.9 would take the other one too, but older ones are to be refused by name

Answer = Callable[[Any], None]
_LONGEST = 500


def main(arguments: list[str]) -> None:
    _forget_own_folder()
    answer = _answers()
    if arguments == ["probe"]:
        answer(_probe())
    elif arguments == ["gpu"]:
        answer(_has_gpu())
    else:
        _run(json.load(sys.stdin)["calls"], answer)


def _forget_own_folder() -> None:
    """Python looks for modules beside its script first: ours must not pass for the toolkit's."""
    own = Path(__file__).resolve().parent
    sys.path[:] = [one for one in sys.path if not one or Path(one).resolve() != own]


def _answers() -> Answer:
    """Writes to the stdout of the start, which becomes private: whatever is printed from now on goes to stderr."""
    private = os.dup(1)
    os.dup2(2, 1)
    for stream in (sys.stdout, sys.stderr):  # what a toolkit says must be there after a crash, and never raise
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr] # io.TextIOWrapper
    os.register_at_fork(after_in_child=lambda: os.close(private))  # its workers must not keep the pipe open

    def answer(value: Any) -> None:
        os.write(private, b"\n" + json.dumps(value).encode() + b"\n")  # whatever else has been written there

    return answer


def _probe() -> dict[str, Any]:
    found: dict[str, Any] = {
        "python": list(sys.version_info[:2]),
        "prefix": sys.prefix,
        "version": _version("rkllm-toolkit"),
        "stranger": _version("rkllm"),
        "module": None,
        "problem": None,
        "is_stand_in": False,
    }
    if found["version"] is None:
        found["module"] = _place("rkllm")
        return found
    try:
        api = importlib.import_module("rkllm.api")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever goes wrong there is the answer
        traceback.print_exc()
        found["problem"] = _message(error)
        return found
    if not callable(getattr(api, "RKLLM", None)):
        found["problem"] = "AttributeError: rkllm.api has no class RKLLM"
    found["is_stand_in"] = getattr(api, "STAND_IN", False) is True
    return found


def _has_gpu() -> bool:
    try:
        return bool(importlib.import_module("torch").cuda.is_available())
    except (Exception, SystemExit):  # noqa: BLE001 - no torch, or one that does not work here: no GPU
        traceback.print_exc()
        return False


def _run(calls: list[dict[str, Any]], answer: Answer) -> None:
    method = "RKLLM"
    try:
        toolkit = importlib.import_module("rkllm.api").RKLLM()
        for call in calls:
            method = call["method"]
            answer({"began": method})
            result = getattr(toolkit, method)(**call["arguments"])
            if not (type(result) is int and result == 0):  # False is an int too
                answer({"failed": method, "problem": f"it returned {result!r:.200}, not 0"})
                return
    except (Exception, SystemExit) as error:  # noqa: BLE001 - told to the other side, with the traceback in the log
        traceback.print_exc()
        answer({"failed": method, "problem": _message(error)})
        return
    answer({"done": True})


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _place(module: str) -> str | None:
    """Where such a module would be imported from."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    return spec.origin or next(iter(spec.submodule_search_locations or []), None)


def _message(error: BaseException) -> str:
    lines = "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()
    short = lines if len(lines) < 2 else [lines[0], "...", lines[-1]]
    return " ".join(short)[:_LONGEST]


if __name__ == "__main__":
    main(sys.argv[1:])
