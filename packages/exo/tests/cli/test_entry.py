"""How commands take their arguments, and how they end."""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from exo.cli.entry import CommandParser, run_command
from exo.types import PullError

INTERRUPTED_IMPORT = """
import os, signal, sys
from importlib.abc import MetaPathFinder

class CtrlC(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == sys.argv[2]:
            os.kill(os.getpid(), signal.SIGINT)

import MODULE as command  # what the script of the command imports, before anything of it can be caught
sys.meta_path.insert(0, CtrlC())
sys.exit(command.main([sys.argv[1]]))
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="exo")
    made.add_argument("--port")
    commands = made.add_subparsers(parser_class=CommandParser)
    ask = commands.add_parser("ask")
    ask.add_argument("model")
    ask.add_argument("prompt", nargs="*", default=[])
    ask.add_argument("--port", default=argparse.SUPPRESS)
    rest = commands.add_parser("rest")
    rest.add_argument("words", nargs=argparse.REMAINDER)
    return made


@pytest.mark.parametrize(
    ("line", "port", "prompt"),
    [
        ("ask m", None, []),
        ("ask m a b", None, ["a", "b"]),
        ("ask m --port 1", "1", []),
        ("ask m --port 1 a b", "1", ["a", "b"]),
        ("ask m a --port 1 b", "1", ["a", "b"]),
        ("ask --port 1 m a", "1", ["a"]),
        ("--port 1 ask m a", "1", ["a"]),
        ("ask m --port 1 -- --a", "1", ["--a"]),
    ],
)
def test_flags_may_stand_anywhere(line: str, port: str | None, prompt: list[str]) -> None:
    assert parser().parse_args(line.split()) == argparse.Namespace(port=port, model="m", prompt=prompt)


def test_a_command_may_take_all_that_follows() -> None:
    assert parser().parse_args(["rest", "a", "--port", "1"]).words == ["a", "--port", "1"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ask", "exo ask: error: the following arguments are required: model\n"),
        ("ask m --nope a", "exo ask: error: unrecognized arguments: --nope a\n"),
        ("ask m --port", "exo ask: error: argument --port: expected one argument\n"),
    ],
)
def test_a_command_says_itself_what_is_wrong(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parser().parse_args(line.split())
    assert capsys.readouterr().err == f"usage: exo ask [-h] [--port PORT] model [prompt ...]\n{said}"


def test_what_a_command_ends_with(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(error: BaseException) -> int:
        raise error

    assert run_command("exo", lambda: 3) == 3
    assert run_command("exo", lambda: fails(PullError("nothing there"))) == 2
    assert run_command("exo", lambda: fails(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "exo: nothing there\n")
    with pytest.raises(BrokenPipeError):  # of a worker, say: both outputs are well
        run_command("exo", lambda: fails(BrokenPipeError(errno.EPIPE, "Broken pipe")))


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["stdout", "stderr"])
@pytest.mark.parametrize(
    "work",
    [
        "print('x' * 100_000, file=OUTPUT)",
        "print('x', file=OUTPUT)",
        "OUTPUT.write('x')\n    raise SystemExit(0)",
        "OUTPUT.write('x')\n    raise KeyboardInterrupt",
    ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_readers_that_have_gone_away(broken: str, work: str, unbuffered: str) -> None:
    program = f"import sys\nfrom exo.cli.entry import run_command\ndef work():\n    {work}\n    return 0\n".replace(
        "OUTPUT", f"sys.{broken}"
    )
    ours, theirs = os.pipe()
    os.close(ours)
    other = "stderr" if broken == "stdout" else "stdout"
    with os.fdopen(theirs, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-c", f"{program}sys.exit(run_command('exo', work))"],
            stdin=subprocess.DEVNULL,
            check=False,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            **{broken: pipe, other: subprocess.PIPE},  # type: ignore[call-overload]  # no overload knows names
        )
    assert (done.returncode, getattr(done, other)) == (141, "")


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_is_full(unbuffered: str) -> None:
    program = "import sys\nfrom exo.cli.entry import run_command\nsys.exit(run_command('exo', lambda: print('x') or 0))"
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=env
        )
    assert (done.returncode, done.stderr) == (2, "exo: The output cannot be written: No space left on device.\n")


@pytest.mark.slow
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_what_the_caller_has_closed_is_as_dev_null(closed: tuple[int, ...], tmp_path: Path) -> None:
    work = "print(sys.stdin.read(), end='') or print('out') or print('err', file=sys.stderr) or 0"
    program = (
        "import os, sys\nfrom exo.cli.entry import run_command\n"
        f"code = run_command('exo', lambda: {work})\n"
        f"free = os.open({str(tmp_path / 'next')!r}, os.O_WRONLY | os.O_CREAT)\n"
        "sys.exit(code if free > 2 else 9)"
    )
    closing = " ".join(f"{number}>&-" for number in closed)
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -c "$1" {closing}', sys.executable, program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    said = ("" if 1 in closed else "out\n", "" if 2 in closed else "err\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, *said)


def test_an_error_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> int:
        raise PullError("the file \x1b[31mgr\u00fcn\x07\x9b\u202e has:\nnothing")

    assert run_command("exo", fails) == 2
    assert capsys.readouterr().err == "exo: the file \\x1b[31mgr\u00fcn\\x07\\x9b\\u202e has:\nnothing\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "command", "while_importing"),
    [
        ("exo.cli.main", "version", "exo.cli.entry"),
        ("exo.cli.main", "version", "argparse"),
        ("exo.cli.main", "version", "exo.types"),
        ("exo.cli.main", "version", "exo.cli.settings"),
        ("exo.cli.main", "models", "exo.cli.store"),
        ("exo_rkllm.cli.main", "list", "argparse"),
        ("exo_rkllm.cli.main", "list", "exo.types"),
        ("exo_rkllm.cli.main", "list", "exo_rkllm.cli.settings"),
        ("exo_rkllm.cli.main", "list", "httpx2"),
    ],
)
def test_ctrl_c_while_a_command_begins(module: str, command: str, while_importing: str) -> None:
    program = INTERRUPTED_IMPORT.replace("MODULE", module)
    done = subprocess.run(
        [sys.executable, "-c", program, command, while_importing],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
