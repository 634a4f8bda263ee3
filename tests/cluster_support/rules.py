"""A rendered proxy on loopback before stand-ins, for what it does with single requests.

    with cluster_of(folder, "haproxy", [("a", ["m"]), ("b", ["m", "n"])], "max_body = 16384") as cluster:
        cluster.chat("Hello", model="m").json()["node"]; cluster.node_of("Hello"); cluster.nodes["a"].asked

The alias ALIAS stands for the first model of the first node.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx2

from cluster_support.stand_in import StandIn
from exo.cluster.render import render
from support import wait_until

ALIAS = "fast"
ANSWERED = [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": "And then?"}]
"""What makes the next turn of a conversation."""


@dataclass
class Cluster:
    """`http` is a client for the proxy."""

    nodes: dict[str, StandIn]
    http: httpx2.Client
    log: Path

    def chat(self, text: str = "Hello", *, turn: int = 1, **fields: Any) -> httpx2.Response:
        """The first turn of a conversation that begins with `text`, or a later one."""
        messages = [{"role": "user", "content": text}, *ANSWERED * (turn - 1)]
        return self.http.post("/v1/chat/completions", json={"messages": messages, **fields})

    @property
    def came(self) -> int:
        """How many requests have reached a node."""
        return sum(len(node.asked) for node in self.nodes.values())

    def node_of(self, text: str = "Hello", *, turn: int = 1, **fields: Any) -> str:
        answer = self.chat(text, turn=turn, **fields)
        assert answer.status_code == httpx2.codes.OK, answer.text
        return str(answer.json()["node"])


@contextlib.contextmanager
def cluster_of(
    folder: Path,
    kind: Literal["haproxy", "nginx"],
    nodes: Sequence[tuple[str, Sequence[str]]],
    extra: str = "",
    *,
    certificate: Path | None = None,
) -> Iterator[Cluster]:
    """`extra` are lines of the inventory's table `proxy` and further tables. With a certificate it is HTTPS."""
    port, metrics = _free_ports(2)
    with contextlib.ExitStack() as stack:
        stand_ins = {name: stack.enter_context(StandIn(name)) for name, _ in nodes}
        tables = "\n".join(
            f'[[nodes]]\nname = "{name}"\naddress = "127.0.0.1"\nport = {stand_ins[name].port}\n'
            f"models = {json.dumps(list(models))}"
            for name, models in nodes
        )
        proxy = f'[proxy]\naddress = "127.0.0.1"\nport = {port}\nmetrics_port = {metrics}\nslow_start = 1\n'
        proxy += f'admin_socket = "{folder}/admin.sock"\n{extra}\n'
        tls = f'[tls]\ncertificate = "{certificate}"\n' if certificate else ""
        (folder / "cluster.toml").write_text(f'{tables}\n[aliases]\n"{ALIAS}" = "{nodes[0][1][0]}"\n{proxy}{tls}')
        for file in render(kind, folder / "cluster.toml"):
            file.write(folder)
        log = folder / f"{kind}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(_command(kind, folder), stdout=out, stderr=out)
        try:
            scheme, verify = (
                ("https", ssl.create_default_context(cafile=certificate)) if certificate else ("http", True)
            )
            url = f"{scheme}://127.0.0.1:{port}"
            http = stack.enter_context(httpx2.Client(base_url=url, verify=verify, trust_env=False, timeout=60))
            wait_until(lambda: _is_up(http, kind), timeout=20, what=f"{kind} to find a node, see {log}")
            yield Cluster(stand_ins, http, log)
        finally:
            process.terminate()
            process.wait()


def _command(kind: str, folder: Path) -> list[str]:
    if kind == "haproxy":
        return ["haproxy", "-db", "-f", f"{folder}/haproxy.cfg"]
    own = f"daemon off; pid {folder}/nginx.pid;"
    return ["nginx", "-p", str(folder), "-c", f"{folder}/nginx.conf", "-e", "stderr", "-g", own]


def _is_up(http: httpx2.Client, kind: str) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return http.get("/ready" if kind == "haproxy" else "/healthcheck").status_code == httpx2.codes.OK
    return False


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]
