"""What a node costs before it does anything: time to its first answer, memory, idle CPU."""

from __future__ import annotations

import argparse
import sys
import time

from node import BenchFailed, Node, pss, pull_builtin_model, running_node
from quiet import Quiet
from report import Row, at_most, plain, publish

HEALTHY = "start to /healthcheck 200, s"
FRESH = "idle node without a model: PSS, MB"
USED = "the same after one request of each kind: PSS, MB"
GOALS = {HEALTHY: 1.0, FRESH: 90.0, USED: 90.0}
_SETTLE = 1.0
_PATHS = ("/healthcheck", "/ready", "/v1/models", "/metrics", "/docs")


def main() -> None:
    options = _options()
    pull_builtin_model()
    quiet = Quiet(retries=options.retries)
    rows: list[Row] = []
    for title, measure in (("start", start), ("idle, no model", without_model), ("idle, model loaded", with_model)):
        runs = [
            quiet.run(f"{title}, run {number + 1} of {options.runs}", lambda: measure(options.idle))  # noqa: B023 - called at once
            for number in range(options.runs)
        ]
        rows += [_row(name, [run[name] for run in runs]) for name in runs[0]]
    publish("footprint", vars(options), [*rows, quiet.row()])


def start(idle: float) -> dict[str, float]:  # noqa: ARG001 - one shape for the three measurements
    """From the making of the process to the first 200; the model loads in the background, as it does by default."""
    with running_node() as node:
        return {HEALTHY: node.healthy_after, "start to /ready 200, built-in model loaded, s": node.wait_for("/ready")}


def without_model(idle: float) -> dict[str, float]:
    """An idle node that has loaded no model, before and after one request of each kind."""
    with running_node("--no-preload") as node:
        time.sleep(_SETTLE)
        figures = {FRESH: _tree_pss(node)}
        for path in _PATHS:
            node.wait_for(path)
        figures["idle node without a model: CPU, % of a core"] = _idle_share(node, idle)
        figures[USED] = _tree_pss(node)
        return figures


def with_model(idle: float) -> dict[str, float]:
    """Node and worker apart, with the built-in model loaded."""
    with running_node() as node:
        node.wait_for("/ready")
        return {
            "built-in model loaded: CPU of node and worker, % of a core": _idle_share(node, idle),
            "built-in model loaded: PSS of the node, MB": node.pss() / 1e6,
            "built-in model loaded: PSS of the worker, MB": sum(pss(worker) for worker in node.workers()) / 1e6,
        }


def _row(name: str, runs: list[float]) -> Row:
    what, _, unit = name.rpartition(", ")
    return at_most(what, runs, unit, GOALS[name]) if name in GOALS else plain(what, runs, unit)


def _tree_pss(node: Node) -> float:
    return (node.pss() + sum(pss(worker) for worker in node.workers())) / 1e6


def _idle_share(node: Node, seconds: float) -> float:
    """CPU time of node and workers in percent of one core, while nobody asks anything."""
    processes = [node.process, *node.workers()]
    before = sum(sum(process.cpu_times()[:2]) for process in processes)
    time.sleep(seconds)
    return (sum(sum(process.cpu_times()[:2]) for process in processes) - before) / seconds * 100


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="how often everything is measured")
    parser.add_argument("--idle", type=float, default=3.0, help="seconds over which idle CPU time is measured")
    parser.add_argument("--retries", type=int, default=3, help="how many disturbed measurements may be repeated")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except BenchFailed as failure:
        sys.exit(f"footprint: {failure}")
