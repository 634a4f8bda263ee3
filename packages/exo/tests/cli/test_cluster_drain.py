from __future__ import annotations

import json
from pathlib import Path

import pytest
from told_node import READY, Asked, Reply, ToldNode, answer, inventory

from exo.cli import cluster_drain
from exo.cli.main import main

DRAINING = {**READY, "ready": False, "reason": "draining", "draining": True}


def drain(folder: Path, text: str, *words: str) -> int:
    path = folder / "cluster.toml"
    path.write_text(text)
    return main(["cluster", "drain", *words, "-i", str(path)])


def test_a_node_is_told_with_the_key_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = '[keys]\nnodes = "reads"\nadmin = "changes"\n'
    with ToldNode({"/v1/drain": answer(DRAINING)}) as node:
        assert drain(tmp_path, inventory(node, extra=keys), "N1") == 0
        assert drain(tmp_path, inventory(node, extra='[keys]\nnodes = "reads"\n'), "n1") == 0
        assert [(asked.method, asked.key, json.loads(asked.body)) for asked in node.asked] == [
            ("POST", "changes", {"drain": True}),
            ("POST", "reads", {"drain": True}),
        ]
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == "n1 takes no new requests; it runs 1 and 3 wait."
    assert shown.err == ""


def test_undo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ToldNode({"/v1/drain": answer(READY)}) as node:
        assert drain(tmp_path, inventory(node), "n1", "--undo") == 0
        assert json.loads(node.asked[0].body) == {"drain": False}
        node.replies["/v1/drain"] = answer({**READY, "ready": False, "reason": "the model \x1bloads"})
        assert drain(tmp_path, inventory(node), "n1", "--undo") == 0
    assert capsys.readouterr().out == "n1 takes requests again.\nn1 is not ready: the model loads.\n"


def test_waiting_ends_with_the_last_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_drain, "_PAUSE", 0.01)
    monkeypatch.setattr(cluster_drain, "_NOTICE", 0.02)
    left = [(0, 0), (1, 0), (0, 2)]

    def ready(asked: Asked) -> Reply:
        running, queued = left.pop()
        return answer({**DRAINING, "running": running, "queued": queued}, 503)

    with ToldNode({"/v1/drain": answer(DRAINING), "/ready": ready}) as node:
        assert drain(tmp_path, inventory(node), "n1", "--wait") == 0
        assert left == []
        node.replies["/ready"] = answer(READY)
        assert drain(tmp_path, inventory(node), "n1", "--wait") == 2
    shown = capsys.readouterr()
    assert shown.out.splitlines()[1] == "n1 has no request left."
    assert "takes requests again: somebody" in shown.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["n11"], "The inventory has no node 'n11'; it has n1. One that has joined by its secret"),
        (["x\x1b[31m"], "no node 'x\\x1b[31m'; it has n1."),
        (["n1", "--undo", "--wait"], "makes no sense with --undo"),
    ],
)
def test_a_mistake_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert drain(tmp_path, inventory(1), *words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reply", "extra", "said"),
    [
        ((401, b"{}"), "", "n1 asks for a key. Give the inventory one of scope admin: keys.admin_file."),
        (
            (403, b"{}"),
            '[keys]\nadmin = "x"\n',
            "refuses the key of the inventory for this. Give it one of scope admin",
        ),
        ((404, b"\x1b[31mno"), "", "n1 answers with status 404: [31mno"),
        ((200, b"nonsense"), "", "is no exo node"),
    ],
)
def test_a_refusal_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reply: Reply, extra: str, said: str
) -> None:
    with ToldNode({"/v1/drain": reply}) as node:
        assert drain(tmp_path, inventory(node, extra=extra), "n1") == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "\x1b" not in shown
