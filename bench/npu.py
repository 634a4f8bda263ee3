"""What a node adds to the NPU's runtime: idle time between requests, first token, CPU, memory, aborts, prefix re-use.

The runtime is the simulator, paced like Qwen2.5-1.5B on an RK3588 unless a measurement says unpaced. Its call log has
the runtime's own times on the clock of time.monotonic, so what the node adds is the difference.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from load import Chat, Target, run_chats
from node import BenchFailed, Node, pss, running_node
from quiet import Quiet
from report import Row, at_least, at_most, plain, publish
from rkllm_sim.build import build
from rkllm_sim.model import write_model

PREFILL_MS, DECODE_MS = 2.95, 60.0
ABI = "1.2.3"
CLIENTS = 8
_UNPACED_CONTEXT = 65_536
_SETTLE = 1.0


@dataclass
class Board:
    """A node on a simulated board, and the runtime's call log."""

    node: Node
    log: Path

    @property
    def target(self) -> Target:
        return Target(self.node.host, self.node.port)

    def forget(self) -> None:
        """Begin a new log."""
        self.log.write_text("")

    def calls(self, name: str) -> list[dict[str, Any]]:
        calls = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [call for call in calls if call["call"] == name]

    def returns(self) -> list[dict[str, Any]]:
        """Every run that has ended: `t_enter`, `t_first`, and `t`, its end."""
        return [call for call in self.calls("rkllm_run") if call["event"] == "return"]

    def cpu(self) -> float:
        """CPU seconds of the node and of its workers, the simulator in them included; to the nanosecond."""
        processes = [self.node.process, *self.node.workers()]
        return sum(_on_cpu(process.pid) for process in processes)


def main() -> None:
    options = _options()
    quiet = Quiet(retries=options.retries)
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as clients,
        board(Path(folder)) as npu,
    ):
        measures: list[tuple[str, Callable[[], dict[str, float]]]] = [
            (f"{CLIENTS} clients in the queue", lambda: queued(npu, clients)),
            ("first token", lambda: first_token(npu, clients)),
            ("paced streams, CPU", lambda: paced_cpu(npu, clients)),
            ("one unpaced stream", lambda: unpaced(npu, clients, options.tokens)),
            ("clients that leave", lambda: leaving(npu)),
            ("a chat of ten turns", lambda: ten_turns(npu)),
            ("memory", memory),
        ]
        for title, measure in measures:
            runs = [
                quiet.run(f"{title}, run {number + 1} of {options.runs}", measure) for number in range(options.runs)
            ]
            rows += [_row(name, [run[name] for run in runs]) for name in runs[0]]
    publish("npu", vars(options), [*rows, quiet.row()])


@contextmanager
def board(folder: Path, *flags: str) -> Iterator[Board]:
    """A node on a simulated board with a paced and an unpaced model."""
    store, log = folder / "rkllama" / "models", folder / "calls.jsonl"
    write_model(store / "paced", answer=(8, 8), prefill_ms=PREFILL_MS, decode_ms=DECODE_MS, context=8192)
    write_model(store / "long", answer=(10_000, 10_000), prefill_ms=PREFILL_MS, decode_ms=DECODE_MS, context=16_384)
    write_model(store / "quick", answer=(50_000, 50_000), context=_UNPACED_CONTEXT)
    (folder / "root").mkdir()
    env = {
        "RKLLM_LIB": str(build(ABI, folder / "lib")),
        "RKLLM_ROOT": str(folder / "root"),
        "RKLLAMA_HOME": str(store.parent),
        "RKLLM_SIM_LOG": str(log),
        "RKLLM_KEEP_ALIVE": "-1",
        "EXO_HOME": str(folder / "exo"),
    }
    with running_node("--inference-engine", "rkllm", "--default-model", "paced", *flags, env=env) as node:
        node.wait_for("/ready")
        yield Board(node, log)


def _on_cpu(pid: int) -> float:
    """Seconds that the threads of a process have run, by the scheduler's own count; psutil counts in steps of 10 ms."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def ask(model: str, text: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def chats(npu: Board, clients: ProcessPoolExecutor, bodies: list[dict[str, Any]]) -> list[Chat]:
    found = clients.submit(run_chats, npu.target, bodies).result()
    problems = [chat.problem for chat in found if chat.problem]
    if problems:
        raise BenchFailed(f"{len(problems)} of {len(found)} streams failed, the first one: {problems[0]}")
    return found


def queued(npu: Board, clients: ProcessPoolExecutor) -> dict[str, float]:
    """24 requests at once of clients that all wait for the one slot: between two runs the NPU has nothing to do."""
    npu.forget()
    chats(npu, clients, [ask("paced", f"Question {number}: what is new?") for number in range(3 * CLIENTS)])
    runs = sorted(npu.returns(), key=lambda run: run["t"])
    idle = [(later["t_enter"] - earlier["t"]) * 1000 for earlier, later in itertools.pairwise(runs)]
    return {
        "NPU idle between two queued requests, p50, ms": statistics.median(idle),
        "NPU idle between two queued requests, longest, ms": max(idle),
    }


def first_token(npu: Board, clients: ProcessPoolExecutor) -> dict[str, float]:
    """From the request's first byte to the first token, less what the runtime itself took for it."""
    added: dict[str, list[float]] = {"short prompt": [], "2,000 tokens": []}
    for name, text in (("short prompt", "Hello"), ("2,000 tokens", "new " * 500)):
        for number in range(3):
            npu.forget()
            (chat,) = chats(npu, clients, [ask("paced", f"{number} {text}", max_tokens=2)])
            (run,) = npu.returns()
            added[name].append((chat.times[0] - chat.asked - (run["t_first"] - run["t_enter"])) * 1000)
    return {
        f"first token beyond the runtime's own, {name}, ms": statistics.median(took) for name, took in added.items()
    }


