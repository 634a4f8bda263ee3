"""`exo bench`: its flags, its exit codes, what it prints and what it writes."""

from __future__ import annotations

import asyncio
import functools
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from measured_server import ANSWER, DONE, MeasuredServer, Step, event, said, sample
from rich.console import Console
from rich.progress import Progress

from exo.benchmark.plan import stages
from exo.benchmark.results import Settings
from exo.cli.bench_terminal import _Bar
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
    now = tmp_path / "now"
    assert main(["bench", "--repeat", "2", "-o", str(now), "--compare", str(tmp_path / "bench.json")]) == 0
    assert "repeat: 2 now, 1 before" in capsys.readouterr().out
    for name in ("bench.md", "bench.html"):
        assert "Compared with before" in (now / name).read_text()
    assert "first_token_ratio" in (now / "bench.csv").read_text()
    assert json.loads((now / "bench.json").read_bytes())["comparison"]["ratios"]


def test_the_file_to_compare_with_is_not_overwritten(
    server: MeasuredServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--repeat", "1", "-o", str(tmp_path / "report")]) == 0
    kept, asked = (tmp_path / "report/bench.json").read_bytes(), len(server.bodies)
    (tmp_path / "link").symlink_to(tmp_path / "report/bench.json")
    capsys.readouterr()
    assert main(["bench", "-o", str(tmp_path / "report"), "--compare", str(tmp_path / "link")]) == 2
    assert capsys.readouterr().err == (
        f"exo: --output: {tmp_path}/report/bench.json is the file to compare with: choose another folder.\n"
    )
    assert (tmp_path / "report/bench.json").read_bytes() == kept
    assert len(server.bodies) == asked


def test_an_earlier_report_is_replaced_and_that_is_said(
    server: MeasuredServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--repeat", "1", "-o", str(tmp_path)]) == 0
    assert "replaced" not in capsys.readouterr().out
    assert main(["bench", "--repeat", "2", "-o", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith("The earlier report there was replaced.\n")
    assert json.loads((tmp_path / "bench.json").read_bytes())["settings"]["repeat"] == 2


@pytest.mark.parametrize("name", ["bench.md", "bench.html"])
def test_a_folder_that_cannot_be_written_is_found_before_the_run(
    server: MeasuredServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).mkdir()
    assert main(["bench", "-o", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"exo: --output: {tmp_path / name} cannot be written: Is a directory.\n"
    assert server.headers == []


def test_what_is_tried_beforehand_leaves_nothing_behind(server: MeasuredServer, tmp_path: Path) -> None:
    server.paths["/v1/models"] = httpx2.ConnectError("refused")
    (tmp_path / "bench.csv").write_text("earlier")
    assert main(["bench", "-o", str(tmp_path)]) == 2
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("bench.csv", "earlier")]


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


def test_a_server_that_goes_away_is_1(
    server: MeasuredServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [ANSWER, ANSWER, ANSWER, httpx2.Response(503, json={"error": "gone"})]
    assert main(["bench", "--repeat", "1", "-o", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert "3 of 5 requests failed; the table" in shown.out
    assert "exo: 3 of 5 requests to one failed, the first with: status 503: gone\n" in shown.err
    assert (tmp_path / "bench.html").exists()


def test_who_answered_is_told_everywhere(
    server: MeasuredServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def by(model: str) -> tuple[Step, ...]:
        return (event({"model": model, "choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}), DONE)

    server.answers = [by("quick"), by("quick"), by("deep")]
    assert main(["bench", "--model", "auto", "--repeat", "1", "-o", str(tmp_path)]) == 0
    assert "Note: auto was answered by: deep (4), quick (1).\n" in capsys.readouterr().out
    for name in ("bench.md", "bench.html"):
        assert "auto was answered by: deep (4), quick (1)." in (tmp_path / name).read_text()
    samples = json.loads((tmp_path / "bench.json").read_bytes())["samples"]
    assert [one["answered_by"] for one in samples] == ["quick", "quick", "deep", "deep", "deep", "deep"]


@pytest.mark.parametrize(
    ("arguments", "without_effect"),
    [
        (["--url", "http://far", "--port", "1"], "--port has"),
        (["--url", "http://far", "--host", "near", "--port", "1"], "--host and --port have"),
        (["--url", "http://far"], None),
        (["--host", "far", "--port", "80"], None),
    ],
)
def test_the_address_that_counts(
    server: MeasuredServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    without_effect: str | None,
) -> None:
    monkeypatch.setenv("EXO_PORT", "1234")
    assert main(["bench", "--repeat", "1", *arguments]) == 0
    assert {header["host"] for header in server.headers} == {"far"}
    said_of_it = [line for line in capsys.readouterr().err.splitlines() if "no effect" in line]
    expected = f"exo: --url says what is measured; {without_effect} no effect."
    assert said_of_it == ([expected] if without_effect else [])


def test_the_bar_names_what_is_running() -> None:
    with Progress(console=Console(file=io.StringIO())) as bars:
        bar = _Bar(bars, bars.add_task("", total=3))
        seen = []
        for stage in stages(Settings(models=("one",), repeat=1, concurrency=(2,), prompt_lengths=(64,)), "seed"):
            bar.begin(stage, stage.questions[0])
            bar.end(sample("another"))
            seen.append((bars.tasks[0].description, bars.tasks[0].completed))
    assert seen == [("one: warm-up", 1), ("one: Math", 2), ("one: 2 at a time", 3), ("one: 64 tokens of prompt", 4)]


def test_a_single_failure_is_shown_and_0(server: MeasuredServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers = [ANSWER, REFUSED, ANSWER]
    assert main(["bench", "--repeat", "1"]) == 0
    shown = capsys.readouterr()
    assert "1 of 5 requests failed" in shown.out
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


def test_ctrl_c_before_anything_was_measured(
    server: MeasuredServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def press_ctrl_c() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    server.answers = [(press_ctrl_c, said("a"), asyncio.Event())]
    assert main(["bench", "-o", str(tmp_path)]) == 130
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "exo: The run was interrupted before anything was measured.\n")
    assert list(tmp_path.iterdir()) == []


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
        (["--output", "/proc"], "--output: /proc cannot be written"),
        (["--port", "many"], "--port"),
        (["--url", "http://h:65536"], "'http://h:65536' is no address of a server"),
        (["--api-key", "s\u00e9cret"], "--api-key (or EXO_API_KEY) holds characters that no HTTP header can carry"),
        (["--api-key", "secret\n"], "--api-key"),
        (["--model", "a\udcff"], r"--model: expected a name in UTF-8, got 'a\udcff'"),
        (["--model", ""], "--model: expected the name of a model"),
        (["--output", ""], "--output: expected a folder"),
        (["--concurrency", ","], "--concurrency: expected 1 to 32 numbers between commas, got ','"),
        (["--prompt-lengths", ",".join(map(str, range(1, 34)))], "--prompt-lengths: expected 1 to 32 numbers"),
        (["--prompt-lengths", "1000001"], "--prompt-lengths: expected a whole number from 1 to 1000000"),
        (["--requests", "10001"], "--requests: expected a whole number from 1 to 10000"),
        (["--repeat", "1001"], "--repeat"),
        (["--compare", "/"], "--compare: / is no file"),
    ],
)
def test_a_mistake_is_one_sentence_and_2_before_anything_is_asked(
    server: MeasuredServer, capsys: pytest.CaptureFixture[str], arguments: list[str], said_of_it: str
) -> None:
    assert main(["bench", *arguments]) == 2
    shown = capsys.readouterr().err
    assert said_of_it in shown
    assert shown.count("\n") == 1
    assert "cret" not in shown
    assert server.bodies == []


def test_a_pipe_is_not_compared_with(
    server: MeasuredServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert main(["bench", "--compare", str(tmp_path / "pipe")]) == 2
    assert capsys.readouterr().err == f"exo: --compare: {tmp_path}/pipe is no file.\n"


def test_a_name_that_would_move_the_cursor_is_shown_escaped(
    server: MeasuredServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "a\x1b[2J\u202eb"
    assert main(["bench", "--model", name, "--model", "c", "--repeat", "1", "-o", str(tmp_path)]) == 0
    assert {body["model"] for body in server.bodies} == {name, "c"}
    shown = capsys.readouterr()
    texts = [shown.out, shown.err, *(path.read_text() for path in tmp_path.iterdir())]
    assert len(texts) == 6
    for text in texts:
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "u202eb" in text


def test_so_does_the_bar(
    server: MeasuredServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["bench", "--model", "a\u202eb", "--repeat", "1"]) == 0
    shown = capsys.readouterr().err
    assert r"a\u202eb: Creative" in shown
    assert "\u202e" not in shown


def test_an_odd_answer_does_not_end_the_run(server: MeasuredServer, capsys: pytest.CaptureFixture[str]) -> None:
    odd = b'data: {"choices":[{"delta":{"content":"\xe2\x82"}}]}\n\n'
    server.answers = [ANSWER, (odd,), (b'data: {"error":' + b"[" * 100_000 + b"\n\n",), ANSWER]
    assert main(["bench", "--repeat", "1"]) == 0
    shown = capsys.readouterr()
    assert "2 of 5 requests failed" in shown.out
    assert shown.err.count("that nobody understands") == 2


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
