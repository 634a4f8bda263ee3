"""What the node itself costs: many paced streams, one unpaced stream, and listings while streams run.

The engine dummy makes the tokens inside the node's process, so these figures are those of scheduler, dialect and HTTP.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from load import Chat, Target, run_chats, time_gets
from node import BenchFailed, Node, running_node
from quiet import Quiet
from report import Row, at_least, at_most, percentile, plain, publish

MANY_RATE = 10.0
BOARD_RATE = 1 / 0.06
STALL = 1.0
LISTINGS = ("/v1/models", "/ready", "/metrics", "/v1/topology")
_QUESTION = {"model": "dummy", "messages": [{"role": "user", "content": "Count the words."}]}
_SAMPLE_EVERY = 0.25
_ASK_FOR = 1.2
_RAMP = 0.002


@dataclass
class CpuLog:
    """CPU time of a node, noted again and again while something runs."""

    node: Node
    samples: list[tuple[float, float]] = field(default_factory=list)
    pss: int = 0

    def watch(self, running: Future[Any]) -> None:
        """Note until `running` is done; the memory once, in the middle of it."""
        while not running.done():
            self.samples.append((time.monotonic(), self.node.cpu()))
            time.sleep(_SAMPLE_EVERY)
            self.pss = max(self.pss, self.node.pss() if len(self.samples) % 20 == 0 else 0)

    def seconds_between(self, begin: float, end: float) -> tuple[float, float, float]:
        """The first and the last sample within these times, and the CPU seconds between them."""
        inside = [sample for sample in self.samples if begin <= sample[0] <= end]
        if len(inside) < 2:
            raise BenchFailed("The streams never all ran at the same time: make --seconds longer.")
        return inside[0][0], inside[-1][0], inside[-1][1] - inside[0][1]


def main() -> None:
    options = _options()
    quiet = Quiet(retries=options.retries)
    rows: list[Row] = []
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as clients:
        rows += many_streams(clients, quiet, options)
        rows += board_pace(clients, quiet, options)
        rows += one_stream(clients, quiet, options)
        rows += listings(clients, quiet, options)
    rows.append(quiet.row())
    publish("gateway", vars(options), rows)


def many_streams(clients: ProcessPoolExecutor, quiet: Quiet, options: argparse.Namespace) -> list[Row]:
    """Paced streams, all open at once."""
    runs = [
        quiet.run(
            f"{options.streams} streams, {MANY_RATE:g} tokens/s each, run {number + 1} of {options.runs}",
            lambda: _paced(clients, options.streams, MANY_RATE, options.seconds),
        )
        for number in range(options.runs)
    ]
    column = {name: [run[name] for run in runs] for name in runs[0]}
    name = f"{options.streams:,} streams"
    return [
        at_most(f"{name}: stalled over {STALL:g} s", column["stalled"], "streams", 0),
        at_most(f"{name}: tokens lost or mixed", column["wrong"], "tokens", 0),
        plain(f"{name}: tokens received", column["received"], "tokens"),
        plain(f"{name}: first token, p99", column["first_p99"], "ms"),
        plain(f"{name}: between tokens, p50", column["gap_p50"], "ms"),
        plain(f"{name}: between tokens, p99", column["gap_p99"], "ms"),
        plain(f"{name}: between tokens, longest", column["gap_max"], "ms"),
        plain(f"{name}: CPU per token", column["cpu"], "µs"),
        plain(f"{name}: share of one core", column["share"], "%"),
        plain(f"{name}: PSS of the node", column["pss"], "MB"),
    ]


def board_pace(clients: ProcessPoolExecutor, quiet: Quiet, options: argparse.Namespace) -> list[Row]:
    """A few streams at the pace of a board, where each token wakes the node up."""
    costs = [
        quiet.run(
            f"8 streams at a board's pace, run {number + 1} of {options.runs}",
            lambda: _paced(clients, 8, BOARD_RATE, 6.0),
        )["cpu"]
        for number in range(options.runs)
    ]
    return [at_most("8 streams, a token per 60 ms each: CPU per token", costs, "µs", 500)]


def _paced(clients: ProcessPoolExecutor, streams: int, rate: float, seconds: float) -> dict[str, float]:
    """One run with a new node: its figures by name."""
    tokens = int(seconds * rate)
    env = {"EXO_DUMMY_RATE": str(rate), "EXO_DUMMY_TOKENS": str(tokens), "EXO_DUMMY_SLOTS": str(streams)}
    with running_node("--inference-engine", "dummy", env=env) as node:
        load = clients.submit(run_chats, Target(node.host, node.port), [_QUESTION] * streams, ramp=streams * _RAMP)
        log = CpuLog(node)
        log.watch(load)
        return _paced_figures(load.result(), tokens, log)


def _paced_figures(chats: Sequence[Chat], tokens: int, log: CpuLog) -> dict[str, float]:
    _check_ends(chats)
    gaps = [gap for chat in chats for gap in chat.gaps]
    firsts = [chat.times[0] - chat.asked for chat in chats]
    stalled = sum(max(chat.gaps) > STALL or first > STALL for chat, first in zip(chats, firsts))
    begin, end, cpu = log.seconds_between(max(chat.times[0] for chat in chats), min(chat.times[-1] for chat in chats))
    steady = sum(begin <= when < end for chat in chats for when in chat.times)
    return {
        "stalled": stalled,
        "wrong": wrong_tokens(chats, tokens),
        "received": sum(len(chat.times) for chat in chats),
        "first_p99": percentile(firsts, 0.99) * 1000,
        "gap_p50": statistics.median(gaps) * 1000,
        "gap_p99": percentile(gaps, 0.99) * 1000,
        "gap_max": max(gaps) * 1000,
        "cpu": cpu / steady * 1e6,
        "share": cpu / (end - begin) * 100,
        "pss": log.pss / 1e6,
    }


def one_stream(clients: ProcessPoolExecutor, quiet: Quiet, options: argparse.Namespace) -> list[Row]:
    """One stream as fast as it goes, and the time to the first token of short answers."""
    tokens = options.tokens
    env = {"EXO_DUMMY_RATE": "0", "EXO_DUMMY_TOKENS": str(tokens)}
    with running_node("--inference-engine", "dummy", env=env) as node:
        target = Target(node.host, node.port)
        clients.submit(run_chats, target, [_QUESTION]).result()  # warms both sides
        runs = [
            quiet.run(
                f"one unpaced stream, run {number + 1} of {options.runs}",
                lambda: _unpaced(clients, node, target, tokens),
            )
            for number in range(options.runs)
        ]
    speeds, costs, wrong, first = zip(*runs)
    return [
        at_least("one unpaced stream: speed", speeds, "tokens/s", 12_000),
        at_most("one unpaced stream: CPU per token", costs, "µs", 60),
        at_most("one unpaced stream: tokens lost or mixed", wrong, "tokens", 0),
        at_most("one stream: request to first token", first, "ms", 5),
    ]


def _unpaced(
    clients: ProcessPoolExecutor, node: Node, target: Target, tokens: int
) -> tuple[float, float, float, float]:
    """Tokens/s, µs of the node's CPU time per token, wrong tokens, and ms to the first token of short answers."""
    before = node.cpu()
    chats = clients.submit(run_chats, target, [_QUESTION]).result()
    cost = (node.cpu() - before) / tokens * 1e6
    _check_ends(chats)
    speed = (tokens - 1) / (chats[0].times[-1] - chats[0].times[0])
    short = {**_QUESTION, "max_tokens": 1}
    firsts = [clients.submit(run_chats, target, [short]).result()[0] for _ in range(20)]
    first = statistics.median(chat.times[0] - chat.asked for chat in firsts)
    return speed, cost, wrong_tokens(chats, tokens), first * 1000


