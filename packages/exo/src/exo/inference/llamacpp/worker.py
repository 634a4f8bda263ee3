"""The worker process: one llama.cpp server on a private socket. Run as `python -m exo.inference.llamacpp.worker`.

It reads its configuration as one line of JSON from stdin, writes `ready` to stdout, and ends when stdin is closed.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TypedDict

SPINS = "3000"
"""How often waiting threads look before they sleep. With libgomp's default, two workers on the same cores are 20 to 60
times slower than one; with this value each has a quarter of it, and one alone loses nothing (docs/BENCHMARKS.md)."""


class WorkerConfig(TypedDict):
    """`context` is in tokens for each slot, `cache_mib` the host memory for prompts that left their slot.

    `pooling` None: as the model's file says, which may be one vector for each token.
    """

    model: str
    socket: str
    slots: int
    context: int
    threads: int
    cache_mib: int
    pooling: str | None


def main() -> None:
    config: WorkerConfig = json.loads(sys.stdin.readline())
    # llama.cpp's own messages go to stdout or stderr as it likes; only `ready` may appear on the real stdout.
    answer = os.dup(1)
    os.dup2(2, 1)
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    import xllamacpp  # noqa: PLC0415 - 100 MB of native code that only this process may load

    try:
        server = xllamacpp.Server(parameters(config))
    except RuntimeError as error:
        sys.exit(str(error))
    os.write(answer, b"ready\n")
    sys.stdin.read()  # until the node closes it or is gone
    del server
    os._exit(0)


def parameters(config: WorkerConfig) -> Any:
    """The same settings in llama.cpp's terms, an `xllamacpp.CommonParams`."""
    import xllamacpp  # noqa: PLC0415 - as above

    params = xllamacpp.CommonParams()
    params.model.path = config["model"]
    params.hostnames = [config["socket"]]
    params.port = 0
    params.ui = False
    params.n_parallel = config["slots"]
    params.n_ctx = config["slots"] * config["context"]
    params.cache_ram_mib = config["cache_mib"]
    params.embedding = True  # costs chats nothing
    if config["pooling"] is not None:
        params.pooling_type = getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{config['pooling'].upper()}")
        params.n_batch = params.n_ubatch = config["context"]  # such models look at a text as a whole
    if config["threads"]:
        params.cpuparams.n_threads = config["threads"]
        params.cpuparams_batch.n_threads = config["threads"]
    return params


if __name__ == "__main__":
    main()
