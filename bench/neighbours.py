"""What two llama.cpp processes on the same cores do to each other, with libgomp's own spinning and with the worker's.

Not part of `make bench`: the answers with libgomp's default take minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile

from exo.inference.llamacpp.worker import SPINS
from llamacpp import worker_config
from node import pull_builtin_model
from report import Row, plain, publish

_CHILD = """
import json, os, sys
from exo.inference.llamacpp import worker
answer = os.dup(1)
os.dup2(2, 1)
import xllamacpp
server = xllamacpp.Server(worker.parameters(json.loads(sys.argv[1])))
body = {"messages": [{"role": "user", "content": "Tell a story."}], "max_tokens": int(sys.argv[2]), "temperature": 0}
result = server.handle_chat_completions(body)
os.write(answer, str(result["timings"]["predicted_per_second"]).encode())
os._exit(0)
"""


def main() -> None:
    options = _options()
    pull_builtin_model()
    rows: list[Row] = []
    for title, spins in (("libgomp's default", ""), (f"GOMP_SPINCOUNT={SPINS}", SPINS)):
        for processes in (1, 2):
            runs = [_speed(processes, spins, options.tokens) for _ in range(options.runs)]
            what = "1 process alone" if processes == 1 else "each of 2 processes at once"
            rows.append(plain(f"{title}: {what}", runs, "tokens/s"))
    publish("neighbours", vars(options), rows)


def _speed(processes: int, spins: str, tokens: int) -> float:
    """The mean decoding speed of processes that run at the same time, as llama.cpp measured it."""
    env = {**os.environ, "GOMP_SPINCOUNT": spins} if spins else dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="exo-bench-") as folder:
        children = []
        for number in range(processes):
            config = worker_config(folder, threads=os.cpu_count() or 1)
            config["socket"] = f"{folder}/{number}.sock"
            command = [sys.executable, "-c", _CHILD, json.dumps(config), str(tokens)]
            children.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env))
        return sum(float(child.communicate()[0]) for child in children) / processes


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured")
    parser.add_argument("--tokens", type=int, default=30, help="length of an answer")
    return parser.parse_args()


if __name__ == "__main__":
    main()
