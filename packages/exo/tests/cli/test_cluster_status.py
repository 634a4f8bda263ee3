from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from told_node import READY, Asked, Reply, ToldNode, answer, inventory

from exo.cli.main import main
from exo.cluster import status as module

METRICS = b"""# HELP exo_tokens_per_second Decoding speed.
# TYPE exo_tokens_per_second gauge
exo_tokens_per_second{model="qwen"} 16.25
exo_tokens_per_second{model="other \\"one\\" } 99"} 99
rkllm_npu_load_ratio{core="0"} 0.5
rkllm_npu_load_ratio{core="1"} 0.7
rkllm_npu_load_ratio{core="2"} NaN
rkllm_temperature_celsius{zone="soc"} 54.5
rkllm_temperature_celsius{zone="npu"} 61.4
rkllm_temperature_celsius{zone="odd"} nonsense
"""


@pytest.fixture
def nobody() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def show(folder: Path, text: str, *flags: str) -> int:
    path = folder / "cluster.toml"
    path.write_text(text)
    return main(["cluster", "status", "-i", str(path), *flags])


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_a_line_for_each_node_and_1_if_one_is_not_ready(
    tmp_path: Path, nobody: int, capsys: pytest.CaptureFixture[str]
) -> None:
    loading = {**READY, "ready": False, "reason": "the model loads", "loaded": []}
    with ToldNode({"/ready": answer(READY), "/metrics": (200, METRICS)}) as one:
        assert show(tmp_path, inventory(one)) == 0
        capsys.readouterr()
        with ToldNode({"/ready": answer(loading, 503), "/metrics": (200, b"")}) as two:
            assert show(tmp_path, inventory(one, two, nobody)) == 1
    heads, first, second, third, note = capsys.readouterr().out.splitlines()
    assert cells(heads) == ["NODE", "READY", "MODEL", "QUEUE", "TOK/S", "NPU LOAD", "TEMPERATURE"]
    assert cells(first) == ["n1", "yes", "qwen", "3/128", "16.2", "60%", "61 °C"]
    assert cells(second) == ["n2", "no: the model loads", "-", "3/128", "-", "-", "-"]
    assert cells(third) == ["n3", "no: no answer", "-", "-", "-", "-", "-"]
    assert note.startswith(f"n3 at 127.0.0.1:{nobody} cannot be reached: ")


def test_the_same_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ToldNode({"/ready": answer(READY), "/metrics": (200, METRICS)}) as node:
        assert show(tmp_path, inventory(node), "--json") == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["tokens_per_second"] == 16.25
    assert (shown["name"], shown["slots"], shown["running"]) == ("n1", 2, 1)


@pytest.mark.parametrize(
    ("key", "said"),
    [("wrong", "n1 does not know the key of the inventory (keys.nodes_file)"), ("", "n1 asks for a key")],
)
def test_without_the_key_the_rest_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, said: str
) -> None:
    def metrics(asked: Asked) -> Reply:
        return (200, METRICS) if asked.key == "right" else (401, b"{}")

    with ToldNode({"/ready": answer(READY), "/metrics": metrics}) as node:
        assert show(tmp_path, inventory(node, extra=f'[keys]\nnodes = "{key}"\n' if key else "")) == 0
        refused = capsys.readouterr().out
        assert show(tmp_path, inventory(node, extra='[keys]\nnodes = "right"\n')) == 0
        assert [asked.key for asked in node.asked if asked.path == "/ready"] == [None, None]
    assert said in refused
    assert "qwen" in refused
    assert "16.2" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content", [b"<html>", b"[1]", b'{"ready": "yes"}', b'{"ready": true, "loaded": [' + b"[" * 100_000, b"\xff"]
)
def test_something_else_that_answers_is_no_node(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    with ToldNode({"/ready": (200, content)}) as node:
        assert show(tmp_path, inventory(node)) == 1
    assert "is no exo node" in capsys.readouterr().out


def test_nothing_that_a_node_says_reaches_the_terminal_raw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\nn9  yes\x9b31m\u202e"
    said = {**READY, "ready": False, "reason": evil, "loaded": [evil]}
    with ToldNode({"/ready": answer(said, 503), "/metrics": (200, METRICS)}) as node:
        assert show(tmp_path, inventory(node)) == 1
        shown = capsys.readouterr().out
        assert show(tmp_path, inventory(node), "--json") == 1
        as_json = capsys.readouterr().out
    for text in (shown, as_json):
        assert all(char.isprintable() or char == "\n" for char in text)
    assert len(shown.splitlines()) == 2


def test_an_answer_without_end_or_too_late_is_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONGEST_ANSWER", 1000)
    with ToldNode({"/ready": answer(READY), "/metrics": (200, METRICS * 10)}) as node:
        assert show(tmp_path, inventory(node)) == 0
    assert "n1 at" in capsys.readouterr().out.splitlines()[-1]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(module.ask_all, "__kwdefaults__", {"timeout": 0.05})
        assert show(tmp_path, inventory(silent.getsockname()[1])) == 1
    assert "does not answer within 0.05 seconds" in capsys.readouterr().out


def test_a_node_that_tells_too_much_costs_little(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A label of many quotation marks would keep the parser busy: such a line is left out."""
    told = {**READY, "loaded": [f"m{number}" for number in range(2000)]}
    line = b'exo_tokens_per_second{model="m7",long="' + b'\\"' * 400_000 + b'"} 9\n'
    with ToldNode({"/ready": answer(told), "/metrics": (200, line + b'exo_tokens_per_second{model="m7"} 3\n')}) as node:
        assert show(tmp_path, inventory(node)) == 0
    _, row = capsys.readouterr().out.splitlines()
    assert cells(row)[2:5] == ["m0, m1, m2, m3, m4, m5, m6, m7, …", "3/128", "3.0"]
