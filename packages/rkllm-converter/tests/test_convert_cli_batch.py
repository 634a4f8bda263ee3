"""`rkllm-convert batch` as people call it: output, exit codes, signals, and what is left after kill -9."""

from __future__ import annotations

import argparse
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from converter_batches import BATCH_PROGRAM, FakeBatch
from converter_processes import is_alive, wait_for

from rkllm_converter.cli import batch as command


def call(batch: FakeBatch, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments(batch, *flags),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
        env=environment(),
    )


def arguments(batch: FakeBatch, *flags: str) -> list[str]:
    return [sys.executable, str(BATCH_PROGRAM), str(batch.behaviour), "batch", str(batch.file), *flags]


def environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("RKLLM_")}
    return {**own, "PYTHONPATH": os.pathsep.join(one for one in sys.path if one)}


@contextmanager
def begun(batch: FakeBatch, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """A batch that is at work."""
    with subprocess.Popen(
        arguments(batch, *flags),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment(),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def flags_of(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_to(parser.add_subparsers())
    return parser.parse_args(["batch", *words])


def test_the_example_is_the_file_that_is_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    flags = flags_of("--example")
    assert flags.action(flags) == 0
    assert capsys.readouterr().out == (files("rkllm_converter") / "models.yaml").read_text("utf-8")


def test_the_file_is_models_yaml_unless_another_is_named() -> None:
    assert flags_of().file == Path("models.yaml")
    assert flags_of("x.yaml", "--only", "a", "--only", "b").only == ["a", "b"]


def test_mistakes_are_printed_as_compilers_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "models.yaml"
    file.write_text("output: m\nmodels: []\nmodel: x\n", encoding="utf-8")
    flags = flags_of(str(file))
    assert flags.action(flags) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.removeprefix(str(file)) for line in printed.err.splitlines()] == [
        ":2: models: the list is empty.",
        ":3: there is no key 'model' here. It belongs to a model.",
    ]


@pytest.mark.slow
def test_a_run_in_a_pipe(tmp_path: Path) -> None:
    batch = FakeBatch(tmp_path, ("a", "b"))
    nothing = {"file_mb": None, "tokens_per_s": None, "fits": None, "error": {"type": "X", "message": "Too bad.\nOh"}}
    batch.order("b", lines=["looking"], answer={"status": "failed", **nothing})
    done = call(batch)
    assert done.returncode == 1
    head, first, second, gap, *note, log = done.stdout.splitlines()
    assert head.split() == ["NAME", "RESULT", "TIME", "SIZE", "TOKENS/S", "BOARD", "MEMORY"]
    assert first.split()[:2] + first.split()[-4:] == ["a", "done", "1,952", "MB", "16.7", "fits"]
    assert second.split()[:2] + second.split()[-2:] == ["b", "failed", "-", "-"]
    assert (gap, note, log) == ("", ["b: Too bad.", "  Oh"], f"  log: {batch.output / '.logs' / 'b.log'}")
    progress = done.stderr.splitlines()
    assert progress[:3] == ["[1/2] a", "  loading", "  building"]
    assert progress[3].startswith("  done after ")
    assert progress[4:6] == ["[2/2] b", "  looking"]
    assert progress[6].startswith("  failed after ")
    batch.order("b")
    again = call(batch)
    assert again.returncode == 0
    assert [line.split()[1] for line in again.stdout.splitlines()[1:]] == ["unchanged", "done"]


@pytest.mark.slow
def test_a_table_is_printed_in_whatever_the_terminal_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    batch = FakeBatch(tmp_path, ("a",))
    batch.order(
        "a", answer={"status": "failed", "error": {"type": "X", "message": "Caf\N{LATIN SMALL LETTER E WITH ACUTE}"}}
    )
    done = call(batch)
    assert done.returncode == 1
    assert "a: Caf\\xe9" in done.stdout.splitlines()


@pytest.mark.slow
def test_json_is_one_object_and_nothing_else(tmp_path: Path) -> None:
    batch = FakeBatch(tmp_path, ("a", "b"))
    batch.order("b", exit=3, lines=["the end"])
    done = call(batch, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert (found["status"], found["output"]) == ("failed", str(batch.output))
    first, second = found["conversions"]
    assert (first["name"], first["status"], first["folder"]) == ("a", "done", str(batch.output / "a"))
    assert (first["file_mb"], first["tokens_per_s"], first["fits"], first["error"]) == (1952.4, 16.66, True, None)
    assert second["error"] == {
        "type": "NoAnswer",
        "message": "The conversion ended by itself (exit code 3), without an answer. The last that it said: the end",
    }


@pytest.mark.slow
def test_what_flags_do(tmp_path: Path) -> None:
    batch = FakeBatch(tmp_path, ("a", "b", "c"))
    planned = call(batch, "--dry-run", "--only", "c", "--only", "a")
    assert planned.returncode == 0
    assert [line.split()[:2] for line in planned.stdout.splitlines()[1:]] == [["a", "planned"], ["c", "planned"]]
    assert not batch.output.exists()
    assert (
        call(batch, "--force", "--only", "a", "--toolkit-python", "/py", "--toolkit-version", "1.2.3").returncode == 0
    )
    given = batch.calls[-1]["arguments"]
    assert {"--force", "--toolkit-python=/py", "--toolkit-version=1.2.3"} <= set(given)
    assert "--if-changed" not in given


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--only", "x"], "has no conversion of that name. It has: a."),
        (["--toolkit-version", "9"], "rkllm-convert: --toolkit-version: The toolkit '9' is not known here"),
    ],
)
def test_flags_with_mistakes(tmp_path: Path, flags: Sequence[str], words: str) -> None:
    batch = FakeBatch(tmp_path, ("a",))
    done = call(batch, *flags)
    assert (done.returncode, batch.calls) == (2, [])
    assert words in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("toolkit", "words"),
    [("", "rkllm-convert: /py has none."), ("9.9", "rkllm-convert: The toolkit '9.9' is not known here: ")],
)
def test_without_a_toolkit_nothing_is_begun_and_that_is_said_once(tmp_path: Path, toolkit: str, words: str) -> None:
    batch = FakeBatch(tmp_path, ("a", "b"))
    (batch.behaviour / "toolkit").write_text(toolkit, encoding="utf-8")
    done = call(batch, "--toolkit-python", "/py")
    assert (done.returncode, done.stdout, batch.calls) == (2, "", [])
    (only,) = done.stderr.splitlines()
    assert only.startswith(words)
    assert not batch.output.exists()
    assert call(batch, "--dry-run").returncode == 0
    assert batch.called == ["a", "b"]


