"""The nodes of the lab, and the clients that load them."""

from __future__ import annotations

import itertools

import httpx2
import pytest

from cluster_support.load import (
    Load,
    busiest_share,
    by_node,
    converse,
    first_token,
    is_whole,
    node_of,
    questions,
    run,
    same_node_share,
    tokens_per_second,
)
from cluster_support.network import Lab
from cluster_support.nodes import ClusterNode, all_ready, dummy_node, npu_node
from support import NodeFailed, wait_until

pytestmark = pytest.mark.system
KEY = "a-key-for-the-tests-of-the-lab"


@pytest.fixture(scope="module")
def nodes(shared_lab: Lab) -> dict[str, ClusterNode]:
    """One of each kind."""
    found = [
        dummy_node(shared_lab, "dummy", tokens=8, slots=2),
        npu_node(shared_lab, "npu", tokens=8, models=("m", "other")),
        npu_node(shared_lab, "rkllama", server="rkllama", tokens=8, keys=KEY),
    ]
    all_ready(found)
    return {node.name: node for node in found}


def test_each_kind_of_node_tells_its_name_in_its_answer(nodes: dict[str, ClusterNode]) -> None:
    for name, node in nodes.items():
        model = "dummy" if name == "dummy" else "m"
        (chat,) = run(node.url, questions(1, model=model), at_once=1, key=KEY)
        assert is_whole(chat), chat
        assert (node_of(chat), chat.completion_tokens, chat.finish) == (name, 8, "stop")
        assert 0 < first_token(chat) <= chat.ended - chat.asked


def test_nodes_have_the_keys_models_and_slots_that_were_asked_for(nodes: dict[str, ClusterNode]) -> None:
    (refused,) = run(nodes["rkllama"].url, questions(1, model="m"), at_once=1)
    assert refused.status == 401
    models = nodes["npu"].http.get("/v1/models").json()["data"]
    assert sorted(model["id"] for model in models) == ["m", "other"]
    assert nodes["dummy"].http.get("/ready").json()["slots"] == 2


def test_a_simulated_board_has_its_call_log(nodes: dict[str, ClusterNode]) -> None:
    before = len(nodes["npu"].board.runs())
    run(nodes["npu"].url, questions(3, model="other"), at_once=3)
    assert len(nodes["npu"].board.runs()) == before + 3


@pytest.mark.parametrize("name", ["dummy", "npu"])
def test_a_killed_node_is_gone_with_its_workers_and_starts_again_on_the_same_address(
    nodes: dict[str, ClusterNode], name: str
) -> None:
    node = nodes[name]
    assert (len(node.host.pids()) > 1) == (name == "npu")
    node.kill()
    wait_until(lambda: node.host.pids() == [], timeout=10, what="an end of its processes")
    with pytest.raises(httpx2.ConnectError):
        node.http.get("/ready")
    url = node.url
    node.start()
    assert node.url == url
    assert httpx2.get(f"{url}/ready", trust_env=False).json()["ready"]


@pytest.mark.parametrize("name", ["dummy", "npu"])
def test_a_node_that_hangs_takes_connections_and_answers_nothing_until_it_resumes(
    nodes: dict[str, ClusterNode], name: str
) -> None:
    node = nodes[name]
    node.hang()
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.get(f"{node.url}/ready", trust_env=False, timeout=0.5)
    node.resume()
    assert httpx2.get(f"{node.url}/ready", trust_env=False).json()["ready"]


def test_a_node_that_hangs_can_be_killed(nodes: dict[str, ClusterNode]) -> None:
    node = nodes["npu"]
    node.hang()
    node.kill()
    wait_until(lambda: node.host.pids() == [], timeout=10, what="an end of its processes")
    node.start()


def test_a_node_stops_in_good_order(nodes: dict[str, ClusterNode]) -> None:
    node = nodes["dummy"]
    assert node.stop() == 0
    wait_until(lambda: node.host.pids() == [], timeout=10, what="an end of its processes")
    node.start()


def test_a_node_that_cannot_start_says_why(lab: Lab) -> None:
    with pytest.raises(NodeFailed, match="no-such-flag"):
        dummy_node(lab, "n1", "--no-such-flag").wait_until_ready()


def test_a_load_goes_on_until_it_is_stopped(nodes: dict[str, ClusterNode]) -> None:
    node = nodes["dummy"]
    with Load(node.url, questions(), at_once=4) as load:
        wait_until(lambda: len(load.finished) > 8, timeout=20, what="chats")
        assert node.http.get("/ready").json()["queued"] in {1, 2}
        chats = load.stop()
    assert all(map(is_whole, chats))
    assert load.answering == 0
    assert by_node(chats) == {"dummy": len(chats)}
    assert node.http.get("/ready").json()["running"] == 0
    assert tokens_per_second(chats) > 0
    assert busiest_share(chats, nodes=3) == 3


def test_a_load_counts_what_a_killed_node_breaks_off(lab: Lab) -> None:
    node = dummy_node(lab, "n1", rate=20, tokens=10_000, slots=2)
    node.wait_until_ready()
    with Load(node.url, questions(3), at_once=3) as load:
        wait_until(lambda: load.answering == 2, timeout=20, what="a token of two answers")
        node.kill()
        chats = load.wait()
    assert not any(map(is_whole, chats))
    assert sorted((chat.status, node_of(chat)) for chat in chats) == [(0, ""), (200, "n1"), (200, "n1")]
    (chat,) = run(node.url, questions(1), at_once=1)
    assert (chat.status, chat.problem[:13]) == (0, "no connection")


def test_a_load_hangs_up_after_the_time_of_a_chat_or_when_the_test_fails(lab: Lab) -> None:
    node = dummy_node(lab, "n1", rate=20, tokens=10_000)
    node.wait_until_ready()
    (chat,) = run(node.url, questions(1), at_once=1, seconds=0.5)
    assert chat.problem == "no end within 0.5 seconds"
    assert (chat.status, node_of(chat)) == (200, "n1")
    with pytest.raises(ValueError, match="as in a test"), Load(node.url, questions(), at_once=2) as load:
        raise ValueError("as in a test")
    assert load.finished == []
    wait_until(lambda: node.http.get("/ready").json()["running"] == 0, timeout=20, what="nobody there")


def test_users_send_every_answer_back(nodes: dict[str, ClusterNode]) -> None:
    asked: list[tuple[int, int]] = []

    def pause(user: int, turn: int) -> float:
        asked.append((user, turn))
        return 0

    (talk,) = converse(nodes["npu"].url, users=1, turns=3, model="m", pause=pause)
    assert asked == [(0, 0), (0, 1), (0, 2)]
    assert same_node_share([talk]) == 1
    for chat, following in itertools.pairwise(talk):
        assert chat.prompt_tokens <= following.cached_tokens < following.prompt_tokens
        assert following.prompt_tokens > chat.prompt_tokens + chat.completion_tokens
    assert len(converse(nodes["dummy"].url, users=3, turns=2)) == 3
