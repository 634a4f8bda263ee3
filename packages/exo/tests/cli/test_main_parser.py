from __future__ import annotations

import argparse
import importlib.metadata
import sys
import types
from collections.abc import Mapping
from importlib.metadata import EntryPoint

import pytest

from exo.cli import main as module
from exo.types import PullError


class Hello:
    help = "say hello"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name")

    def run(self, flags: argparse.Namespace, env: Mapping[str, str]) -> int:
        if flags.name == "nobody":
            raise PullError("nobody is there")
        print(f"hello {flags.name}")
        return 3


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    code = types.ModuleType("plugin_of_a_test")
    code.__dict__.update(hello=Hello(), broken=object())
    monkeypatch.setitem(sys.modules, "plugin_of_a_test", code)
    points = [
        EntryPoint("hello", "plugin_of_a_test:hello", module.COMMANDS_GROUP),
        EntryPoint("broken", "plugin_of_a_test:broken", module.COMMANDS_GROUP),
        EntryPoint("absent", "no_such_module:command", module.COMMANDS_GROUP),
        EntryPoint("version", "plugin_of_a_test:hello", module.COMMANDS_GROUP),
    ]
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: points if group == module.COMMANDS_GROUP else []
    )


@pytest.mark.usefixtures("plugin")
def test_a_plugin_adds_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert module.main(["hello", "you"]) == 3
    assert capsys.readouterr().out == "hello you\n"


@pytest.mark.usefixtures("plugin")
def test_a_named_error_is_one_sentence_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert module.main(["hello", "nobody"]) == 2
    assert capsys.readouterr().err == "exo: nobody is there\n"


@pytest.mark.usefixtures("plugin")
def test_a_built_in_command_cannot_be_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    assert module.main(["version"]) == 0
    assert capsys.readouterr().out.startswith("exo ")


@pytest.mark.usefixtures("plugin")
def test_broken_commands_are_named_and_the_others_work(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        module.main(["--help"])
    shown = capsys.readouterr()
    assert "say hello" in shown.out
    assert "command absent of a plugin is broken" in shown.err
    assert "command broken of a plugin is broken" in shown.err


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_version", interrupted)
    assert module.main(["version"]) == 130


def test_only_the_model_of_run_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        module.main(["run"])
    assert capsys.readouterr().err.splitlines()[-1] == "exo run: error: the following arguments are required: model"


def test_the_commands_of_a_cluster_tell_what_they_are_for(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["cluster"], ["cluster", "render"], ["cluster", "watch"]):
        with pytest.raises(SystemExit, match="0"):
            module.main([*words, "--help"])
    cluster, render, watch = capsys.readouterr().out.split("usage: ")[1:]
    assert "Many nodes behind one address." in cluster
    assert "one of haproxy, nginx, prometheus" in render
    assert "Keep a running HAProxy in step with the inventory and with mDNS." in watch


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["render"], "the following arguments are required: PROGRAM"),
        (["render", "apache"], "argument PROGRAM: invalid choice: 'apache' (choose from "),
        (["drain"], "the following arguments are required: NODE"),
    ],
)
def test_what_a_command_of_a_cluster_needs_is_named(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        module.main(["cluster", *words])
    assert said in capsys.readouterr().err