def paced_cpu(npu: Board, clients: ProcessPoolExecutor) -> dict[str, float]:
    """CPU time of node and worker for each token of a stream at the board's pace."""
    tokens = 300
    chats(npu, clients, [ask("long", "Warm up", max_tokens=2)])
    before = npu.cpu()
    chats(npu, clients, [ask("long", "Go on", max_tokens=tokens)])
    return {f"CPU of node and worker per token at {DECODE_MS:g} ms, µs": (npu.cpu() - before) / tokens * 1e6}


def unpaced(npu: Board, clients: ProcessPoolExecutor, tokens: int) -> dict[str, float]:
    """One stream as fast as it goes."""
    chats(npu, clients, [ask("quick", "Warm up", max_tokens=100)])
    npu.forget()
    before = npu.cpu()
    (chat,) = chats(npu, clients, [ask("quick", "Go on", max_tokens=tokens)])
    used = npu.cpu() - before
    words = len(chat.text.split())
    wrong = abs(words - tokens) + abs(chat.completion_tokens - tokens) + len(chat.ids) - 1
    return {
        "one unpaced stream through worker, node and HTTP, tokens/s": tokens / (chat.times[-1] - chat.times[0]),
        "its CPU of node and worker per token, µs": used / tokens * 1e6,
        "its tokens lost or mixed": wrong,
    }


def leaving(npu: Board) -> dict[str, float]:
    """From the moment a client closes its connection to the call of rkllm_abort."""
    took = []
    for number in range(10):
        npu.forget()
        left = _read_some_and_leave(npu, ask("long", f"Tell me {number}", stream=True))
        until = time.monotonic() + 10
        while not npu.calls("rkllm_abort"):
            if time.monotonic() > until:
                raise BenchFailed("rkllm_abort was not called within 10 s.")
            time.sleep(0.005)
        took.append((npu.calls("rkllm_abort")[0]["t"] - left) * 1000)
        while not npu.returns():
            time.sleep(0.005)
    return {"client gone to rkllm_abort, longest of 10, ms": max(took)}


def _read_some_and_leave(npu: Board, body: dict[str, Any]) -> float:
    content = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {npu.node.host}\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.create_connection((npu.node.host, npu.node.port)) as connection:
        connection.sendall(head.encode() + content)
        received = b""
        while received.count(b'"content":" ') < 3:
            received += connection.recv(65_536)
    return time.monotonic()


def ten_turns(npu: Board) -> dict[str, float]:
    """A chat with the unpaced model: what its last turn prefills beyond the new message and the template."""
    npu.forget()
    messages: list[dict[str, str]] = []
    for turn in range(10):
        messages.append({"role": "user", "content": f"And what about {turn}?"})
        body = {"model": "paced", "messages": messages, "stream": True}
        (chat,) = run_chats(npu.target, [body])
        messages.append({"role": "assistant", "content": chat.text})
    earlier, last = npu.returns()[-2:]
    entered = [call["n_tokens"] for call in npu.calls("rkllm_run") if call["event"] == "enter"]
    new = entered[-1] - entered[-2] - earlier["generated"]
    return {
        "turn 10 of a chat: tokens of the new message and template": new,
        "turn 10 of a chat: tokens prefilled beyond these": last["prefilled"] - new,
    }


def memory() -> dict[str, float]:
    """An idle node that has loaded no model, and a worker process that has loaded none."""
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryDirectory() as folder, ours, board(Path(folder), "--no-preload") as npu, theirs:
        command = [sys.executable, "-m", "exo_rkllm.worker", str(theirs.fileno())]
        with subprocess.Popen(command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL) as worker:
            time.sleep(_SETTLE)
            found = {
                "idle node without a model: PSS, MB": npu.node.pss() / 1e6,
                "worker without its model: PSS, MB": pss(psutil.Process(worker.pid)) / 1e6,
            }
            theirs.close()
            ours.close()
            worker.wait(10)
        return found


_GOALS: dict[str, tuple[Callable[[str, list[float], str, float], Row], float]] = {
    "NPU idle between two queued requests, p50": (at_most, 1.0),
    "NPU idle between two queued requests, longest": (at_most, 5.0),
    "first token beyond the runtime's own, short prompt": (at_most, 5.0),
    "first token beyond the runtime's own, 2,000 tokens": (at_most, 5.0),
    f"CPU of node and worker per token at {DECODE_MS:g} ms": (at_most, 500.0),
    "one unpaced stream through worker, node and HTTP": (at_least, 12_000.0),
    "its CPU of node and worker per token": (at_most, 60.0),
    "its tokens lost or mixed": (at_most, 0.0),
    "client gone to rkllm_abort, longest of 10": (at_most, DECODE_MS),
    "turn 10 of a chat: tokens prefilled beyond these": (at_most, 16.0),
    "idle node without a model: PSS": (at_most, 90.0),
    "worker without its model: PSS": (at_most, 30.0),
}


def _row(name: str, runs: list[float]) -> Row:
    what, comma, unit = name.rpartition(", ")
    if not comma:
        what, unit = name, ""
    if what not in _GOALS:
        return plain(what, runs, unit)
    judge, limit = _GOALS[what]
    return judge(what, runs, unit, limit)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--tokens", type=int, default=40_000, help="length of the unpaced stream")
    parser.add_argument("--runs", type=int, default=5, help="how often everything is measured")
    parser.add_argument("--retries", type=int, default=2, help="how many disturbed measurements may be repeated")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except BenchFailed as failure:
        sys.exit(f"npu: {failure}")
