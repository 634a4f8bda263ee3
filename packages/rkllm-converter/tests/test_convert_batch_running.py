"""Runs of a batch: what each conversion is called with, failures, logs, locks."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from converter_batches import FakeBatch
from converter_processes import is_alive, wait_for

from rkllm_converter.batch.child import Ended, Stop, run
from rkllm_converter.batch.models import Conversion, Models
from rkllm_converter.batch.outcome import Outcome
from rkllm_converter.batch.reading import read
from rkllm_converter.batch.running import Manner, command, locked, run_all
from rkllm_converter.batch.showing import Show
from rkllm_converter.errors import FolderError

MODELS = Models(
    file=Path("models.yaml"),
    output=Path("/out"),
    toolkit="1.3.0",
    conversions=(
        Conversion(
            "n",
            "a/b",
            {
                "platform": "rk3588",
                "quant": "w8a8",
                "revision": "-x",
                "hybrid_rate": 0.25,
                "npu_cores": 3,
                "export_tokenizer": False,
                "export_embedding": True,
                "ignore": ("memory", "disk"),
            },
            5,
        ),
    ),
)


def test_a_conversion_is_called_with_its_options() -> None:
    manner = Manner(program=("convert",), toolkit_python="/py")
    assert command(MODELS, MODELS.conversions[0], manner) == [
        "convert",
        "model",
        "--model=a/b",
        "--output=/out/n",
        "--revision=-x",
        "--platform=rk3588",
        "--quant=w8a8",
        "--npu-cores=3",
        "--hybrid-rate=0.25",
        "--no-export-tokenizer",
        "--export-embedding",
        "--ignore=memory",
        "--ignore=disk",
        "--toolkit-version=1.3.0",
        "--toolkit-python=/py",
        "--if-changed",
        "--json",
    ]


def test_what_a_batch_passes_on() -> None:
    (conversion,) = MODELS.conversions
    assert command(MODELS, conversion, Manner(is_dry=True))[-3:] == ["--dry-run", "--if-changed", "--json"]
    forced = command(MODELS, conversion, Manner(is_forced=True))
    assert forced[-2:] == ["--force", "--json"]
    assert "--if-changed" not in forced


def test_a_conversion_is_our_own_program_whatever_lies_in_the_current_folder() -> None:
    begin = command(MODELS, MODELS.conversions[0], Manner())
    assert begin[: begin.index("model")] == [
        sys.executable,
        *(["-P"] if sys.version_info >= (3, 11) else []),
        "-m",
        "rkllm_converter",
    ]


def test_one_batch_at_a_time_works_on_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    with locked(folder):
        with pytest.raises(FolderError) as caught, locked(folder):
            pytest.fail("two have it")
        assert caught.value.message.startswith(f"{folder}: another batch is at work there, process {os.getpid()}.")
    with locked(folder):
        pass


def test_a_folder_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FolderError, match="Not a directory"), locked(tmp_path / "file" / "out"):
        pytest.fail("it cannot be")


def run_it(batch: FakeBatch, *, dry: bool = False, fast: bool = False, log: Path | None = None) -> list[Outcome]:
    models = read(batch.file)
    manner = Manner(program=batch.program, is_dry=dry, fails_fast=fast, log=log)
    return run_all(models, models.conversions, manner, Show(io.StringIO()))


def statuses(outcomes: Sequence[Outcome]) -> dict[str, str]:
    return {one.name: one.status for one in outcomes}


@pytest.mark.slow
def test_a_failure_does_not_end_the_batch(tmp_path: Path) -> None:
    batch = FakeBatch(tmp_path, ("a", "killed", "refused", "silent", "z"))
    batch.order("killed", signal=signal.SIGKILL, lines=["building"])
    batch.order("refused", answer={"status": "failed", "error": {"type": "IllegalOptions", "message": "No."}})
    batch.order("silent", exit=0, says="not JSON", lines=[])
    outcomes = run_it(batch)
    assert batch.called == ["a", "killed", "refused", "silent", "z"]
    assert statuses(outcomes) == {
        "a": "done",
        "killed": "failed",
        "refused": "failed",
        "silent": "failed",
        "z": "done",
    }
    errors = {one.name: one.error for one in outcomes if one.error}
    assert errors["killed"] == (
        "Died",
        (
            "The conversion was ended by SIGKILL. Most likely this machine ran out of memory: free some, or add swap. "
            "The last that it said: building"
        ),
    )
    assert errors["refused"] == ("IllegalOptions", "No.")
    assert errors["silent"] == ("NoAnswer", "The conversion ended by itself (exit code 0), without an answer.")
    assert (outcomes[0].file_mb, outcomes[0].tokens_per_s, outcomes[0].fits) == (1952.4, 16.66, True)


@pytest.mark.slow
def test_a_second_run_repeats_only_what_failed(tmp_path: Path) -> None:
    batch = FakeBatch(tmp_path, ("a", "b"))
    batch.order("b", exit=1)
    assert statuses(run_it(batch)) == {"a": "done", "b": "failed"}
    batch.order("b")
    assert statuses(run_it(batch)) == {"a": "unchanged", "b": "done"}


@pytest.mark.slow
def test_after_a_failure_nothing_is_begun_if_so_wanted(tmp_path: Path) -> None:
    batch = FakeBatch(tmp_path, ("a", "b", "c", "d"))
    batch.order("b", exit=1)
    assert statuses(run_it(batch, fast=True)) == {"a": "done", "b": "failed", "c": "not begun", "d": "not begun"}
    assert batch.called == ["a", "b"]


@pytest.mark.slow
def test_the_lines_of_each_are_kept_beside_the_models_run_by_run(tmp_path: Path) -> None:
    batch = FakeBatch(tmp_path, ("a", "b"))
    batch.order("a", lines=["one\rtwo", "trois \N{SNOWMAN}"])
    outcomes = run_it(batch)
    log = batch.output / ".logs" / "a.log"
    assert outcomes[0].log == str(log)
    head, *lines = log.read_text("utf-8").splitlines()
    assert head.startswith("== 2")
    assert f"--output={batch.output / 'a'}" in head
    assert lines == ["one", "two", "trois \N{SNOWMAN}"]
    run_it(batch)
    assert log.read_text("utf-8").splitlines()[4:][1:] == lines
    run_it(batch, log=tmp_path / "elsewhere")
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == ["a.log", "b.log"]


@pytest.mark.slow
def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    batch = FakeBatch(tmp_path, ("a",))
    (outcome,) = run_it(batch, dry=True)
    assert (outcome.status, outcome.log) == ("planned", None)
    assert not batch.output.exists()


@pytest.mark.slow
def test_a_log_that_cannot_be_written_ends_no_conversion(tmp_path: Path) -> None:
    batch = FakeBatch(tmp_path, ("a",))
    (tmp_path / "file").touch()
    (outcome,) = run_it(batch, log=tmp_path / "file")
    assert (outcome.status, outcome.log) == ("done", None)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
def test_nor_does_a_full_disk(tmp_path: Path) -> None:
    batch = FakeBatch(tmp_path, ("a",))
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.log").symlink_to("/dev/full")
    (outcome,) = run_it(batch, log=tmp_path / "logs")
    assert (outcome.status, outcome.log) == ("done", None)


def run_child(program: str, stop: Stop | None = None, grace: float = 30.0) -> tuple[Ended, list[str]]:
    lines: list[str] = []
    return run([sys.executable, "-c", program], heard=lines.append, stop=stop or Stop(), grace=grace), lines


@pytest.mark.slow
def test_much_output_blocks_nobody() -> None:
    ended, lines = run_child(
        "import sys\nfor n in range(20000): print('x' * 50); print(n, file=sys.stderr)\nsys.stderr.write('end')"
    )
    assert ended.code == 0
    assert len(ended.answer) == 20000 * 51
    assert lines == [*map(str, range(20000)), "end"]


@pytest.mark.slow
def test_lines_that_are_no_text_are_heard_all_the_same() -> None:
    _, lines = run_child(r"import os; os.write(2, b'a\xff\n\n\xe2'); os.write(2, b'\x98\x83\r50 %\r\n\xe2')")
    assert lines == ["a�", "\N{SNOWMAN}", "50 %", "�"]


@pytest.mark.slow
def test_what_a_conversion_leaves_behind_neither_blocks_nor_stays(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    ended, _ = run_child(
        "import subprocess, sys, pathlib\n"
        "left = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(file)!r}).write_text(str(left.pid))"
    )
    assert ended.code == 0
    wait_for(lambda: not is_alive(int(file.read_text("utf-8"))), "what was left behind is gone")


def stopped_when(ready: Path, stop: Stop, *signals: int) -> threading.Thread:
    """Calls `stop` as the handler of signals does."""

    def wait() -> None:
        wait_for(ready.exists, "the child is at work")
        for number in signals:
            stop(number)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


DEAF = """
import pathlib, signal, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
pathlib.Path({!r}).touch()
while True: time.sleep(0.05)
"""
POLITE = """
import pathlib, time
try:
    pathlib.Path({!r}).touch()
    while True: time.sleep(0.05)
