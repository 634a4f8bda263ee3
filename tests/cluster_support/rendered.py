"""A rendered proxy before nodes of the lab: what `exo cluster render` makes, run by the program that it is for.

    proxy = haproxy_before(nodes, tmp_path, queue_timeout=2)      # a host "proxy" of its own; keys of [proxy]
    proxy.url; proxy.program.reload(); proxy.servers()["n1"].sessions
    proxy = nginx_before(nodes, tmp_path)

That of HAProxy returns when every node is known to be ready.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster_support.network import Host
from cluster_support.nodes import ClusterNode
from cluster_support.programs import HaproxyProcess, NginxProcess
from exo.cluster.pools import LISTINGS, RESPONSES
from exo.cluster.render import render
from support import wait_until

_PORT = 8080


@dataclass(frozen=True)
class Server:
    """What HAProxy knows of a server: `status` is "UP", "DOWN", "NOLB" (it answers, but is not ready), …

    `running` and `waiting` are requests at it and in its own queue, `sessions` all that it was ever given.
    """

    status: str
    running: int
    waiting: int
    sessions: int


class RenderedHaproxy:
    """HAProxy with the rendered file of an inventory that has these nodes."""

    def __init__(self, host: Host, config: Path, admin_socket: Path) -> None:
        self.program = HaproxyProcess(host, config, ports=(_PORT,))
        self.url = self.program.url
        self._admin_socket = admin_socket

    def servers(self) -> dict[str, Server]:
        """Those of the backends that run chats, by name."""
        return {
            row["svname"]: Server(row["status"], int(row["scur"]), int(row["qcur"]), int(row["stot"]))
            for row in self._rows()
            if row["svname"] not in {"FRONTEND", "BACKEND"}
        }

    def waiting(self) -> int:
        """How many requests wait for a slot, be it for any server or for a certain one."""
        return sum(int(row["qcur"]) for row in self._rows() if row["svname"] != "FRONTEND")

    def wait_for(self, node: ClusterNode, status: str) -> None:
        """Wait until HAProxy knows a node to be so."""
        wait_until(
            lambda: self.servers()[node.name].status == status,
            timeout=30,
            what=f"{node.name} to be {status}, but {self.servers()}",
        )

    def _rows(self) -> list[dict[str, str]]:
        text = self.program.ask(self._admin_socket, "show stat").removeprefix("# ")
        rows = csv.DictReader(text.splitlines())
        others = (LISTINGS, RESPONSES)
        return [row for row in rows if row["pxname"].startswith("pool_") and not row["pxname"].endswith(others)]


def haproxy_before(
    nodes: Sequence[ClusterNode], folder: Path, *, slots: int = 1, tables: str = "", **proxy: int
) -> RenderedHaproxy:
    """`slots` are those of each node, `tables` further ones of the inventory."""
    host = nodes[0].host.lab.add_host("proxy")
    socket = folder / "admin.sock"
    inventory = _inventory(nodes, folder, slots, proxy, tables)
    config = _rendered("haproxy", inventory)
    started = RenderedHaproxy(host, config, socket)
    for node in nodes:
        started.wait_for(node, "UP")
    return started


def nginx_before(nodes: Sequence[ClusterNode], folder: Path, *, slots: int = 1, **proxy: int) -> NginxProcess:
    host = nodes[0].host.lab.add_host("proxy")
    inventory = _inventory(nodes, folder, slots, proxy)
    return NginxProcess(host, _rendered("nginx", inventory), ports=(_PORT,))


def _inventory(
    nodes: Sequence[ClusterNode], folder: Path, slots: int, proxy: dict[str, int], further: str = ""
) -> Path:
    settings = {"port": _PORT, "admin_socket": str(folder / "admin.sock"), "slow_start": 1, **proxy}
    tables = ["[proxy]", *(f"{key} = {json.dumps(value)}" for key, value in settings.items())]
    for node in nodes:
        models = [model["id"] for model in node.http.get("/v1/models").json()["data"]]
        tables += ["[[nodes]]", f'name = "{node.name}"', f'address = "{node.address}"']
        tables += [f"port = {node.port}", f"slots = {slots}", f"models = {json.dumps(models)}"]
    path = folder / "cluster.toml"
    path.write_text("\n".join([*tables, further]), encoding="utf-8")
    return path


def _rendered(kind: str, inventory: Path) -> Path:
    """The file, beside its inventory."""
    (made,) = render(kind, inventory)
    return made.write(inventory.parent)
