"""Nodes that die, vanish, hang, drain and return behind the rendered HAProxy, under more load than there are slots."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from cluster_support.failures import answered, broken, check_nothing_ran_twice, check_whole_answers, paced_nodes
from cluster_support.load import Load, is_whole, questions
from cluster_support.network import Lab
from cluster_support.nodes import ClusterNode
from cluster_support.rendered import RenderedHaproxy, haproxy_before
from cluster_support.rules import ANSWERED
from support import wait_until

pytestmark = pytest.mark.system
CLIENTS = 24
ANSWER_TIMEOUT = 8
LONGEST = 20.0
"""Seconds: more than any of the times that the rendered file sets for noticing that a node is gone."""
_FAILED = re.compile(
    r" exo \S+/(?P<server>\S+) \d+/-?\d+/(?P<connect>-?\d+)/\S+ (?P<status>-?\d+) \d+ - - (?P<state>\S+) .* \"POST "
)
Fail = Callable[[ClusterNode], object]


def is_loaded(proxy: RenderedHaproxy) -> bool:
    servers = proxy.servers().values()
    return all(server.running for server in servers) and proxy.waiting() >= CLIENTS // 2


def wait_for_work(proxy: RenderedHaproxy, node: ClusterNode) -> None:
    """Wait until a node is given new requests."""
    before = proxy.servers()[node.name].sessions
    wait_until(lambda: proxy.servers()[node.name].sessions > before + 2, timeout=30, what=f"{node.name} to have work")


def handed_over(proxy: RenderedHaproxy) -> list[bool]:
    """For each request that HAProxy gave up on: whether a node had accepted its connection."""
    found = [match for match in map(_FAILED.search, proxy.program.log.splitlines()) if match]
    return [int(match["connect"]) >= 0 for match in found if match["status"] != "200" or match["state"] != "----"]


def fail_and_return(
    proxy: RenderedHaproxy, load: Load, node: ClusterNode, fail: Fail, come_back: Fail, *, at_most: int
) -> None:
    """One node of a loaded cluster; `at_most` so many requests may break."""
    wait_until(lambda: is_loaded(proxy), timeout=30, what="a queue")
    before = len(broken(load.finished))
    fail(node)
    proxy.wait_for(node, "DOWN")
    wait_until(lambda: proxy.servers()[node.name].running == 0, timeout=LONGEST, what=f"{node.name} to have no streams")
    others = len(load.finished)
    wait_until(lambda: len(load.finished) > others + CLIENTS // 2, timeout=30, what="the others to serve the queue")
    lost = broken(load.finished)[before:]
    assert len(lost) <= at_most, [chat.problem for chat in lost]
    come_back(node)
    wait_for_work(proxy, node)


def test_only_what_a_node_has_in_hand_is_lost(lab: Lab, tmp_path: Path) -> None:
    """Measured: a killed node is noticed by the next request, in milliseconds; a stream of a node that is cut off
    breaks after 5.1 seconds; a node that hangs gets nothing new after 4 to 7 seconds, and what it has in hand ends
    after the time of an answer.

    A node has as many requests in hand as it has slots. One that is killed may take one more for each: the kernel
    closes its connections and the socket it listens on one after the other.
    """
    nodes = paced_nodes(lab)
    proxy = haproxy_before(nodes, tmp_path, answer_timeout=ANSWER_TIMEOUT)
    with Load(proxy.url, questions(), at_once=CLIENTS) as load:
        for node, fail, come_back, at_most in (
            (nodes[0], ClusterNode.kill, ClusterNode.start, 2),
            (nodes[1], lambda node: node.host.cut_off(), lambda node: node.host.restore(), 1),
            (nodes[2], ClusterNode.hang, ClusterNode.resume, 1),
        ):
            fail_and_return(proxy, load, node, fail, come_back, at_most=at_most)
        chats = load.stop()
    lost = broken(chats)
    assert 1 <= len(lost) <= 4
    assert all(chat.ended - chat.asked < LONGEST + ANSWER_TIMEOUT for chat in chats)
    assert handed_over(proxy) == [True] * len(lost)
    check_whole_answers(chats)
    check_nothing_ran_twice(nodes, chats)


def test_a_stream_of_a_node_that_is_cut_off_breaks_long_before_the_time_of_an_answer(lab: Lab, tmp_path: Path) -> None:
    (node,) = nodes = paced_nodes(lab, 1, tokens=10_000)
    proxy = haproxy_before(nodes, tmp_path, answer_timeout=300)
    with Load(proxy.url, questions(1), at_once=1) as load:
        wait_until(lambda: load.answering == 1, timeout=20, what="an answer")
        node.host.cut_off()
        wait_until(lambda: load.answering == 0, timeout=LONGEST, what="its end")
        (chat,) = load.wait()
    assert (chat.status, chat.finish, is_whole(chat)) == (200, None, False)


@pytest.mark.parametrize("fail", [ClusterNode.kill, lambda node: node.host.cut_off()], ids=["killed", "cut off"])
def test_a_request_for_a_node_that_is_gone_is_served_by_another(lab: Lab, tmp_path: Path, fail: Fail) -> None:
    """Also those of a conversation that the node had: it goes on elsewhere at once, and stays there."""
    nodes = paced_nodes(lab, 2)
    proxy = haproxy_before(nodes, tmp_path)
    by_name = {node.name: node for node in nodes}

    def turns(first: int, last: int) -> list[str]:
        asked = {"role": "user", "content": "A conversation"}
        bodies = [{"messages": [asked, *ANSWERED * (turn - 1)]} for turn in range(first, last + 1)]
        answers = [httpx2.post(f"{proxy.url}/v1/chat/completions", json=body, trust_env=False) for body in bodies]
        assert {answer.status_code for answer in answers} == {200}
        return [answer.headers["x-exo-node"] for answer in answers]

    first, *following = turns(1, 3)
    assert following == [first] * 2
    fail(by_name[first])
    (other,) = set(by_name) - {first}
    assert turns(4, 6) == [other] * 3
    proxy.wait_for(by_name[first], "DOWN")
    if fail is ClusterNode.kill:
        by_name[first].start()
    else:
        by_name[first].host.restore()
    proxy.wait_for(by_name[first], "UP")
    assert turns(7, 8) == [other] * 2


def test_a_node_that_drains_ends_its_streams_and_gets_nothing_new(lab: Lab, tmp_path: Path) -> None:
    nodes = paced_nodes(lab, slots=2)
    proxy = haproxy_before(nodes, tmp_path, slots=2)
    with Load(proxy.url, questions(), at_once=CLIENTS) as load:
        wait_until(lambda: is_loaded(proxy), timeout=30, what="a queue")
        assert nodes[0].http.post("/v1/drain", json={"drain": True}).json()["draining"]
        proxy.wait_for(nodes[0], "NOLB")
        wait_until(lambda: proxy.servers()["n1"].running == 0, timeout=30, what="its streams to end")
        had, others = proxy.servers()["n1"].sessions, len(load.finished)
        wait_until(lambda: len(load.finished) > others + CLIENTS // 2, timeout=30, what="the others to serve the queue")
        assert proxy.servers()["n1"].sessions == had
        nodes[0].http.post("/v1/drain", json={"drain": False})
        wait_for_work(proxy, nodes[0])
        chats = load.stop()
    assert broken(chats) == []
    check_whole_answers(chats)
    check_nothing_ran_twice(nodes, chats)


def test_a_node_that_is_stopped_loses_nothing(lab: Lab, tmp_path: Path) -> None:
    """SIGTERM; its answers are shorter than its grace time."""
    nodes = paced_nodes(lab, slots=2)
    proxy = haproxy_before(nodes, tmp_path, slots=2)
    with Load(proxy.url, questions(), at_once=CLIENTS) as load:
        for node in nodes[:2]:
            wait_until(lambda: is_loaded(proxy), timeout=30, what="a queue")
            assert node.stop() == 0
            node.start()
            wait_for_work(proxy, node)
        chats = load.stop()
    assert broken(chats) == []
    check_whole_answers(chats)
    check_nothing_ran_twice(nodes, chats)


def test_a_reload_loses_nothing(lab: Lab, tmp_path: Path) -> None:
    nodes = paced_nodes(lab)
    proxy = haproxy_before(nodes, tmp_path)
    with Load(proxy.url, questions(), at_once=CLIENTS) as load:
        for _ in range(3):
            wait_until(lambda: is_loaded(proxy), timeout=30, what="a queue")
            proxy.program.reload()
        wait_until(lambda: is_loaded(proxy), timeout=30, what="a queue")
        chats = load.stop()
    assert len(chats) > CLIENTS
    assert broken(chats) == []
    check_nothing_ran_twice(nodes, chats)


def test_a_client_that_leaves_the_queue_reaches_no_node_and_one_that_leaves_its_answer_frees_a_slot(
    lab: Lab, tmp_path: Path
) -> None:
    (node,) = nodes = paced_nodes(lab, 1, tokens=10_000)
    proxy = haproxy_before(nodes, tmp_path)
    with Load(proxy.url, questions(1), at_once=1, seconds=6) as running:
        wait_until(lambda: running.answering == 1, timeout=20, what="an answer")
        with Load(proxy.url, questions(1), at_once=1, seconds=2) as waiting:
            wait_until(lambda: proxy.waiting() == 1, timeout=20, what="a request in the queue")
            (left,) = waiting.wait()
        wait_until(lambda: proxy.waiting() == 0, timeout=20, what="nobody in the queue")
        assert (left.status, answered(nodes, 499)) == (0, [])
        (begun,) = running.wait()
    assert (begun.status, is_whole(begun)) == (200, False)
    wait_until(lambda: node.http.get("/ready").json()["running"] == 0, timeout=20, what="a free slot")
    wait_until(lambda: len(answered(nodes, 499)) == 1, timeout=20, what="the one that had begun, and no other")
    assert 'exo_requests_total{model="dummy",status="499"} 1.0' in node.http.get("/metrics").text
    assert proxy.servers()["n1"].sessions == 1


def test_the_time_in_the_queue_has_an_end(lab: Lab, tmp_path: Path) -> None:
    nodes = paced_nodes(lab, 1, tokens=10_000)
    proxy = haproxy_before(nodes, tmp_path, queue_timeout=2)
    with Load(proxy.url, questions(1), at_once=1, seconds=6) as running:
        wait_until(lambda: running.answering == 1, timeout=20, what="an answer")
        body = {"messages": [{"role": "user", "content": "Is a slot free?"}]}
        refused = httpx2.post(f"{proxy.url}/v1/chat/completions", json=body, trust_env=False, timeout=20)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert refused.json()["error"]["code"] == "proxy_error"
    assert proxy.servers()["n1"].sessions == 1


def test_the_time_of_an_answer_does_not_count_in_the_queue(lab: Lab, tmp_path: Path) -> None:
    nodes = paced_nodes(lab, 1, tokens=32)
    proxy = haproxy_before(nodes, tmp_path, answer_timeout=2, queue_timeout=60)
    with Load(proxy.url, questions(5), at_once=5) as load:
        chats = load.wait()
    assert broken(chats) == []
    assert max(chat.times[0] - chat.asked for chat in chats) > 4
