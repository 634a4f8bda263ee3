"""A running node whose key file is changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import StartNode
from support import EXO, Node, run, wait_until

pytestmark = pytest.mark.slow


def make_key(file: Path, *arguments: str) -> str:
    """A key whose line is added to the file."""
    made = run(EXO, "key", *arguments)
    with file.open("a", encoding="utf-8") as out:
        out.write(made.stdout)
    return made.stderr.splitlines()[1]


def status(node: Node, key: str) -> int:
    node.http.headers["authorization"] = f"Bearer {key}"
    return node.chat("hi").status_code


def test_a_key_file_is_changed_under_a_running_node(start_node: StartNode, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    alice = make_key(file, "alice")
    node = start_node("--inference-engine", "dummy", "--api-keys-file", str(file))
    assert status(node, alice) == 200
    assert node.http.request("DELETE", "/api/delete", json={"model": "dummy"}).json()["code"] == "admin_required"

    bob = make_key(file, "bob", "--admin", "--tokens", "1")
    assert [status(node, key) for key in (bob, bob, alice)] == [200, 429, 200]

    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text(lines[1], encoding="utf-8")
    assert status(node, alice) == 401

    file.write_text("bob:oops", encoding="utf-8")
    assert [status(node, key) for key in (alice, bob)] == [401, 429]
    wait_until(lambda: f"{file}, line 1: expected" in node.log, timeout=5, what="the mistake in the log")
    assert alice not in node.log
    assert bob not in node.log
    assert node.stop() == 0
