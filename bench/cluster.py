"""Many nodes behind one address: throughput by their number, and conversations that stay where their cache is.

Nodes are `exo` with the engine rkllm on simulated NPUs, each in a network namespace of its own; the proxy is Debian's
HAProxy or nginx with the rendered configuration. Needs root, and what tools/install-system-packages brings.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path += [str(REPOSITORY / "tests"), str(REPOSITORY / "packages/exo-rkllm/tests/support")]

# Tests and benchmarks share the lab.
from cluster_support.load import Load, busiest_share, converse, is_whole, questions, same_node_share  # noqa: E402
from cluster_support.network import Lab  # noqa: E402
from cluster_support.nodes import ClusterNode, all_ready, npu_node  # noqa: E402
from cluster_support.rendered import haproxy_before, nginx_before  # noqa: E402
from load import Chat  # noqa: E402
from node import BenchFailed  # noqa: E402
from quiet import Quiet  # noqa: E402
from report import Row, at_least, at_most, plain, publish  # noqa: E402

Kind = Literal["haproxy", "nginx"]
KINDS: tuple[Kind, ...] = ("haproxy", "nginx")
MODEL = "m"
PREFILL_MS, DECODE_MS, TOKENS = 2.95, 30.0, 20
"""As Qwen2.5-1.5B on an RK3588, with tokens twice as fast: what the proxy costs weighs more."""
CLIENTS = 200
QUEUE = ("--queue-limit", "256")
"""Behind nginx the queue is in the nodes, and one node alone has all clients in its own."""
SETTLING, ANSWER = 3.0, 2.0
"""Seconds: until all nodes have work, and more than an answer takes once it has begun."""
USERS, TURNS, AT_NODES = 30, 6, 3
BUSY = 0.6


class _Enough(Exception):
    """Ends a load that would go on."""


@dataclass(frozen=True)
class Talk:
    """What a run of many conversations gave; `rate` is in tokens per second while all users talked."""

    same_node: float
    busiest: float
    reused: float
    rate: float


def main() -> None:
    options = _options()
    quiet = Quiet(retries=options.retries)
    rows: list[Row] = []
    for kind in options.proxies:
        rows += throughput(kind, quiet, options)
        rows += conversations(kind, quiet, options)
    rows.append(quiet.row())
    publish("cluster", vars(options), rows)


def throughput(kind: Kind, quiet: Quiet, options: argparse.Namespace) -> Iterator[Row]:
    """With as many clients as ever, by the number of nodes, against one node behind the same proxy."""
    rates: dict[int, list[float]] = {count: [] for count in options.nodes}
    for number in range(options.runs):
        for count in options.nodes:
            title = f"{kind}: {CLIENTS} clients, {count} nodes, run {number + 1} of {options.runs}"
            rates[count].append(quiet.run(title, lambda: _rate(kind, count, options.seconds)))  # noqa: B023 - called at once
    for count, found in rates.items():
        yield plain(f"{kind}, {count} nodes, {CLIENTS} clients: throughput", found, "tokens/s")
        if count > 1:
            ratios = [rate / one for rate, one in zip(found, rates[1])]
            yield at_least(f"{kind}, {count} nodes against one", ratios, "times", 0.95 * count)


def conversations(kind: Kind, quiet: Quiet, options: argparse.Namespace) -> Iterator[Row]:
    """Users who talk in turns, at a part of what the nodes can do and at all of it, against one node with its share."""
    alone, busy, full = (
        [
            quiet.run(f"{kind}: {what}, run {number + 1} of {options.runs}", lambda: _talk(kind, nodes, think))  # noqa: B023 - called at once
            for number in range(options.runs)
        ]
        for what, nodes, think in (
            ("one node with its share of the users", 1, False),
            (f"{USERS} users at {BUSY:.0%} load", AT_NODES, True),
            (f"{USERS} users, saturated", AT_NODES, False),
        )
    )
    for what, runs in ((f"{BUSY:.0%} load", busy), ("saturated", full)):
        name = f"{kind}, {USERS} users, {AT_NODES} nodes, {what}"
        same, share = [run.same_node for run in runs], [run.busiest for run in runs]
        if kind == "haproxy":  # nginx knows no conversations
            yield at_least(f"{name}: follow-ups at the same node", same, "of all", 0.95)
            yield at_most(f"{name}: busiest node", share, "times its share", 1.25)
        else:
            yield plain(f"{name}: follow-ups at the same node", same, "of all")
            yield plain(f"{name}: busiest node", share, "times its share")
        yield plain(f"{name}: prompt tokens reused", [run.reused for run in runs], "of all")
    ideal = [run.rate / (one.rate * AT_NODES) for run, one in zip(full, alone)]
    name = f"{kind}, {USERS} users, {AT_NODES} nodes, saturated: throughput"
    yield at_least(name, ideal, "of the ideal", 0.95) if kind == "haproxy" else plain(name, ideal, "of the ideal")


def _rate(kind: Kind, count: int, seconds: float) -> float:
    """Tokens per second. Those at the beginning do not count, nor those at the end, whose chats have not ended."""
    with _cluster(kind, count) as url:
        load = Load(url, questions(model=MODEL), at_once=CLIENTS)
        begin = time.monotonic() + SETTLING
        with contextlib.suppress(_Enough), load:
            time.sleep(SETTLING + seconds + ANSWER)
            chats = _whole(load.finished)
            raise _Enough
        return sum(begin <= when < begin + seconds for chat in chats for when in chat.times) / seconds


def _talk(kind: Kind, count: int, think: bool) -> Talk:  # noqa: FBT001 - from a table of runs
    """Each node has the same number of users, so that one node alone is a third of three."""
    users = USERS * count // AT_NODES
    with _cluster(kind, count) as url:
        talks = converse(url, users=users, turns=TURNS, pause=_thinking if think else None, model=MODEL)
    chats = _whole([chat for talk in talks for chat in talk])
    begin, end = max(talk[0].asked for talk in talks), min(talk[-1].ended for talk in talks)
    arrivals = sum(begin <= when < end for chat in chats for when in chat.times)
    return Talk(
        same_node=same_node_share(talks),
        busiest=busiest_share(chats, nodes=count),
        reused=sum(chat.cached_tokens for chat in chats) / sum(chat.prompt_tokens for chat in chats),
        rate=arrivals / (end - begin),
    )


def _thinking(user: int, turn: int) -> float:
    """Seconds, the same in each run: with the answer they make a cycle in which the nodes are busy for BUSY of it."""
    mean = TOKENS * DECODE_MS / 1000 * (USERS / AT_NODES / BUSY - 1)
    return random.Random(user * 1000 + turn).uniform(0, 2 * mean)


def _whole(chats: Sequence[Chat]) -> list[Chat]:
    """`chats`, none of which may have failed."""
    failed = [chat.problem or f"status {chat.status}" for chat in chats if not is_whole(chat)]
    if failed:
        raise BenchFailed(f"{len(failed)} of {len(chats)} chats failed, such as: {failed[0]}")
    return list(chats)


@contextlib.contextmanager
def _cluster(kind: Kind, count: int) -> Iterator[str]:
    """The URL of a proxy before so many new nodes, all of which are up."""
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder)) as lab:
        nodes: list[ClusterNode] = [
            npu_node(
                lab, f"n{number}", *QUEUE, tokens=TOKENS, prefill_ms=PREFILL_MS, decode_ms=DECODE_MS, models=(MODEL,)
            )
            for number in range(count)
        ]
        all_ready(nodes)
        for node in nodes:  # the model is loaded with the first request
            node.process.chat("Warm up", model=MODEL, max_tokens=1).raise_for_status()
        yield (haproxy_before if kind == "haproxy" else nginx_before)(nodes, Path(folder)).url


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--proxies", nargs="+", choices=KINDS, default=list(KINDS), help="which proxies")
    parser.add_argument(
        "--nodes", nargs="+", type=int, default=[1, 2, 3, 4, 8], help="numbers of nodes; the first is 1"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a run")
    parser.add_argument("--runs", type=int, default=3, help="how often everything is measured")
    parser.add_argument("--retries", type=int, default=2, help="how many disturbed measurements may be repeated")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except BenchFailed as failure:
        sys.exit(f"cluster: {failure}")
