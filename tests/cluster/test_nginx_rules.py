"""What the rendered nginx.conf does with single requests: a real nginx before nodes that only tell what they got."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from cluster_support.rules import Cluster, cluster_of
from support import wait_until

pytestmark = pytest.mark.system
ALIKE = [("a", ["m"]), ("b", ["m"])]


@pytest.fixture
def alike(tmp_path: Path) -> Iterator[Cluster]:
    with cluster_of(tmp_path, "nginx", ALIKE, "max_body = 16384") as cluster:
        yield cluster


def test_requests_go_to_the_node_with_the_fewest(alike: Cluster) -> None:
    """One node holds what it gets, so that the other has all that comes later."""
    seen = {alike.node_of(f"Question {number}") for number in range(8)}
    assert seen == {"a", "b"}
    alike.nodes["a"].hold()
    held = []
    while not any(asked.path == "/held" for asked in alike.nodes["a"].asked):
        held.append(threading.Thread(target=alike.http.get, args=("/held",)))
        came = alike.came
        held[-1].start()
        wait_until(lambda: alike.came == came + 1, timeout=10, what="it to reach a node")  # noqa: B023 - called at once
    assert [alike.node_of(f"Question {number}") for number in range(6)] == ["b"] * 6
    alike.nodes["a"].let_go()
    for thread in held:
        thread.join()


@pytest.mark.parametrize("status", [429, 503])
def test_what_a_node_refuses_is_served_by_another(alike: Cluster, status: int) -> None:
    alike.nodes["a"].refusal = status
    assert [alike.node_of(f"Question {number}") for number in range(6)] == ["b"] * 6
    assert alike.nodes["a"].asked
    assert len(alike.nodes["b"].asked) == 6


def test_another_error_is_the_clients(alike: Cluster) -> None:
    for node in alike.nodes.values():
        node.refusal = 500
    assert alike.chat().status_code == 500
    assert alike.came == 1


def test_ids_keys_and_the_host_are_passed_on(alike: Cluster) -> None:
    own = {"x-request-id": "mine-1", "authorization": "Bearer a-key", "x-api-key": "another", "host": "models.example"}
    answer = alike.http.post("/v1/completions", json={"prompt": "Hello"}, headers=own)
    asked = alike.nodes[answer.json()["node"]].asked[-1]
    assert {name: asked.headers[name] for name in own} == own
    made = alike.http.post("/v1/completions", json={}, headers={"x-request-id": 'a "bad" one'})
    asked = alike.nodes[made.json()["node"]].asked[-1]
    assert len(asked.headers["x-request-id"]) == 32


def test_what_concerns_one_node_is_refused(alike: Cluster) -> None:
    for path in ("/api/pull", "/api/delete", "/api/blobs/sha256:1", "/v1/drain", "/v1/cluster/challenge", "/metrics"):
        answer = alike.http.post(path, json={})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "ask_the_node"), path
    assert alike.came == 0


def test_a_body_over_the_limit(alike: Cluster) -> None:
    text = "x" * (16384 - len(json.dumps({"prompt": ""})))
    assert alike.http.post("/v1/completions", json={"prompt": text[:-1]}).status_code == 200
    answer = alike.http.post("/v1/completions", json={"prompt": text + "xx"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_no_node_answers(tmp_path: Path) -> None:
    with cluster_of(tmp_path, "nginx", ALIKE) as cluster:
        for node in cluster.nodes.values():
            node.__exit__(None, None, None)
        answer = cluster.chat()
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json()["error"]["code"] == "proxy_error"
        assert cluster.http.get("/healthcheck").json() == {"status": "ok"}


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
def test_https(tmp_path: Path, certificate: Path, kind: str) -> None:
    """The proxy's certificate is checked, and there is nothing else than HTTPS on that port."""
    with cluster_of(tmp_path, kind, ALIKE, certificate=certificate) as cluster:  # type: ignore[arg-type]  # of a list
        assert cluster.node_of() in {"a", "b"}
        plain = str(cluster.http.base_url).replace("https", "http")
        try:
            status = httpx2.get(plain, trust_env=False).status_code
        except httpx2.TransportError:
            status = 400
        assert status == 400
