"""What rkllama's lists cost while it answers, and what a node in front of another rkllama adds.

The runtime is the simulator. Direct and through the node are measured in one run, one after the other.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load import Chat, Target, run_chats, time_gets
from node import BenchFailed, Node, rkllama_command, running_node
from quiet import Quiet
from report import Row, at_most, plain, publish
from rkllm_sim.build import build
from rkllm_sim.model import write_model

ABI = "1.2.3"
PREFILL_MS, DECODE_MS = 2.95, 60.0
CLIENTS = 8
LISTED = 20
_PATHS = ("/api/tags", "/api/ps", "/v1/models", "/models")
_WARM = 500


@dataclass
class Pair:
    """rkllama on a simulated board, and a node that forwards to it."""

    rkllama: Node
    node: Node

    @property
    def direct(self) -> Target:
        return Target(self.rkllama.host, self.rkllama.port)

    @property
    def through(self) -> Target:
        return Target(self.node.host, self.node.port)


def main() -> None:
    options = _options()
    quiet = Quiet(retries=options.retries)
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as clients,
        running_pair(Path(folder)) as pair,
    ):
        for title, measure in (("streams", streams), ("lists", lists)):
            runs = [
                quiet.run(
                    f"{title}, run {number + 1} of {options.runs}",
                    lambda: measure(pair, clients, options.tokens),  # noqa: B023 - called at once
                )
                for number in range(options.runs)
            ]
            rows += [_row(name, [run[name] for run in runs]) for name in runs[0]]
    publish("rkllama", vars(options), [*rows, quiet.row()])


@contextmanager
def running_pair(folder: Path) -> Iterator[Pair]:
    store = folder / "rkllama" / "models"
    write_model(store / "paced", answer=(400, 400), prefill_ms=PREFILL_MS, decode_ms=DECODE_MS, context=8192)
    write_model(store / "quick", answer=(50_000, 50_000), context=65_536)
    for number in range(LISTED - 2):
        write_model(store / f"Qwen2.5-{number}B-Instruct-rk3588-w8a8")
    (folder / "root").mkdir()
    env = {
        "RKLLM_LIB": str(build(ABI, folder / "lib")),
        "RKLLM_ROOT": str(folder / "root"),
        "RKLLAMA_HOME": str(store.parent),
        "RKLLM_KEEP_ALIVE": "-1",
    }
    with running_node(command=(rkllama_command(), "serve"), env=env) as rkllama:
        front = {"RKLLM_SERVER_HOST": rkllama.host, "RKLLM_SERVER_PORT": str(rkllama.port)}
        flags = ("--inference-engine", "rkllm", "--no-preload")
        with running_node(*flags, env={**front, "EXO_HOME": str(folder / "exo")}) as node:
            yield Pair(rkllama, node)


def streams(pair: Pair, clients: ProcessPoolExecutor, tokens: int) -> dict[str, float]:
    """The same answers, directly and through the node: as fast as it goes, and the first token at a board's pace."""
    speeds, firsts = {}, {}
    for way, target in (("direct", pair.direct), ("through", pair.through)):
        _chat(clients, target, _ask("quick", "Warm up", max_tokens=_WARM))
        chat = _chat(clients, target, _ask("quick", "Go on", max_tokens=tokens))
        if len(chat.text.split()) != tokens or chat.completion_tokens != tokens:
            raise BenchFailed(f"{tokens} tokens were asked for, {len(chat.text.split())} came {way}.")
        speeds[way] = tokens / (chat.times[-1] - chat.times[0])
        _chat(clients, target, _ask("paced", "Warm up", max_tokens=2))
        took = [
            chat.times[0] - chat.asked
            for chat in (_chat(clients, target, _ask("paced", "Hello", max_tokens=2)) for _ in range(5))
        ]
        firsts[way] = statistics.median(took) * 1000
    return {
        "one unpaced stream from rkllama, tokens/s": speeds["direct"],
        "the same through a node, tokens/s": speeds["through"],
        "ratio of the two": speeds["through"] / speeds["direct"],
        "first token later through the node, ms": firsts["through"] - firsts["direct"],
    }


def lists(pair: Pair, clients: ProcessPoolExecutor, tokens: int) -> dict[str, float]:  # noqa: ARG001 - one shape for both
    """The longest time that a list of 20 models takes while 8 clients stream or wait."""
    bodies = [_ask("paced", f"Tell me {number}") for number in range(CLIENTS)]
    streaming = clients.submit(run_chats, pair.direct, bodies, seconds=6.0)
    found = {}
    for path in _PATHS:
        took = clients.submit(time_gets, pair.direct, path, seconds=1.0, pause=0.02).result()
        found[f"GET {path}, {LISTED} models, {CLIENTS} clients streaming: longest, ms"] = max(took) * 1000
    streaming.result()
    return found


def _ask(model: str, text: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def _chat(clients: ProcessPoolExecutor, target: Target, body: dict[str, Any]) -> Chat:
    (chat,) = clients.submit(run_chats, target, [body]).result()
    if chat.problem:
        raise BenchFailed(chat.problem)
    return chat


def _row(name: str, runs: list[float]) -> Row:
    what, comma, unit = name.rpartition(", ")
    if not comma:
        return plain(name, runs, "")
    return at_most(what, runs, unit, 50.0) if name.startswith("GET ") else plain(what, runs, unit)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--tokens", type=int, default=20_000, help="length of the unpaced streams")
    parser.add_argument("--runs", type=int, default=5, help="how often everything is measured")
    parser.add_argument("--retries", type=int, default=2, help="how many disturbed measurements may be repeated")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except BenchFailed as failure:
        sys.exit(f"rkllama: {failure}")