def listings(clients: ProcessPoolExecutor, quiet: Quiet, options: argparse.Namespace) -> list[Row]:
    """Listing endpoints while 8 clients stream as fast as it goes."""
    env = {"EXO_DUMMY_RATE": "0", "EXO_DUMMY_TOKENS": str(10**9), "EXO_DUMMY_SLOTS": "8"}
    with running_node("--inference-engine", "dummy", env=env) as node:
        target = Target(node.host, node.port)
        runs = [
            quiet.run(
                f"listings while 8 clients stream, run {number + 1} of {options.runs}",
                lambda: _listed(clients, target),
            )
            for number in range(options.runs)
        ]
    rows = []
    for path in LISTINGS:
        rows.append(plain(f"8 streams: GET {path}, p50", [statistics.median(run[path]) for run in runs], "ms"))
        rows.append(at_most(f"8 streams: GET {path}, p99", [percentile(run[path], 0.99) for run in runs], "ms", 50))
    return rows


def _listed(clients: ProcessPoolExecutor, target: Target) -> dict[str, list[float]]:
    """Milliseconds of many GETs, by path."""
    load = clients.submit(run_chats, target, [_QUESTION] * 8, seconds=len(LISTINGS) * _ASK_FOR + 1.0)
    time.sleep(0.3)
    took = {path: clients.submit(time_gets, target, path, seconds=_ASK_FOR, pause=0.005) for path in LISTINGS}
    milliseconds = {path: [seconds * 1000 for seconds in asked.result()] for path, asked in took.items()}
    if load.done():
        raise BenchFailed("The streams ended before the listings.")
    load.result()
    return milliseconds


def wrong_tokens(chats: Sequence[Chat], tokens: int) -> int:
    """How many tokens are missing, doubled, out of order or in the answer of somebody else.

    The dummy numbers its words, and each event carries the id of its answer.
    """
    expected = [f"word{number}" for number in range(tokens)]
    wrong = 0
    for chat in chats:
        words = chat.text.split()
        wrong += sum(word != right for word, right in zip(words, expected)) + abs(len(words) - tokens)
        wrong += len(chat.ids) - 1
    ids = [name for chat in chats for name in chat.ids]
    return wrong + len(ids) - len(set(ids))


def _check_ends(chats: Sequence[Chat]) -> None:
    problems = [chat.problem for chat in chats if chat.problem]
    if problems:
        raise BenchFailed(f"{len(problems)} of {len(chats)} streams failed, the first one: {problems[0]}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--streams", type=int, default=1000, help="paced streams that are open at once")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a paced stream")
    parser.add_argument("--tokens", type=int, default=200_000, help="length of the unpaced stream")
    parser.add_argument("--runs", type=int, default=5, help="how often everything is measured")
    parser.add_argument("--retries", type=int, default=1, help="how many disturbed measurements may be repeated")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except BenchFailed as failure:
        sys.exit(f"gateway: {failure}")