@pytest.mark.slow
def test_the_release_that_is_named_counts_not_the_one_that_is_there(tmp_path: Path) -> None:
    batch = FakeBatch(tmp_path, ("a",))
    (batch.behaviour / "toolkit").write_text("9.9", encoding="utf-8")
    assert call(batch, "--toolkit-version", "1.3.0").returncode == 0


def test_the_python_of_the_toolkit_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKLLM_TOOLKIT_PYTHON", "/py")
    assert flags_of().toolkit_python == "/py"
    assert flags_of("--toolkit-python", "/other").toolkit_python == "/other"
    monkeypatch.delenv("RKLLM_TOOLKIT_PYTHON")
    assert flags_of().toolkit_python is None


@pytest.mark.slow
def test_two_batches_do_not_work_on_one_folder(tmp_path: Path) -> None:
    batch = FakeBatch(tmp_path, ("a",))
    batch.order("a", waits=True)
    with begun(batch) as first:
        wait_for(lambda: batch.called == ["a"], "the first is at work")
        second = call(batch)
        assert (second.returncode, second.stdout) == (2, "")
        assert f"{batch.output}: another batch is at work there, process {first.pid}." in second.stderr
    assert batch.called == ["a"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("is_json", [False, True])
def test_a_signal_ends_the_child_and_the_summary_is_printed(
    tmp_path: Path,
    number: int,
    code: int,
    is_json: bool,  # noqa: FBT001 - a parameter of the cases
) -> None:
    batch = FakeBatch(tmp_path, ("a", "b", "c"))
    batch.order("b", waits=True)
    with begun(batch, *(["--json"] if is_json else [])) as process:
        wait_for(lambda: batch.called == ["a", "b"], "the second is at work")
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert batch.has_cleaned_up("b")
    assert not is_alive(batch.calls[1]["pid"])
    assert batch.called == ["a", "b"]
    found = summary_of(output, is_json=is_json)
    assert found == [("a", "done"), ("b", "stopped"), ("c", "not")]


def summary_of(output: str, *, is_json: bool) -> list[tuple[str, str]]:
    if is_json:
        found: dict[str, Any] = json.loads(output)
        assert found["status"] == "stopped"
        return [(one["name"], one["status"].split()[0]) for one in found["conversions"]]
    rows = [line.split() for line in output.splitlines()[1:]]
    return [(row[0], row[1]) for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("is_json", [False, True])
def test_that_nobody_reads_any_more_ends_nothing(tmp_path: Path, *, is_json: bool) -> None:
    batch = FakeBatch(tmp_path, ("a", "b"))
    batch.order("a", waits=True)
    with begun(batch, *(["--json"] if is_json else [])) as process:
        wait_for(lambda: batch.called == ["a"], "the first is at work")
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()
        os.kill(batch.calls[0]["pid"], signal.SIGKILL)
        assert process.wait(timeout=60) == 1
    assert batch.called == ["a", "b"]
    assert (batch.output / "b" / "whole").exists()


@pytest.mark.slow
def test_after_kill_9_the_child_is_gone_and_nothing_finished_is_repeated(tmp_path: Path) -> None:
    batch = FakeBatch(tmp_path, ("a", "b", "c"))
    batch.order("b", waits=True)
    with begun(batch) as process:
        wait_for(lambda: batch.called == ["a", "b"], "the second is at work")
        child = batch.calls[1]["pid"]
        assert is_alive(child)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
        wait_for(lambda: not is_alive(child), "the child is gone")
    batch.order("b")
    again = call(batch)
    assert again.returncode == 0
    assert [line.split()[1] for line in again.stdout.splitlines()[1:]] == ["unchanged", "done", "done"]


@pytest.mark.slow
def test_on_a_terminal_a_conversion_is_one_line_that_changes(tmp_path: Path) -> None:
    batch = FakeBatch(tmp_path, ("a", "b"))
    ours, theirs = pty.openpty()
    done = subprocess.run(
        arguments(batch),
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**environment(), "COLUMNS": "100"},
        timeout=120,
        check=False,
    )
    os.close(theirs)
    seen = b""
    while chunk := _read(ours):
        seen += chunk
    os.close(ours)
    assert done.returncode == 0
    lines = [line.rpartition("\r\x1b[K")[2] for line in seen.decode().split("\r\n")]
    assert [line.rpartition(" after ")[0] for line in lines] == ["[1/2] a  done", "[2/2] b  done", ""]
    assert b"[1/2] a  building" in seen


def _read(number: int) -> bytes:
    try:
        return os.read(number, 65536)
    except OSError:  # the other side is closed, as Linux says it
        return b""


@pytest.mark.slow
def test_a_file_with_mistakes_begins_nothing(tmp_path: Path) -> None:
    batch = FakeBatch(tmp_path, ("a", "a"))
    done = call(batch)
    assert (done.returncode, done.stdout, batch.calls) == (2, "", [])
    assert done.stderr.startswith(f"{batch.file}:6: models[0].conversions[1].name: 'a' is the name")
    assert not batch.output.exists()
