"""The commands that serve, as nodes of a cluster; here on loopback, so that nothing is announced."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx2
import pytest
from npu_board import SimBoard

from exo.cluster.membership.secret import new_challenge, proof
from rkllama_support import serve
from support import Node, NodeFailed, StartNode

pytestmark = pytest.mark.slow

SECRET = "0123456789abcdef0123456789abcdef"
CHALLENGE = new_challenge()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    file.chmod(0o600)
    return file


def check_member(node: Node, engine: str) -> None:
    """It is called `kitchen`, and knows the secret."""
    assert node.http.get("/ready").json()["name"] == "kitchen"
    answer = node.http.post("/v1/cluster/challenge", json={"challenge": CHALLENGE}).json()
    port = int(node.url.rpartition(":")[2])
    assert (answer["node"]["name"], answer["node"]["engine"]) == ("kitchen", engine)
    assert answer["proof"] == proof(SECRET.encode(), CHALLENGE, "127.0.0.1", port, answer["node"])


def test_a_node_of_a_cluster(start_node: StartNode, secret: Path) -> None:
    flags = ("--node-name", "kitchen", "--cluster-secret-file", str(secret))
    check_member(start_node("--inference-engine", "dummy", *flags), "dummy")


def test_rkllama_as_a_node_of_a_cluster(tmp_path: Path, secret: Path) -> None:
    env = {"RKLLAMA_NODE_NAME": "kitchen", "RKLLAMA_CLUSTER_SECRET_FILE": str(secret)}
    with serve(SimBoard(tmp_path / "board"), tmp_path, ready=False, **env) as node:
        check_member(node, "rkllm")


def test_a_secret_that_is_too_short_ends_the_command(start_node: StartNode, secret: Path) -> None:
    secret.write_text("short")
    with pytest.raises(NodeFailed, match="shorter than 32 characters"):
        start_node("--inference-engine", "dummy", "--cluster-secret-file", str(secret))


def test_a_node_on_loopback_does_not_load_what_it_does_not_need(tmp_path: Path) -> None:
    """Every import is told by -X importtime."""
    command = (sys.executable, "-X", "importtime", "-m", "exo.main")
    with Node("--inference-engine", "dummy", folder=tmp_path, command=command) as node:
        assert node.chat("Hi").status_code == httpx2.codes.OK
        assert node.http.get("/v1/topology").status_code == httpx2.codes.OK
        assert "exo.cluster.membership.member" in node.log
        assert "zeroconf" not in node.log
        assert "ifaddr" not in node.log


def test_a_drained_node_goes_on_with_what_it_has_and_ends_in_order(start_node: StartNode) -> None:
    node = start_node("--inference-engine", "dummy", env={"EXO_DUMMY_RATE": "10", "EXO_DUMMY_TOKENS": "10"})
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True}
    with node.http.stream("POST", "/v1/chat/completions", json=body) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("data: ")
        assert node.http.post("/v1/drain", json={"drain": True}).json()["running"] == 1
        assert node.chat("Hi").json()["error"]["code"] == "draining"
        assert "data: [DONE]" in list(lines)
    assert node.http.get("/ready").status_code == httpx2.codes.SERVICE_UNAVAILABLE
    assert node.stop() == 0
