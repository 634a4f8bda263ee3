"""What the tests of failing nodes count: paced nodes under more load than they have slots, and what became of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from cluster_support.load import is_whole, node_of
from cluster_support.network import Lab
from cluster_support.nodes import ClusterNode, all_ready, dummy_node
from load import Chat

TOKENS = 8
_REQUEST = re.compile(r" request id=(?P<id>\S+) method=POST path=/v1/chat/completions status=(?P<status>\d+)")


def paced_nodes(lab: Lab, count: int = 3, *arguments: str, slots: int = 1, **options: float) -> list[ClusterNode]:
    """Nodes n1, n2, …; an answer takes 0.4 seconds unless `options` of dummy_node say otherwise."""
    chosen = {"rate": 20.0, "tokens": TOKENS, **options}
    nodes = [
        dummy_node(lab, f"n{number}", *arguments, slots=slots, rate=chosen["rate"], tokens=int(chosen["tokens"]))
        for number in range(1, count + 1)
    ]
    all_ready(nodes)
    return nodes


def broken(chats: Iterable[Chat]) -> list[Chat]:
    """Those that did not come to a proper end."""
    return [chat for chat in chats if not is_whole(chat)]


def check_whole_answers(chats: Iterable[Chat]) -> None:
    """Every answer that came to its end has each of its words once, and all from one node."""
    for chat in filter(is_whole, chats):
        words = [node_of(chat), *(f"word{number}" for number in range(1, TOKENS))]
        assert (chat.text.split(), chat.completion_tokens, chat.finish) == (words, TOKENS, "stop")


def answered(nodes: Iterable[ClusterNode], status: int) -> list[str]:
    """The ids of the requests that nodes have answered so, by the logs of all their lives."""
    return [number for node in nodes for number, of in _requests(node) if of == status]


def check_nothing_ran_twice(nodes: Sequence[ClusterNode], chats: Sequence[Chat]) -> None:
    """Nodes have completed each whole answer, and no request has been begun by two of them.

    A node that is cut off or hangs may have completed one more: nobody has told it that the proxy has gone.
    """
    complete = answered(nodes, 200)
    assert len(chats) - len(broken(chats)) <= len(complete) <= len(chats)
    begun = Counter(number for node in nodes for number, status in _requests(node) if status != 503)
    assert max(begun.values()) == 1, begun.most_common(3)


def _requests(node: ClusterNode) -> list[tuple[str, int]]:
    """Id and status of each request that has ended; a request in hand when its node is killed is not among them."""
    logs = (path.read_text(encoding="utf-8") for path in node.host.folder.glob("node-*.log"))
    return [(found["id"], int(found["status"])) for log in logs for found in _REQUEST.finditer(log)]
