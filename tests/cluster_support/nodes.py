"""Nodes of a cluster, each a host of the lab with a real process of its own.

    node = dummy_node(lab, "n1", tokens=20, rate=20, slots=1)           # the least memory and CPU
    node = npu_node(lab, "n2", models=("qwen",), decode_ms=60)          # `exo`, engine rkllm on a simulated board
    node = npu_node(lab, "n3", server="rkllama", env={"RKLLM_PAD_LIMIT": "64"})
    all_ready(nodes)                                                    # they have started side by side
    node.kill(); node.start(); node.hang(); node.resume(); node.stop(); node.host.cut_off()

Further arguments are the node's own (`"--queue-limit", "0"`). It listens on `node.address`, port 52415, without keys
unless `keys` are given. Its node name is the host's. Every answer begins with the name of the node and a blank, which
cluster_support.load.node_of reads. `node.http` is a client for it; `node.board` is the simulated board, with its call
log and faults. A node ends with its host, at the latest with the lab.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, final

import httpx2
import psutil
from npu_board import SimBoard

from cluster_support.network import Host, Lab
from rkllm_sim.tokenizer import words
from support import EXO, RKLLAMA, Node

PORT = 52415
_DEFAULT_TOKENS = 20
_WORD = words()[0]


@final
class ClusterNode:
    """A server that can be ended in every way and started again on the same address.

    `command` serves; `arguments` and `env` are what it is started with, each time.
    """

    def __init__(
        self,
        host: Host,
        *arguments: str,
        command: Sequence[str | Path],
        env: Mapping[str, str],
        board: SimBoard | None = None,
        port: int = PORT,
    ) -> None:
        self.host = host
        self.port = port
        self._board = board
        self._command = command
        self._arguments = arguments
        self._env = env
        self._node: Node | None = None
        host.when_removed(self._end)

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def address(self) -> str:
        return self.host.address

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    @property
    def board(self) -> SimBoard:
        assert self._board is not None, f"{self.name} has no simulated board"
        return self._board

    @property
    def process(self) -> Node:
        """What was started last: its log, pid, exit code, `chat`."""
        assert self._node is not None, f"{self.name} was never started"
        return self._node

    @property
    def http(self) -> httpx2.Client:
        return self.process.http

    def start(self, *, ready: bool = True) -> None:
        """Start it, again after it has ended. With `ready=False` return at once. Raises NodeFailed."""
        self._end()
        self._node = Node(
            *self._arguments,
            folder=self.host.folder,
            env=self._env,
            command=self._command,
            address=(self.address, self.port),
            prefix=self.host.prefix,
            ready=ready,
        )

    def wait_until_ready(self, timeout: float = 120) -> None:
        """Raises NodeFailed."""
        self.process.wait_until_ready(timeout)

    def stop(self, timeout: float = 30) -> int:
        """SIGTERM; returns the exit code. Raises NodeFailed if it does not end in time."""
        return self.process.stop(timeout)

    def kill(self) -> None:
        """SIGKILL to the node and its workers, also while they hang."""
        self._signal(signal.SIGKILL)
        self.process.kill()

    def hang(self) -> None:
        """SIGSTOP to the node and its workers: connections are still accepted, by the kernel, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `hang`."""
        self._signal(signal.SIGCONT)

    def cpu(self) -> float:
        """CPU seconds of the node and of its living workers."""
        used = 0.0
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                used += sum(process.cpu_times()[:2])
        return used

    def _processes(self) -> list[psutil.Process]:
        try:
            node = psutil.Process(self.process.pid)
            return [node, *node.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _end(self) -> None:
        if self._node is not None:
            self._signal(signal.SIGKILL)
            self._node.end()


def dummy_node(
    lab: Lab,
    name: str,
    *arguments: str,
    rate: float = 50,
    tokens: int = _DEFAULT_TOKENS,
    slots: int = 1,
    keys: str = "",
    env: Mapping[str, str] | None = None,
) -> ClusterNode:
    """A node with the engine dummy, started but perhaps not ready yet. `rate` is tokens per second of each slot."""
    own = {
        "EXO_DUMMY_RATE": f"{rate:g}",
        "EXO_DUMMY_TOKENS": str(tokens),
        "EXO_DUMMY_SLOTS": str(slots),
        "EXO_DUMMY_FIRST_WORD": name,
    }
    access, settings = _access(keys, "EXO")
    node = ClusterNode(
        lab.add_host(name),
        *("--inference-engine", "dummy", *access, *arguments),
        command=(EXO,),
        env={"EXO_NODE_NAME": name, **settings, **own, **(env or {})},
    )
    node.start(ready=False)
    return node


def npu_node(
    lab: Lab,
    name: str,
    *arguments: str,
    server: Literal["exo", "rkllama"] = "exo",
    models: Iterable[str] = ("m",),
    tokens: int = _DEFAULT_TOKENS,
    prefill_ms: float = 0.0,
    decode_ms: float = 0.0,
    keys: str = "",
    env: Mapping[str, str] | None = None,
    **options: Any,
) -> ClusterNode:
    """A node on a simulated board of its own, started but perhaps not ready yet.

    Each of `models` answers with the node's name and words, `tokens` in all, at this pace in milliseconds for each
    token; `options` are further ones of the simulated models, see rkllm_sim.model.ModelOptions.
    """
    host = lab.add_host(name)
    board = SimBoard(host.folder)
    script = f'text "{name}"\nrepeat {max(1, tokens - len(name))} " {_WORD}"\n'  # a token for each letter of the name
    for model in models:
        board.add_model(
            model, **{"lm": "script", "script": script, "prefill_ms": prefill_ms, "decode_ms": decode_ms, **options}
        )
    access, settings = _access(keys, "EXO" if server == "exo" else "RKLLAMA")
    engine = ("--inference-engine", "rkllm") if server == "exo" else ()
    node = ClusterNode(
        host,
        *(*engine, *access, *arguments),
        command=(EXO,) if server == "exo" else (RKLLAMA, "serve"),
        env={**board.env, "EXO_NODE_NAME": name, "RKLLAMA_NODE_NAME": name, **settings, **(env or {})},
        board=board,
    )
    node.start(ready=False)
    return node


def all_ready(nodes: Iterable[ClusterNode], timeout: float = 120) -> None:
    """Wait for nodes that start side by side. Raises NodeFailed."""
    for node in nodes:
        node.wait_until_ready(timeout)


def _access(keys: str, prefix: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Flags and variables of a node with these API keys (separated by commas), or without any."""
    return ((), {f"{prefix}_API_KEYS": keys}) if keys else (("--no-auth",), {})
