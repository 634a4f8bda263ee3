"""The commands of exo.cluster.proxy.runtime_api with a real HAProxy."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from cluster_support.stand_in import StandIn
from exo.cluster.proxy.runtime_api import RuntimeApi, Server
from exo.cluster.render.haproxy import server_options
from exo.types import ProxyRefused
from support import wait_until

pytestmark = pytest.mark.system

CONFIG = """
global
    stats socket {socket} mode 600 level admin
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
frontend exo
    bind 127.0.0.1:{port}
    http-request set-var(txn.conversation) req.hdr(x-conversation),sha1
    default_backend pool_x
backend pool_x
    balance leastconn
    stick-table type binary len 20 size 100k expire 1h
    stick on var(txn.conversation)
    option httpchk GET /ready
    server a 127.0.0.1:{a} maxconn 1 weight 100 check
backend pool_x_get
    balance leastconn
    server a 127.0.0.1:{a} track pool_x/a
"""


class Proxy:
    def __init__(self, folder: Path, a: StandIn) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        path = folder / "admin.sock"
        (folder / "haproxy.cfg").write_text(CONFIG.format(socket=path, port=self.port, a=a.port))
        self.process = subprocess.Popen(["haproxy", "-db", "-f", folder / "haproxy.cfg"], stderr=subprocess.DEVNULL)
        wait_until(path.exists, timeout=20, what="HAProxy to listen")
        self.api = RuntimeApi(path)

    def node_for(self, conversation: str) -> str:
        answer = httpx2.get(
            f"http://127.0.0.1:{self.port}/", headers={"x-conversation": conversation}, trust_env=False, timeout=20
        )
        return str(answer.json()["node"])

    async def server(self, name: str, backend: str = "pool_x") -> Server:
        (found,) = [one for one in (await self.api.state()).servers if (one.backend, one.name) == (backend, name)]
        return found

    async def add(self, node: StandIn, backend: str = "pool_x", slots: int | None = 2) -> None:
        await self.api.add_server(
            backend, node.name, "127.0.0.1", node.port, weight=50, slots=slots, options=server_options(1)
        )


@pytest.fixture
def nodes() -> Iterator[tuple[StandIn, StandIn]]:
    with StandIn("a") as a, StandIn("c") as c:
        yield a, c


@pytest.fixture
def proxy(tmp_path: Path, nodes: tuple[StandIn, StandIn]) -> Iterator[Proxy]:
    made = Proxy(tmp_path, nodes[0])
    yield made
    made.process.kill()
    made.process.wait()


async def test_a_server_comes_changes_and_goes(proxy: Proxy, nodes: tuple[StandIn, StandIn]) -> None:
    a, c = nodes
    state = await proxy.api.state()
    assert (set(state.backends), set(state.tables)) == ({"pool_x", "pool_x_get"}, {"pool_x"})
    assert await proxy.server("a") == Server("pool_x", "a", 1, "127.0.0.1", a.port, slots=1)
    assert (await proxy.server("a", "pool_x_get")).slots is None
    await proxy.add(c)
    await proxy.add(c, "pool_x_get", None)
    added = await proxy.server("c")
    assert (added.address, added.port, added.weight, added.slots) == ("127.0.0.1", c.port, 50, 2)
    assert not added.in_maintenance
    await proxy.api.set_weight("pool_x", "c", 7)
    await proxy.api.set_slots("pool_x", "c", 5)
    changed = await proxy.server("c")
    assert (changed.weight, changed.slots) == (7, 5)
    with pytest.raises(ProxyRefused, match="maintenance mode"):
        await proxy.api.delete("pool_x", "c")
    await proxy.api.maintain("pool_x", "c")
    assert (await proxy.server("c")).in_maintenance
    assert await proxy.api.delete("pool_x", "c")
    assert [one.name for one in (await proxy.api.state()).servers] == ["a", "a", "c"]
    with pytest.raises(ProxyRefused, match="No such server"):
        await proxy.api.drain("pool_x", "c")
    with pytest.raises(ProxyRefused, match="No such backend"):
        await proxy.add(c, "nowhere")


async def test_a_drained_server_gets_nothing_once_it_is_forgotten(proxy: Proxy, nodes: tuple[StandIn, StandIn]) -> None:
    await proxy.add(nodes[1])
    talks = [f"talk {number}" for number in range(20)]
    wait_until(lambda: {proxy.node_for(talk) for talk in talks} == {"a", "c"}, timeout=20, what="both to be used")
    await proxy.api.drain("pool_x", "c")
    assert (await proxy.server("c")).draining
    assert "c" in {proxy.node_for(talk) for talk in talks}, "a conversation goes on where it was"
    await proxy.api.forget("pool_x", (await proxy.server("c")).number)
    assert {proxy.node_for(talk) for talk in talks} == {"a"}
    await proxy.api.ready("pool_x", "c")
    assert not (await proxy.server("c")).draining


async def test_a_server_that_another_one_tracks_has_to_stay(proxy: Proxy) -> None:
    await proxy.api.maintain("pool_x", "a")
    assert not await proxy.api.delete("pool_x", "a")
