"""What the node takes away from llama.cpp: tokens/s through HTTP against the same library called directly.

Both sides run llama.cpp with the worker's own parameters and one thread, hold the same model all the time, and answer
the same greedy prompts in turns. Each prompt is used once, so that no side finds more in its cache than the other.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exo.cli import settings
from exo.inference.llamacpp import worker
from exo.inference.llamacpp.engine import SUFFIX, settings_from
from exo.models import ModelStore
from exo.models.builtin import BUILTIN_MODELS
from load import Target, run_chats
from node import BUILTIN_MODEL, BenchFailed, Node, pull_builtin_model, running_node
from quiet import Quiet
from report import Row, at_least, plain, publish

_ENV = {"EXO_LLAMACPP_THREADS": "1"}
_THINGS = (
    "fox",
    "river",
    "lamp",
    "bridge",
    "violin",
    "mountain",
    "baker",
    "ship",
    "clock",
    "garden",
    "comet",
    "library",
)
_MOODS = ("sad", "merry", "strange", "true")
_PLACES = ("in a desert", "by the sea", "under the ice", "in an old town", "on an island")


@dataclass(frozen=True)
class Taken:
    """One answer. Times are of time.monotonic; `first` is the arrival of its first piece of text."""

    asked: float
    first: float
    ended: float
    tokens: int


@dataclass(frozen=True)
class Plan:
    """How many answers at once, of how many tokens, how often."""

    streams: int
    tokens: int
    pairs: int

    @property
    def title(self) -> str:
        return "1 stream" if self.streams == 1 else f"{self.streams} streams"


Side = Callable[[Sequence[dict[str, Any]]], Sequence[Taken]]
_server: Any = None  # the llama.cpp of the direct side, in its own process


def main() -> None:
    options = _options()
    pull_builtin_model()
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="exo-bench-") as folder,
        ProcessPoolExecutor(
            1, mp_context=spawn, initializer=_load_directly, initargs=(worker_config(folder),)
        ) as direct,
        ProcessPoolExecutor(1, mp_context=spawn) as client,
        running_node("--inference-engine", "llamacpp", env=_ENV) as node,
    ):
        node.wait_for("/ready")
        sides: dict[str, Side] = {
            "HTTP": lambda bodies: client.submit(_ask_node, Target(node.host, node.port), bodies).result(),
            "direct": lambda bodies: direct.submit(_ask_directly, bodies).result(),
        }
        prompts = _prompts()
        quiet = Quiet(retries=options.retries)
        for ask in sides.values():
            ask([_body("Say hello.", 8)])
        rows: list[Row] = []
        for streams in options.streams:
            tokens = options.tokens if streams == 1 else options.tokens // 2
            rows += compare(quiet, sides, prompts, node, Plan(streams, tokens, options.pairs))
        rows.append(quiet.row())
    publish("llamacpp", vars(options), rows)


@dataclass
class Pair:
    """Both sides with the same prompts, by the side's name; `cpu` is the node's, in seconds per token."""

    answers: dict[str, Sequence[Taken]]
    cpu: float = 0.0


def compare(quiet: Quiet, sides: dict[str, Side], prompts: list[str], node: Node, plan: Plan) -> list[Row]:
    """The two sides in turns; who begins changes from pair to pair."""
    pairs = []
    for number in range(plan.pairs):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        title = f"{plan.title}, pair {number + 1} of {plan.pairs}"
        pairs.append(quiet.run(title, lambda: _pair(sides, order, prompts, node, plan)))  # noqa: B023 - called at once
    http, direct = ([pair.answers[name] for pair in pairs] for name in ("HTTP", "direct"))
    return [
        plain(f"{plan.title}: through HTTP", [_speed(answers) for answers in http], "tokens/s"),
        plain(f"{plan.title}: xllamacpp directly", [_speed(answers) for answers in direct], "tokens/s"),
        at_least(f"{plan.title}: ratio", [_speed(h) / _speed(d) for h, d in zip(http, direct)], "", 0.97),
        plain(f"{plan.title}: first token through HTTP", [_first(answers) for answers in http], "ms"),
        plain(f"{plan.title}: first token directly", [_first(answers) for answers in direct], "ms"),
        plain(f"{plan.title}: CPU of the node per token", [pair.cpu * 1e6 for pair in pairs], "µs"),
    ]


def _pair(sides: dict[str, Side], order: Sequence[str], prompts: list[str], node: Node, plan: Plan) -> Pair:
    bodies = [_body(prompts.pop(), plan.tokens) for _ in range(plan.streams)]
    pair = Pair({})
    for name in order:
        before = node.cpu()
        answers = pair.answers[name] = sides[name](bodies)
        if name == "HTTP":
            pair.cpu = (node.cpu() - before) / sum(answer.tokens for answer in answers)
    return pair


def _speed(answers: Sequence[Taken]) -> float:
    """All tokens by the time from the first request to the last byte, as a client sees it."""
    seconds = max(answer.ended for answer in answers) - min(answer.asked for answer in answers)
    return sum(answer.tokens for answer in answers) / seconds


def _first(answers: Sequence[Taken]) -> float:
    return statistics.median(answer.first - answer.asked for answer in answers) * 1000


def _prompts() -> list[str]:
    """Taken from the end, each once."""
    return [
        f"Write a long and {mood} story about a {thing} {place}."
        for mood in _MOODS
        for place in _PLACES
        for thing in _THINGS
    ]


def _body(prompt: str, tokens: int) -> dict[str, Any]:
    return {
        "model": BUILTIN_MODEL,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "seed": 1,
        "max_tokens": tokens,
    }


def _ask_node(target: Target, bodies: Sequence[dict[str, Any]]) -> list[Taken]:
    """Runs in the client's process."""
    chats = run_chats(target, bodies)
    problems = [chat.problem for chat in chats if chat.problem]
    if problems:
        raise BenchFailed(f"The node did not answer: {problems[0]}")
    return [Taken(chat.asked, chat.times[0], chat.ended, chat.completion_tokens) for chat in chats]


