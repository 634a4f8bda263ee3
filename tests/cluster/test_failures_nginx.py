"""Nodes that die, vanish, hang, drain and return behind the rendered nginx.

nginx asks no node how it is. A request is at a node from the start and waits there; it goes to another if the node
gives it up before the first byte of the answer. A node that hangs, or is cut off, is noticed only by `answer_timeout`,
which is short here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from cluster_support.failures import answered, broken, check_whole_answers, paced_nodes
from cluster_support.load import Load, by_node, is_whole, questions, run
from cluster_support.network import Lab
from cluster_support.nodes import ClusterNode, all_ready, dummy_node
from cluster_support.rendered import nginx_before
from support import wait_until

pytestmark = pytest.mark.system
CLIENTS = 12
RATE = 40.0
ANSWER_TIMEOUT = 6
LONGEST = 20.0
"""Seconds: more than the times for a connection and for an answer together."""
Fail = Callable[[ClusterNode], object]


def is_loaded(nodes: list[ClusterNode]) -> bool:
    """Whether every node has a request that runs and one that waits."""
    told = [node.http.get("/ready").json() for node in nodes]
    return all(each["running"] and each["queued"] for each in told)


def wait_for_work(load: Load, nodes: Iterable[ClusterNode]) -> None:
    """Wait until each of these nodes has served a request that was sent after this moment or just before."""
    before = by_node(load.finished)

    def have_served() -> bool:
        now = by_node(load.finished)
        return all(now[node.name] > before[node.name] + 1 for node in nodes)

    wait_until(have_served, timeout=40, what="all nodes to have work")


@pytest.mark.parametrize(
    ("fail", "come_back"),
    [
        (ClusterNode.kill, ClusterNode.start),
        (lambda node: node.host.cut_off(), lambda node: node.host.restore()),
        (ClusterNode.hang, ClusterNode.resume),
    ],
    ids=["killed", "cut off", "hanging"],
)
def test_only_what_has_begun_to_be_answered_is_lost(lab: Lab, tmp_path: Path, fail: Fail, come_back: Fail) -> None:
    """Measured: the stream of a killed node breaks at once, that of one that is cut off or hangs after
    `answer_timeout`; what waited there is served by others then. A node that has failed three times is left alone for
    ten seconds."""
    nodes = paced_nodes(lab, rate=RATE)
    nginx = nginx_before(nodes, tmp_path, answer_timeout=ANSWER_TIMEOUT)
    with Load(nginx.url, questions(), at_once=CLIENTS) as load:
        wait_until(lambda: is_loaded(nodes), timeout=30, what="queues")
        fail(nodes[0])
        wait_for_work(load, nodes[1:])
        chats = load.stop()
    assert [chat.status for chat in broken(chats)] in ([], [200]), [chat.problem for chat in broken(chats)]
    assert all(chat.ended - chat.asked < LONGEST for chat in chats)
    check_whole_answers(chats)
    come_back(nodes[0])
    with Load(nginx.url, questions(), at_once=CLIENTS) as load:
        wait_for_work(load, nodes)
        chats = load.stop()
    assert broken(chats) == []


def test_nodes_that_drain_or_stop_lose_nothing(lab: Lab, tmp_path: Path) -> None:
    """Also what waits at a node that is stopped, which refuses it then."""
    nodes = paced_nodes(lab, rate=RATE)
    nginx = nginx_before(nodes, tmp_path)
    with Load(nginx.url, questions(), at_once=CLIENTS) as load:
        wait_until(lambda: is_loaded(nodes), timeout=30, what="queues")
        nodes[0].http.post("/v1/drain", json={"drain": True})
        assert nodes[1].stop() == 0
        nodes[1].start()
        wait_until(lambda: nodes[0].http.get("/ready").json()["running"] == 0, timeout=30, what="its streams to end")
        nodes[0].http.post("/v1/drain", json={"drain": False})
        nginx.reload()
        wait_for_work(load, nodes)
        chats = load.stop()
    assert broken(chats) == []
    check_whole_answers(chats)


def test_a_full_node_is_passed_over(lab: Lab, tmp_path: Path) -> None:
    """One without a queue beside one that has room for all."""
    nodes = [dummy_node(lab, "n1", "--queue-limit", "0", rate=20, tokens=8), dummy_node(lab, "n2", rate=20, tokens=8)]
    all_ready(nodes)
    nginx = nginx_before(nodes, tmp_path)
    chats = run(nginx.url, questions(16), at_once=8)
    assert broken(chats) == []
    check_whole_answers(chats)
    assert set(by_node(chats)) == {"n1", "n2"}
    assert answered(nodes[:1], 429)


def test_what_a_client_is_told_when_every_node_is_full(lab: Lab, tmp_path: Path) -> None:
    nodes = [dummy_node(lab, f"n{number}", "--queue-limit", "0", rate=20, tokens=40) for number in (1, 2)]
    all_ready(nodes)
    nginx = nginx_before(nodes, tmp_path)
    chats = run(nginx.url, questions(12), at_once=12)
    assert sum(map(is_whole, chats)) == 2
    assert {chat.status for chat in broken(chats)} <= {429, 503}


def test_a_client_that_leaves_is_left_by_its_node(lab: Lab, tmp_path: Path) -> None:
    """Whether it waits there, or has begun to be answered."""
    (node,) = nodes = paced_nodes(lab, 1, tokens=10_000)
    nginx = nginx_before(nodes, tmp_path)

    def told() -> tuple[int, int]:
        ready = node.http.get("/ready").json()
        return ready["running"], ready["queued"]

    with Load(nginx.url, questions(1), at_once=1, seconds=6) as running:
        wait_until(lambda: running.answering == 1, timeout=20, what="an answer")
        with Load(nginx.url, questions(1), at_once=1, seconds=2) as waiting:
            wait_until(lambda: told() == (1, 1), timeout=20, what="a request that waits")
            (left,) = waiting.wait()
        wait_until(lambda: told() == (1, 0), timeout=20, what="nobody to wait")
        assert left.status == 0
    wait_until(lambda: told() == (0, 0), timeout=20, what="a free slot")
    wait_until(lambda: len(answered(nodes, 499)) == 2, timeout=20, what="both to be known as gone")