except KeyboardInterrupt:
    raise SystemExit(77)
"""


@pytest.mark.slow
def test_a_child_gets_the_signal_and_may_clean_up(tmp_path: Path) -> None:
    stop = Stop()
    thread = stopped_when(tmp_path / "ready", stop, signal.SIGINT)
    ended, _ = run_child(POLITE.format(str(tmp_path / "ready")), stop)
    thread.join()
    assert ended.code == 77


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGTERM)])
def test_a_deaf_child_is_killed(tmp_path: Path, signals: tuple[int, ...]) -> None:
    """After its grace; at once when told twice."""
    stop = Stop()
    thread = stopped_when(tmp_path / "ready", stop, *signals)
    ended, _ = run_child(DEAF.format(str(tmp_path / "ready")), stop, grace=0.3 if len(signals) == 1 else 3600)
    thread.join()
    assert (ended.code, stop.signal) == (-signal.SIGKILL, signals[0])


@pytest.mark.slow
def test_an_error_while_listening_leaves_no_child(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def heard(line: str) -> None:
        file.write_text(line)
        raise BrokenPipeError

    program = "import os, sys, time; print(os.getpid(), file=sys.stderr, flush=True); time.sleep(600)"
    with pytest.raises(BrokenPipeError):
        run([sys.executable, "-c", program], heard=heard, stop=Stop())
    assert not is_alive(int(file.read_text("utf-8")))