def _ask_directly(bodies: Sequence[dict[str, Any]]) -> list[Taken]:
    """Runs in the direct side's process: one thread for each stream, as llama.cpp blocks its caller."""
    results: list[Taken | None] = [None] * len(bodies)

    def ask(number: int) -> None:
        times: list[float] = []
        tokens = 0

        def on_event(event: dict[str, Any]) -> None:
            nonlocal tokens
            if any(choice["delta"].get("content") for choice in event["choices"]):
                times.append(time.monotonic())
            if "usage" in event:
                tokens = event["usage"]["completion_tokens"]

        asked = time.monotonic()
        body = {**bodies[number], "stream": True, "stream_options": {"include_usage": True}}
        _server.handle_chat_completions(body, on_event)
        results[number] = Taken(asked, times[0], time.monotonic(), tokens)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers = [result for result in results if result is not None]
    if len(answers) < len(bodies):
        raise BenchFailed("xllamacpp did not answer when it was called directly.")
    return answers


def _load_directly(config: worker.WorkerConfig) -> None:
    """Runs once in the direct side's process."""
    global _server  # noqa: PLW0603 - the process has this one purpose
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    import xllamacpp  # noqa: PLC0415 - native code, for this process only

    _server = xllamacpp.Server(worker.parameters(config))


def worker_config(folder: str, *, threads: int = 1) -> worker.WorkerConfig:
    """What the engine would give to its worker for the built-in model."""
    chosen = settings.read(settings.STORE_SETTINGS, argparse.Namespace(), os.environ)
    stored = ModelStore(settings.models_dir(chosen)).find(BUILTIN_MODEL, SUFFIX)
    if stored is None:
        raise BenchFailed(f"{BUILTIN_MODEL} is not in the store.")
    engine, _ = settings_from(_ENV)
    return {
        "model": str(stored.path.resolve()),
        "socket": str(Path(folder) / "direct.sock"),
        "slots": engine.slots,
        "context": min(engine.context, BUILTIN_MODELS[BUILTIN_MODEL].context_length),
        "threads": threads,
        "cache_mib": engine.cache_mib,
        "pooling": None,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="how often the two sides are compared")
    parser.add_argument("--retries", type=int, default=3, help="how many disturbed pairs may be repeated")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4], help="how many answers run at once")
    parser.add_argument("--tokens", type=int, default=192, help="length of an answer; half of it for several streams")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except BenchFailed as failure:
        sys.exit(f"llamacpp: {failure}")
