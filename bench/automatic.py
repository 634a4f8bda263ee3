"""The model `auto` against always the quick and always the reasoning model, on a paced board.

A mixed load: prompts of the routing test set, in a fixed random order, from a few clients that each wait for their
answer. The board is the simulator, with both models at the pace of a 1.5B model on an RK3588; the reasoning model's
answers are longer, as it thinks. Time runs faster by a factor, loads included, and the table is in seconds of the
board.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from node import running_node
from report import Row, at_most, plain, publish
from rkllm_sim.build import build
from rkllm_sim.model import write_model

PROMPTS = Path(__file__).parents[1] / "packages/exo/tests/routing/prompts/test.jsonl"
QUICK, REASONING = "qwen2.5-1.5b-rkllm", "deepseek-r1-1.5b-rkllm"
PREFILL_MS, DECODE_MS, LOAD_MS = 2.95, 60.0, 8000
QUICK_TOKENS, REASONING_TOKENS = (20, 80), (250, 450)
SHARE_OF_QUICK = 0.6
_LOADS = "rkllm_model_load_duration_seconds_count"


@dataclass
class Asked:
    """One request: what it called for, what answered, and how long that took, in seconds of this machine."""

    role: str
    model: str
    latency: float


@dataclass
class Outcome:
    """What came of a mixed load under one policy. Times are seconds of the board."""

    mean: float
    mean_quick: float
    mean_reasoning: float
    right: float
    loads: int


def main() -> None:
    options = _options()
    load = mixed_load(options.requests, options.seed)
    rows: list[Row] = []
    for one_model in (True, False):
        memory = "memory for one model" if one_model else "memory for both"
        outcomes = {
            policy: measure(policy, load, options, one_model=one_model) for policy in ("auto", QUICK, REASONING)
        }
        for policy, outcome in outcomes.items():
            name = {"auto": "auto", QUICK: "always quick", REASONING: "always reasoning"}[policy]
            rows += _rows(f"{memory}, {name}", outcome)
        automatic, slow = outcomes["auto"], outcomes[REASONING]
        rows.append(plain(f"{memory}, mean latency, auto / always reasoning", [automatic.mean / slow.mean], ""))
        share = [automatic.loads / len(load) * 100]
        what = f"{memory}, auto, model loads in a hundred requests"
        rows.append(at_most(what, share, "%", 10) if one_model else plain(what, share, "%"))
    publish("automatic", vars(options), rows)


def mixed_load(count: int, seed: int) -> list[dict[str, str]]:
    """So many prompts of both roles, in an order that depends on the seed alone."""
    chosen = random.Random(seed)
    prompts = [json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    by_role = {role: [one for one in prompts if one["role"] == role] for role in ("quick", "reasoning")}
    roles = ["quick" if chosen.random() < SHARE_OF_QUICK else "reasoning" for _ in range(count)]
    return [chosen.choice(by_role[role]) for role in roles]


def measure(policy: str, load: list[dict[str, str]], options: argparse.Namespace, *, one_model: bool) -> Outcome:
    """The load on a board of its own; `policy` is the model's name that every request has."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = _board(folder, options.factor) | ({"RKLLM_MAX_MODELS": "1"} if one_model else {})
        flags = ("--inference-engine", "rkllm", "--default-model", QUICK if policy == "auto" else policy)
        with running_node(*flags, env=env) as node:
            node.wait_for("/ready")
            url = f"http://{node.host}:{node.port}"
            before = _loads(url)
            asked = asyncio.run(_ask_all(url, policy, load, options.clients))
            return _outcome(asked, _loads(url) - before, options.factor)


def _board(folder: Path, factor: float) -> dict[str, str]:
    """Variables of a node on a board with both models, whose time runs faster by `factor`."""
    store = folder / "rkllama" / "models"
    for model, answer in ((QUICK, QUICK_TOKENS), (REASONING, REASONING_TOKENS)):
        write_model(
            store / model,
            answer=answer,
            prefill_ms=PREFILL_MS / factor,
            decode_ms=DECODE_MS / factor,
            load_ms=round(LOAD_MS / factor),
        )
    (folder / "root").mkdir()
    return {
        "RKLLM_LIB": str(build("1.2.3", folder / "lib")),
        "RKLLM_ROOT": str(folder / "root"),
        "RKLLAMA_HOME": str(store.parent),
        "EXO_HOME": str(folder / "exo"),
    }


async def _ask_all(url: str, model: str, load: list[dict[str, str]], clients: int) -> list[Asked]:
    waiting = list(reversed(load))
    asked: list[Asked] = []

    async def client(http: httpx2.AsyncClient) -> None:
        while waiting:
            prompt = waiting.pop()
            started = time.monotonic()
            body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": prompt["prompt"]}]}
            response = await http.post(f"{url}/v1/chat/completions", json=body)
            response.raise_for_status()
            asked.append(Asked(prompt["role"], response.json()["model"], time.monotonic() - started))

    async with httpx2.AsyncClient(timeout=600) as http:
        await asyncio.gather(*(client(http) for _ in range(clients)))
    return asked


def _loads(url: str) -> int:
    """How many models the node has loaded so far."""
    families = text_string_to_metric_families(httpx2.get(f"{url}/metrics").text)
    return int(sum(sample.value for family in families for sample in family.samples if sample.name == _LOADS))


def _outcome(asked: list[Asked], loads: int, factor: float) -> Outcome:
    def mean(role: str | None = None) -> float:
        return statistics.mean(one.latency for one in asked if role in (None, one.role)) * factor

    right = sum(one.model == {"quick": QUICK, "reasoning": REASONING}[one.role] for one in asked)
    return Outcome(mean(), mean("quick"), mean("reasoning"), right / len(asked) * 100, loads)


def _rows(who: str, outcome: Outcome) -> list[Row]:
    return [
        plain(f"{who}: mean latency", [outcome.mean], "s"),
        plain(f"{who}: of prompts for the quick model", [outcome.mean_quick], "s"),
        plain(f"{who}: of prompts for the reasoning model", [outcome.mean_reasoning], "s"),
        plain(f"{who}: answered by the right model", [outcome.right], "%"),
        plain(f"{who}: model loads", [outcome.loads], ""),
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--factor", type=float, default=20.0, help="how much faster than on the board time runs")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
