"""`exo bench`: its flags, its exit codes, what it prints and what it writes."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from measured_server import ANSWER, MeasuredServer, said

from exo.cli.main import main

REFUSED = httpx2.Response(404, json={"error": {"message": "The model ended."}})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> MeasuredServer:
    """Answers whatever address is asked; variables of whoever runs the tests do not count."""
    found = MeasuredServer()
    monkeypatch.setattr(httpx2, "AsyncClient", functools.partial(httpx2.AsyncClient, transport=found.transport()))
    for name in ("EXO_HOST", "EXO_PORT", "EXO_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return found


def test_a_run_prints_its_tables_and_writes_its_files(
    server: MeasuredServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "folder"
    sweeps = ("--concurrency", "1,2", "--requests", "3", "--prompt-lengths", "64")
    assert main(["bench", "--repeat", "2", *sweeps, "--output", str(folder)]) == 0
    shown = capsys.readouterr()
    assert "Server: http://127.0.0.1:52415" in shown.out
    for title in ("Prompts", "Concurrency", "Prompt lengths", "Warm-up"):
        assert f"\n{title}\n" in shown.out
    assert shown.err.splitlines()[0].startswith("1/19 one: warm-up: first token after ")
    assert len(shown.err.splitlines()) == 19
    assert sorted(path.name for path in folder.iterdir()) == ["bench.csv", "bench.html", "bench.json", "bench.md"]
    found = json.loads((folder / "bench.json").read_bytes())
    assert (found["complete"], found["settings"]["concurrency"], len(found["samples"])) == (True, [1, 2], 19)


def test_a_sweep_without_a_value_takes_its_usual_ones(server: MeasuredServer, tmp_path: Path) -> None:
    arguments = ["bench", "--concurrency", "--prompt-lengths", "--repeat", "1", "--requests", "1", "-o", str(tmp_path)]
    assert main(arguments) == 0
    found = json.loads((tmp_path / "bench.json").read_bytes())["settings"]
    assert (found["concurrency"], found["prompt_lengths"]) == ([1, 2, 4], [128, 512, 1024])


def test_a_run_is_compared_with_an_earlier_one(
    server: MeasuredServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--repeat", "1", "-o", str(tmp_path)]) == 0
    assert main(["bench", "--repeat", "2", "-o", str(tmp_path), "--compare", str(tmp_path / "bench.json")]) == 0
    assert "repeat: 2 now, 1 before" in capsys.readouterr().out
    for name in ("bench.md", "bench.html"):
        assert "Compared with before" in (tmp_path / name).read_text()
    assert "first_token_ratio" in (tmp_path / "bench.csv").read_text()
    assert json.loads((tmp_path / "bench.json").read_bytes())["comparison"]["ratios"]


def test_the_flags_reach_the_server(server: MeasuredServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXO_API_KEY", "of the environment")
    monkeypatch.setenv("EXO_PORT", "1234")
    asked = ["--model", "a", "--model", "b", "--max-tokens", "7", "--temperature", "0.5", "--api-key", "mine"]
    assert main(["bench", "--repeat", "1", *asked]) == 0
    assert [body["model"] for body in server.bodies] == ["a"] * 6 + ["b"] * 6
    assert {(body["max_tokens"], body["temperature"]) for body in server.bodies} == {(7, 0.5)}
    assert {header["authorization"] for header in server.headers} == {"Bearer mine"}
    assert {header["host"] for header in server.headers} == {"127.0.0.1:1234"}


@pytest.mark.parametrize(("models", "heads"), [(["a"], 1), (["a", "b"], 2)])
def test_one_model_needs_no_column(
    server: MeasuredServer, capsys: pytest.CaptureFixture[str], models: list[str], heads: int
) -> None:
    """Two tables are shown, of which that of the warm-up always begins with the models."""
    assert main(["bench", "--repeat", "1", *(word for name in models for word in ("--model", name))]) == 0
    shown = capsys.readouterr().out
    assert len(re.findall(r"^ .*\bModel\b", shown, re.MULTILINE)) == heads


def test_another_server(server: MeasuredServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--repeat", "1", "--url", "https://me:secret@far.example/v1"]) == 0
    shown = capsys.readouterr()
    assert "https://far.example\n" in shown.out
    assert "secret" not in shown.out + shown.err
    assert "authorization" in server.headers[0]


def test_a_model_that_never_answers_is_1_with_the_words_of_the_server(
    server: MeasuredServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [REFUSED]
    assert main(["bench", "-o", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert "exo: one answered no request: status 404: The model ended." in shown.err
    assert "The model ended." in shown.out
    assert (tmp_path / "bench.html").exists()


def test_a_single_failure_is_shown_and_0(server: MeasuredServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers = [ANSWER, REFUSED, ANSWER]
    assert main(["bench", "--repeat", "1"]) == 0
    shown = capsys.readouterr()
    assert "1 of 6 requests failed" in shown.out
    assert "failed: status 404: The model ended." in shown.err


def test_ctrl_c_shows_what_was_measured_and_is_130(
    server: MeasuredServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def press_ctrl_c() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    server.answers = [ANSWER, ANSWER, (press_ctrl_c, said("a"), asyncio.Event())]
    assert main(["bench", "-o", str(tmp_path)]) == 130
    shown = capsys.readouterr()
    assert "The run was interrupted" in shown.out
    found = json.loads((tmp_path / "bench.json").read_bytes())
    assert (found["complete"], len(found["samples"])) == (False, 2)


@pytest.mark.parametrize(
    ("arguments", "said_of_it"),
    [
        (["--repeat", "0"], "--repeat: expected a whole number from 1"),
        (["--max-tokens", "many"], "--max-tokens"),
        (["--temperature", "hot"], "--temperature: expected a number from 0 to 2"),
        (["--temperature", "nan"], "--temperature: expected a number from 0 to 2"),
        (["--concurrency", "1,x"], "--concurrency"),
        (["--prompt-lengths", "0"], "--prompt-lengths"),
        (["--requests", "-1"], "--requests"),
        (["--timeout", "0"], "--timeout"),
        (["--url", "nowhere"], "no address of a server"),
        (["--compare", "/nowhere/bench.json"], "/nowhere/bench.json cannot be read"),
        (["--compare", __file__], "is not a bench.json"),
        (["--output", "/dev/null/x"], "--output: /dev/null/x cannot be a folder"),
        (["--port", "many"], "--port"),
    ],
)
def test_a_mistake_is_one_sentence_and_2_before_anything_is_asked(
    server: MeasuredServer, capsys: pytest.CaptureFixture[str], arguments: list[str], said_of_it: str
) -> None:
    assert main(["bench", *arguments]) == 2
    shown = capsys.readouterr().err
    assert said_of_it in shown
    assert shown.count("\n") == 1
    assert server.bodies == []


def test_a_server_that_is_not_there(server: MeasuredServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.paths["/v1/models"] = httpx2.ConnectError("refused")
    assert main(["bench"]) == 2
    assert capsys.readouterr().err == (
        "exo: Nothing answers on http://127.0.0.1:52415 (refused): start a node with `exo`, or name another server "
        "with --url.\n"
    )


def test_other_commands_load_nothing_of_it() -> None:
    program = (
        "import sys; from exo.cli.main import main; main(['version'])\n"
        "names = [name for name in sys.modules if name.split('.')[0] in ('rich', 'httpx2', 'jinja2')"
        " or name.startswith('exo.benchmark')]\n"
        "assert names == [], names"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
