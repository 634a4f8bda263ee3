"""The commands of `rkllama` as people type them, with a running server and without one."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from fake_hub import FakeHub
from npu_board import SimBoard

from exo.models import read_modelfile
from rkllama_support import Rkllama, command, hashes, on_terminal, one_sentence, serve
from rkllm_sim.model import write_model
from support import RKLLAMA, environment, run_well, wait_until
from terminal_support import Terminal

pytestmark = pytest.mark.slow

NOBODY = "1"
"""A port on which nothing listens."""
REPOSITORY = "maker/models"


class Cli:
    """The commands, the store that they change, and the server that they ask, if there is one."""

    def __init__(self, board: SimBoard, hub: FakeHub, server: Rkllama | None) -> None:
        self.board = board
        self.hub = hub
        self.server = server
        self.env = {"RKLLAMA_PORT": server.port if server else NOBODY, "HF_ENDPOINT": hub.url}

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return command(self.board, *arguments, **self.env)

    def well(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        done = self.run(*arguments)
        assert done.returncode == 0, done
        return done

    def fails(self, *arguments: str | Path) -> str:
        """The sentence of a command that has to fail, the last line of what it says."""
        return one_sentence(self.run(*arguments), after_steps=arguments[0] in {"create", "pull"})

    def names(self) -> list[str]:
        return sorted(path.name for path in self.board.store.iterdir() if not path.name.startswith("."))


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


@pytest.fixture(scope="module", params=["server", "store"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, hub: FakeHub) -> Iterator[Cli]:
    where: Literal["server", "store"] = request.param
    folder = tmp_path_factory.mktemp(where)
    board = SimBoard(folder)
    if where == "store":
        yield Cli(board, hub, None)
        return
    with serve(board, folder, ready=False, HF_ENDPOINT=hub.url) as node:
        yield Cli(board, hub, Rkllama(board, node))


@pytest.fixture
def cli(shared: Cli) -> Iterator[Cli]:
    """With an empty store."""
    yield shared
    if shared.server is not None:
        for model in shared.server.loaded():
            shared.server.http.post("/unload_model", json={"model_name": model})
    for path in shared.board.store.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def set_age(folder: Path, seconds: float) -> None:
    for path in folder.iterdir():
        os.utime(path, (time.time() - seconds,) * 2)


def test_help_and_version() -> None:
    shown = run_well(RKLLAMA, "--help")
    for name in ("serve", "list", "ps", "run", "show", "pull", "create", "cp", "rm", "stop"):
        assert name in shown
    assert run_well(RKLLAMA) == shown
    assert run_well(RKLLAMA, "pull", "--help").startswith("usage: rkllama pull")
    assert run_well(RKLLAMA, "--version").startswith("rkllama ")


def test_list(cli: Cli) -> None:
    assert cli.well("list").stdout == "NAME  PARAMETERS  TYPE  SIZE  MODIFIED\n"
    long = cli.board.add_model("Qwen2.5-1.5B-Instruct-rk3588-w8a8_g128-opt-0")
    tiny = cli.board.add_model("tiny")
    set_age(long.parent, 3 * 3600 + 60)
    set_age(tiny.parent, 25 * 3600)
    sizes = [f"{path.stat().st_size / 1000:.3g} KB" for path in (long, tiny)]
    expected = (
        f"NAME                                          PARAMETERS  TYPE       SIZE     MODIFIED\n"
        f"Qwen2.5-1.5B-Instruct-rk3588-w8a8_g128-opt-0  1.5B        W8A8_G128  {sizes[0]}  3 hours ago\n"
        f"tiny                                                                 {sizes[1]}  1 day ago\n"
    )
    assert cli.well("list").stdout == expected
    assert cli.well("ls").stdout == expected


def test_list_on_a_terminal(cli: Cli) -> None:
    name = "Qwen2.5-1.5B-Instruct-rk3588-w8a8_g128-opt-0"
    cli.board.add_model(name)
    code, wide = on_terminal(cli.board, "list", columns=120, **cli.env)
    assert code == 0
    assert wide.splitlines()[0].split() == ["NAME", "PARAMETERS", "TYPE", "SIZE", "MODIFIED"]
    assert wide.splitlines()[1].split()[:3] == [name, "1.5B", "W8A8_G128"]
    code, narrow = on_terminal(cli.board, "list", columns=50, **cli.env)
    assert (code, max(map(len, narrow.splitlines())) <= 50) == (0, True)
    assert name in "".join(line.split()[0] for line in narrow.splitlines())  # folded, not cut


def test_show(cli: Cli) -> None:
    modelfile = 'SYSTEM="Be brief."\nTEMPERATURE=0.5\nSTOP="END"\nLICENSE="Apache-2.0"\nTEMPLATE="{{ messages }}"\n'
    cli.board.add_model("Qwen2.5-1.5B-Instruct-rk3588-w8a8-opt-0", modelfile=modelfile)
    shown = cli.well("show", "qwen2.5:1.5b").stdout
    rows = [line.split(None, 1) for line in shown.splitlines()]
    assert dict(row for row in rows if row[0] != "parameter") == {
        "family": "qwen2",
        "parameters": "1.5B",
        "type": "W8A8",
        "context": "4096",
        "capabilities": "completion, tools",
        "license": "Apache-2.0",
        "system": "Be brief.",
    }
    parameters = [line.split(None, 1)[1].split() for line in shown.splitlines() if line.startswith("parameter ")]
    assert parameters == [["num_ctx", "4096"], ["temperature", "0.5"], ["stop", '"END"']]
    assert cli.well("show", "qwen2.5:1.5b", "--system").stdout == "Be brief.\n"
    assert cli.well("show", "qwen2.5:1.5b", "--modelfile").stdout.startswith('FROM="Qwen2.5-1.5B-Instruct-rk3588-')
    lines = cli.well("show", "qwen2.5:1.5b", "--parameters").stdout.splitlines()
    assert [line.split() for line in lines] == parameters
    assert "'nobody'" in cli.fails("show", "nobody")


def test_run(cli: Cli) -> None:
    cli.board.add_model("Tiny-0.1B")
    done = cli.well("run", "tiny:0.1b", "Hello", "there")
    assert len(done.stdout.split()) >= 8
    assert done.stdout == cli.well("run", "Tiny-0.1B", "Hello there").stdout
    if cli.server is None:
        assert "the model runs in this process" in done.stderr
    else:
        assert (done.stderr, done.stdout.strip()) == ("", cli.server.answer("Tiny-0.1B", "Hello there").strip())
    conversation = subprocess.run(
        [RKLLAMA, "run", "Tiny-0.1B"],
        input="Hello there\nHello there\n/clear\nHello there\n/bye\n",
        env=environment(cli.board.env | cli.env),
        capture_output=True,
        text=True,
        check=True,
    )
    first, second, third = conversation.stdout.splitlines()
    assert f"{first}\n" == f"{third}\n" == done.stdout
    assert second != first
    nobody = cli.run("run", "nobody", "Hello")
    assert (nobody.returncode, nobody.stderr.splitlines()[-1].startswith("rkllama: ")) == (2, True)
    assert "nobody" in nobody.stderr


def test_create(cli: Cli, tmp_path: Path) -> None:
    base = cli.board.add_model("base")
    ollama = tmp_path / "Modelfile"
    ollama.write_text('FROM base\nSYSTEM """Be\nbrief."""\nPARAMETER temperature 0.1\n')
    assert "success" in cli.well("create", "brief", "-f", ollama).stderr.splitlines()
    made = read_modelfile(cli.board.store / "brief")
    assert (made.system, made.parameters.temperature, made.parameters.num_ctx) == ("Be\nbrief.", 0.1, 4096)
    assert (cli.board.store / "brief/base.rkllm").samefile(base)
    before = hashes(cli.board.store)
    assert "'brief'" in cli.fails("create", "brief", "-f", ollama)
    assert cli.fails("create", "../brief", "-f", ollama)
    assert str(tmp_path / "nothing") in cli.fails("create", "new", "-f", tmp_path / "nothing")
    for text in ("SYSTEM x\n", f"FROM {tmp_path}/x.rkllm\n", 'FROM="base"\nTEMPERATURE=hot\n'):
        ollama.write_text(text)
        assert cli.fails("create", "new", "-f", ollama), text
    assert hashes(cli.board.store) == before
    old = subprocess.run(
        [RKLLAMA, "create", "brief", "-f", "-", "--force"],
        input='FROM="base.rkllm"\nSYSTEM="Be long."\n'.replace("base.rkllm", "base"),
        env=environment(cli.board.env | cli.env),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "success" in old.stderr
    assert read_modelfile(cli.board.store / "brief").system == "Be long."


def test_copy(cli: Cli) -> None:
    source = cli.board.add_model("source", seed=1)
    cli.board.add_model("other", seed=2)
    done = cli.well("cp", "source", "copy")
    assert (done.stdout, done.stderr) == ("copied source to copy\n", "")
    assert hashes(cli.board.store / "copy") == hashes(source.parent)
    before = hashes(cli.board.store)
    assert "'other'" in cli.fails("cp", "source", "other")
    assert "'nobody'" in cli.fails("cp", "nobody", "new")
    assert cli.fails("cp", "source", "../out")
    assert hashes(cli.board.store) == before
    cli.well("cp", "source", "other", "--force")
    assert (cli.board.store / "other/source.rkllm").samefile(source)


def test_remove(cli: Cli) -> None:
    for name in ("first", "second", "third", "kept"):
        cli.board.add_model(name)
    (cli.board.store / "third/notes.txt").write_text("mine")
    if cli.server is not None:
        assert cli.server.answer("first")
    assert cli.well("rm", "first", "second").stdout == "deleted first\ndeleted second\n"
    assert cli.names() == ["kept", "third"]
    left = cli.well("rm", "third").stdout
    assert left.startswith("deleted third")
    assert "notes.txt" in left
    assert [path.name for path in (cli.board.store / "third").iterdir()] == ["notes.txt"]
    for name in ("../models/kept", str(cli.board.store / "kept")):
        assert cli.fails("rm", name)
    assert (cli.board.store / "kept/kept.rkllm").exists()
    stopped = cli.run("rm", "kept", "nobody")
    assert (stopped.returncode, stopped.stdout) == (2, "deleted kept\n")
    assert len(stopped.stderr.splitlines()) == 1


def test_pull(cli: Cli, tmp_path: Path) -> None:
    made = write_model(tmp_path / "made", name="small")
    content, tokenizer = made.read_bytes(), (made.parent / "tokenizer.json").read_bytes()
    cli.hub.add(REPOSITORY, {"small.rkllm": content, "tokenizer.json": tokenizer})
    done = cli.well("pull", f"{REPOSITORY}/small.rkllm")
    lines = done.stderr.splitlines()
    assert (done.stdout, lines[0], lines[-1]) == ("", "pulling manifest", "success")
    assert "pulling small.rkllm 100 %" in lines
    assert (cli.board.store / "small/small.rkllm").read_bytes() == content
    before = hashes(cli.board.store)
    assert "small" in cli.fails("pull", f"{REPOSITORY}/small.rkllm")
    assert cli.fails("pull", f"{REPOSITORY}/small.rkllm:../../out")
    assert "qwen2.5-3b-rkllm" in cli.fails("pull", "qwen2.5-3b-rkllm")
    assert "--tokenizer" in cli.fails("pull", "small", "--from", "maker/original")
    assert hashes(cli.board.store) == before
    changed = write_model(tmp_path / "changed", name="small", seed=2).read_bytes()
    cli.hub.add(REPOSITORY, {"small.rkllm": changed, "tokenizer.json": tokenizer})
    cli.well("pull", f"{REPOSITORY}/small.rkllm", "--force")
    assert (cli.board.store / "small/small.rkllm").read_bytes() == changed


def test_pull_on_a_terminal(cli: Cli, tmp_path: Path) -> None:
    content = write_model(tmp_path / "made", name="small").read_bytes()
    cli.hub.add(REPOSITORY, {"small.rkllm": content})
    code, shown = on_terminal(cli.board, "pull", f"{REPOSITORY}/small.rkllm", columns=100, **cli.env)
    assert code == 0, shown
    assert "pulling manifest" in shown
    assert "pulling small.rkllm" in shown
    size = f"{len(content) / 1000:.1f}"
    assert f"{size}/{size} kB" in shown
    assert "success" in shown
    code, shown = on_terminal(cli.board, "pull", f"{REPOSITORY}/small.rkllm", columns=100, **cli.env)
    assert (code, "Traceback" in shown) == (2, False)


def test_pull_of_the_tokenizer(cli: Cli, tmp_path: Path) -> None:
    cli.board.add_model("bare", with_tokenizer=False)
    files = {path.name: path.read_bytes() for path in write_model(tmp_path / "made").parent.glob("*.json")}
    cli.hub.add("maker/original", files)
    assert cli.fails("pull", "bare", "--tokenizer")
    done = cli.well("pull", "bare", "--tokenizer", "--from", "maker/original")
    assert "tokenizer.json" in done.stderr
    assert (cli.board.store / "bare/tokenizer.json").read_bytes() == files["tokenizer.json"]


def test_ps_and_stop(cli: Cli) -> None:
    cli.board.add_model("one")
    cli.board.add_model("two")
    if cli.server is None:
        for arguments in (["ps"], ["stop", "one"]):
            assert "rkllama serve" in cli.fails(*arguments)
        return
    assert cli.well("ps").stdout == "NAME  SIZE  CONTEXT  UNTIL\n"
    cli.server.answer("one", keep_alive=-1)
    cli.server.answer("two", keep_alive="90m")
    assert cli.well("ps").stdout == (
        "NAME  SIZE    CONTEXT  UNTIL\n"
        "two   134 MB  4096     in 1 hour\n"
        "one   134 MB  4096     for ever\n"
    )  # fmt: skip
    done = cli.well("stop", "two")
    assert (done.stdout, done.stderr) == ("", "")
    assert cli.server.loaded() == ["one"]
    cli.well("stop", "two")  # as in Ollama it is enough that it is not loaded
    assert cli.server.loaded() == ["one"]
    assert "nobody" in cli.fails("stop", "nobody")


def test_run_with_flags_between_its_words(cli: Cli) -> None:
    cli.board.add_model("tiny")
    expected = cli.well("run", "tiny", "Hello there").stdout
    assert cli.well("run", "tiny", "Hello", "--port", cli.env["RKLLAMA_PORT"], "there").stdout == expected
    refused = cli.run("run", "tiny", "--nonsense", "Hello")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("usage: rkllama run ")
    assert refused.stderr.endswith("rkllama run: error: unrecognized arguments: --nonsense Hello\n")


def test_run_of_an_unknown_model(cli: Cli) -> None:
    cli.board.add_model("tiny")
    for arguments in (["run", "nobody", "Hello"], ["run", "nobody"]):
        done = cli.run(*arguments)
        assert (done.returncode, done.stdout, "nobody" in done.stderr) == (2, "", True)


def test_readers_that_have_gone_away(cli: Cli) -> None:
    cli.board.add_model("tiny")
    for arguments in (["list"], ["run", "tiny", "Hello"]):
        ours, theirs = os.pipe()
        os.close(ours)
        with os.fdopen(theirs, "wb") as pipe:
            done = subprocess.run(
                [RKLLAMA, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=pipe,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(cli.board.env | cli.env),
                check=False,
            )
        assert (done.returncode, "Traceback" in done.stderr, "Exception" in done.stderr) == (141, False, False), done


def test_a_conversation_on_a_terminal(cli: Cli) -> None:
    cli.board.add_model("tiny")
    with Terminal(RKLLAMA, "run", "tiny", columns=200, env=cli.board.env | cli.env) as terminal:
        terminal.wait_for(">>> ")
        terminal.type("Hello\r")
        terminal.wait_for(cli.well("run", "tiny", "Hello").stdout.strip())
        terminal.wait_for(">>> ")
        terminal.type("\x04")
        assert terminal.end() == 0


def test_folders_that_are_not_served_are_named(tmp_path: Path) -> None:
    board = SimBoard(tmp_path / "board")
    board.add_model("one")
    (board.store / "one").rename(board.store / "my model")
    listed = command(board, "list", RKLLAMA_PORT=NOBODY)
    assert listed.stdout == "NAME  PARAMETERS  TYPE  SIZE  MODIFIED\n"
    assert listed.stderr.startswith("not served: 'my model': rename the folder")
    with serve(board, tmp_path, ready=False) as node:
        wait_until(lambda: "Not served: 'my model'" in node.log, timeout=20, what="the folder in the greeting")


def test_the_status_line_has_the_programs_name(tmp_path: Path) -> None:
    board = SimBoard(tmp_path / "board")
    board.add_model("one")
    with Terminal(RKLLAMA, "serve", "--port", "0", env=board.env) as terminal:
        terminal.wait_for(" rkllama ")
        terminal.wait_for("● ready  rkllm: no model loaded")
        terminal.type("\x03")
        assert terminal.end() == 0
