"""A way to the toolkit without one: it notes what it is asked for, and writes what it is told to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rkllm_converter.errors import ToolkitMissing
from rkllm_converter.preflight import Preflight
from rkllm_converter.prepare import ToolkitDoor
from rkllm_converter.toolkit.calls import Call
from rkllm_converter.toolkit.door import Found

__all__ = ["FakeToolkit", "Told"]


class FakeToolkit:
    """`text` is what it exports, `spoil` does something to that; `problem`: raised by its run; `version` None: none."""

    def __init__(self, version: str | None = "1.3.0", *, text: str = "a model", gpu: bool = False) -> None:
        self.version = version
        self.text = text
        self.gpu = gpu
        self.problem: BaseException | None = None
        self.spoil: Callable[[Path], None] | None = None
        self.dataset = ""
        """What the last run found in its calibration file."""
        self.asked: list[Call] = []

    @property
    def door(self) -> ToolkitDoor:
        return ToolkitDoor(find=self._find, has_gpu=lambda _: self.gpu, run=self._run)

    def _find(self, python: str | None) -> Found:
        if self.version is None:
            raise ToolkitMissing("There is no toolkit.")
        here = Path(sys.executable)
        return Found(python or str(here), (3, 12), self.version, is_stand_in=False, folder=here.parent)

    def _run(self, found: Found, calls: Sequence[Call], *, log: Path, began: Callable[[str], None]) -> None:
        log.write_text("what the toolkit said")
        for call in calls:
            self.asked.append(call)
            began(call.method)
            if call.arguments.get("dataset"):
                self.dataset = Path(call.arguments["dataset"]).read_text(encoding="utf-8")
        path = Path(calls[-1].arguments["export_path"])
        if self.text:
            path.write_text(self.text)
        if self.spoil is not None:
            self.spoil(path)
        if self.problem is not None:
            raise self.problem


class Told:
    """A Watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.notes: list[str] = []
        self.reports: list[Preflight] = []

    def phase(self, words: str) -> None:
        self.phases.append(words)

    def progress(self, done: int, total: int) -> None:
        self.phases.append(f"{done} of {total}")

    def expect(self, report: Preflight) -> None:
        self.reports.append(report)

    def note(self, words: str) -> None:
        self.notes.append(words)
