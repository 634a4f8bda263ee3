"""A batch of real conversions with the stand-in toolkit: a run, a second one, kill -9 and Ctrl-C in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from converter_models import small_model
from converter_processes import wait_for

from rkllm_converter.standin import write_stand_in

pytestmark = pytest.mark.slow

FIRST, SECOND = "tiny-rk3588-w8a8", "tiny-rk3576-w4a16_g32"
MARK = "CONVERTER_TEST_MARK"


class Batch:
    """`folder` has models.yaml, the model, and the toolkit; `out` gets the results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.record = folder / "calls"
        self.toolkit = write_stand_in(folder / "toolkit", "1.3.0")
        small_model(folder / "Tiny")
        self.write_file()

    def write_file(self, *, context: int = 1024) -> None:
        text = f"""\
output: out
defaults: {{max_context: {context}, samples: 2, ignore: [memory, disk]}}
models:
  - model: ./Tiny
    conversions:
      - {{platform: rk3588, quant: w8a8}}
      - {{platform: rk3576, quant: w4a16_g32}}
"""
        (self.folder / "models.yaml").write_text(text, encoding="utf-8")

    def begin(self, *flags: str, **environment: str) -> subprocess.Popen[str]:
        path = os.pathsep.join(one for one in [str(self.toolkit), *sys.path] if one)
        own = {name: value for name, value in os.environ.items() if not name.startswith("RKLLM_")}
        names = {"PYTHONPATH": path, "RKLLM_STANDIN_RECORD": str(self.record), MARK: str(self.folder)}
        return subprocess.Popen(
            [sys.executable, "-m", "rkllm_converter", "batch", str(self.folder / "models.yaml"), "--json", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**own, **names, **environment},
        )

    def run(self, *flags: str) -> dict[str, str]:
        """What became of each conversion."""
        with self.begin(*flags) as process:
            output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        return {one["name"]: one["status"] for one in json.loads(output)["conversions"]}

    @property
    def calls(self) -> list[str]:
        """What the toolkit was asked for, in all runs."""
        if not self.record.exists():
            return []
        return [json.loads(line)["method"] for line in self.record.read_text("utf-8").splitlines()]

    @property
    def listed(self) -> list[str]:
        """What a server would take for models."""
        return sorted(one.name for one in self.out.iterdir() if not one.name.startswith("."))

    def processes(self) -> list[int]:
        """All that this batch has begun, and what these have begun."""
        mark, found = f"{MARK}={self.folder}".encode(), []
        for one in Path("/proc").iterdir():
            try:
                if one.name.isdigit() and mark in (one / "environ").read_bytes().split(b"\0"):
                    found.append(int(one.name))
            except OSError:  # it has ended, or is another's
                pass
        return found


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return Batch(tmp_path)


def test_what_is_done_and_unchanged_is_not_repeated(batch: Batch) -> None:
    assert batch.run("--dry-run") == {FIRST: "planned", SECOND: "planned"}
    assert not batch.out.exists()
    assert batch.run() == {FIRST: "done", SECOND: "done"}
    assert batch.listed == [SECOND, FIRST]
    asked = len(batch.calls)
    assert batch.run() == {FIRST: "unchanged", SECOND: "unchanged"}
    assert len(batch.calls) == asked
    (batch.out / SECOND / "tokenizer.json").unlink()
    assert batch.run() == {FIRST: "unchanged", SECOND: "done"}
    batch.write_file(context=2048)
    assert batch.run() == {FIRST: "done", SECOND: "done"}
    assert batch.run("--force", "--only", FIRST) == {FIRST: "done"}


@pytest.mark.parametrize(
    ("number", "method"),
    [
        (signal.SIGKILL, "load_huggingface"),
        (signal.SIGKILL, "export_rkllm"),
        (signal.SIGINT, "build"),
        (signal.SIGTERM, "export_rkllm"),
    ],
)
def test_ended_in_the_middle_of_the_second(batch: Batch, number: int, method: str) -> None:
    assert batch.run("--only", FIRST) == {FIRST: "done"}
    whole = sorted((path, path.stat().st_mtime_ns) for path in (batch.out / FIRST).iterdir())
    asked = len(batch.calls)
    with batch.begin(RKLLM_STANDIN_STALL=method) as process:
        wait_for(lambda: batch.calls[asked:][-1:] == [method], f"the second conversion is in {method}")
        assert len(batch.processes()) == 3
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    wait_for(lambda: batch.processes() == [], "every process is gone")
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 128 + number)
    if number != signal.SIGKILL:
        assert [one["status"] for one in json.loads(output)["conversions"]] == ["unchanged", "stopped"]
    assert batch.listed == [FIRST]
    assert batch.run() == {FIRST: "unchanged", SECOND: "done"}
    assert sorted((path, path.stat().st_mtime_ns) for path in (batch.out / FIRST).iterdir()) == whole
    assert batch.listed == [SECOND, FIRST]
