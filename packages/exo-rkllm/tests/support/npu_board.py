"""A simulated board for tests: libraries of every ABI, models, the call log, and faults that can be switched."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rkllm_facts.abi import SUPPORTED
from rkllm_sim.build import build
from rkllm_sim.model import write_model

ABIS = SUPPORTED
NEWEST = SUPPORTED[-1]
_POLL = 0.01


@functools.cache
def _folder() -> Path:
    """One folder for each test session."""
    folder = Path(tempfile.mkdtemp(prefix="npu-board-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def library(abi: str = NEWEST) -> Path:
    """The simulated librkllmrt.so, compiled once for each test session."""
    return build(abi, _folder() / abi)


class SimBoard:
    """Environment, model store and records of one test. `env` is what a node or a worker is started with."""

    def __init__(self, folder: Path, abi: str = NEWEST) -> None:
        self.abi = abi
        self.home = folder / "rkllama"
        self.store = self.home / "models"
        self.store.mkdir(parents=True)
        self.root = folder / "root"  # an empty machine: no /proc, no /sys
        self.root.mkdir()
        self._log = folder / "calls.jsonl"
        self._faults = folder / "faults"
        self._faults.write_text("")
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "RKLLM_LIB": str(library(abi)),
            "RKLLM_ROOT": str(self.root),
            "RKLLAMA_HOME": str(self.home),
            "RKLLM_SIM_LOG": str(self._log),
            "RKLLM_SIM_FAULTS_FILE": str(self._faults),
        }

    def add_model(self, folder: str = "m", /, *, modelfile: str = "", **options: Any) -> Path:
        """Write a model that every ABI loads; returns its `.rkllm`. `modelfile` is added to its Modelfile."""
        path = write_model(self.store / folder, **{"toolkit": "1.1.4", **options})
        with (path.parent / "Modelfile").open("a") as file:
            file.write(modelfile)
        return path

    def set_faults(self, *faults: str) -> None:
        """From now on, for the next load and the next run."""
        self._faults.write_text("".join(f"{fault}\n" for fault in faults))

    def calls(self, name: str | None = None, event: str | None = None) -> list[dict[str, Any]]:
        """The call log so far, oldest first."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        calls = [json.loads(line) for line in lines]
        return [
            call
            for call in calls
            if (name is None or call["call"] == name) and (event is None or call.get("event") == event)
        ]

    def runs(self) -> list[dict[str, Any]]:
        """Every rkllm_run that has begun: what it was called with, and, once it has returned, how it went."""
        found: list[dict[str, Any]] = []
        open_runs: dict[int, dict[str, Any]] = {}
        for call in self.calls("rkllm_run"):
            if call["event"] == "enter":
                open_runs[call["pid"]] = dict(call)
                found.append(open_runs[call["pid"]])
            else:
                open_runs[call["pid"]].update(call)
        return found

    def wait_for(self, condition: Callable[[], Any], timeout: float = 10.0) -> None:
        until = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < until, f"not within {timeout:g} seconds; the calls were {self.calls()[-5:]}"
            time.sleep(_POLL)
