"""Rounds of the watch, with recorded commands in place of HAProxy; tests/cluster has the real one."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from pathlib import Path
from typing import Any, cast

import pytest

from exo.cluster.membership.announcement import NodeDescription
from exo.cluster.membership.mdns import Browser, Sighting
from exo.cluster.membership.proofs import Proofs
from exo.cluster.membership.verification import Refused, Verified
from exo.cluster.pools import pool_name
from exo.cluster.proxy import watch as module
from exo.cluster.proxy.inventory_file import InventoryFile
from exo.cluster.proxy.runtime_api import ProxyState, Server
from exo.cluster.proxy.watch import Times, Watch
from exo.types import ProxyRefused, ProxyUnreachable

POOL = pool_name(["m"])
INVENTORY = '[[nodes]]\nname = "a"\naddress = "10.0.0.1"\nmodels = ["m"]\n'
A = Server(POOL, "a", 1, "10.0.0.1", 52415, slots=1)
C = Server(POOL, "c", 2, "10.0.0.3", 52415, slots=1)


class Haproxy:
    """Keeps the commands, and does what they say to its servers."""

    def __init__(self) -> None:
        self.servers = {"a": A}
        self.commands: list[str] = []
        self.refusal = ""
        self.is_there = True
        self.missed: asyncio.Queue[None] = asyncio.Queue()
        self.obeyed = asyncio.Event()

    async def state(self) -> ProxyState:
        if not self.is_there:
            self.missed.put_nowait(None)
            raise ProxyUnreachable("nobody is there.")
        return ProxyState(frozenset({POOL}), frozenset({POOL}), tuple(self.servers.values()))

    async def add_server(self, backend: str, name: str, address: str, port: int, **options: Any) -> None:
        self._note("add", name)
        self.servers[name] = Server(backend, name, 9, address, port, options["weight"], slots=options["slots"])

    async def drain(self, backend: str, name: str) -> None:
        self._note("drain", name)
        self.servers[name] = dataclasses.replace(self.servers[name], draining=True)

    async def ready(self, backend: str, name: str) -> None:
        self._note("ready", name)
        self.servers[name] = dataclasses.replace(self.servers[name], draining=False, in_maintenance=False)

    async def maintain(self, backend: str, name: str) -> None:
        self._note("maintain", name)

    async def forget(self, table: str, number: int) -> None:
        self._note("forget", str(number))

    async def delete(self, backend: str, name: str) -> bool:
        self._note("delete", name)
        del self.servers[name]
        return True

    def _note(self, command: str, name: str) -> None:
        if command == self.refusal:
            raise ProxyRefused(f"not {command}")
        self.commands.append(f"{command} {name}")
        self.obeyed.set()


class StandIns:
    """A browser and its proofs, in which a test writes."""

    def __init__(self) -> None:
        self.sightings: dict[str, Sighting] = {}
        self.found: dict[str, Verified | Refused] = {}
        self.changed = asyncio.Event()

    def see(self, sightings: object, secret: object) -> None:
        pass

    def join(self, name: str, answer: Refused | None = None) -> None:
        node = NodeDescription(name, models=("m",))
        self.sightings[name] = Sighting(name, node, ("10.0.0.3",), 52415)
        self.found[name] = answer or Verified(node, "10.0.0.3", 52415)

    def leave(self, name: str) -> None:
        del self.sightings[name], self.found[name]


@pytest.fixture
def haproxy(monkeypatch: pytest.MonkeyPatch) -> Haproxy:
    made = Haproxy()
    monkeypatch.setattr(module, "RuntimeApi", lambda path: made)
    return made


@pytest.fixture
def nodes() -> StandIns:
    return StandIns()


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.toml"
    path.write_text(INVENTORY)
    return path


def watch_of(path: Path, nodes: StandIns, settle: float = 0.0) -> Watch:
    return Watch(InventoryFile(path), cast("Browser", nodes), cast("Proofs", nodes), Times(settle=settle, between=0.01))


def write(path: Path, text: str | None) -> None:
    if text is None:
        path.unlink()
    else:
        path.write_text(text)


async def test_a_node_comes_ends_what_it_has_and_goes(inventory: Path, nodes: StandIns, haproxy: Haproxy) -> None:
    watch = watch_of(inventory, nodes)
    await watch.round()
    assert haproxy.commands == []
    nodes.join("c")
    await watch.round()
    await watch.round()
    assert haproxy.commands == ["add c"]
    haproxy.servers["c"] = dataclasses.replace(haproxy.servers["c"], sessions=1)
    nodes.leave("c")
    await watch.round()
    await watch.round()
    assert haproxy.commands == ["add c", "drain c", "forget 9", "forget 9"]
    haproxy.servers["c"] = dataclasses.replace(haproxy.servers["c"], sessions=0)
    await watch.round()
    assert haproxy.commands[4:] == ["forget 9", "maintain c", "delete c"]


async def test_a_session_in_the_last_moment_keeps_a_server(inventory: Path, nodes: StandIns, haproxy: Haproxy) -> None:
    watch = watch_of(inventory, nodes)
    haproxy.servers["c"] = dataclasses.replace(C, draining=True)

    async def forget(table: str, number: int) -> None:
        haproxy.servers["c"] = dataclasses.replace(C, draining=True, sessions=1)

    haproxy.forget = forget  # type: ignore[method-assign]
    await watch.round()
    assert haproxy.commands == []


async def test_who_just_looks_removes_nobody_that_it_has_not_seen(
    inventory: Path, nodes: StandIns, haproxy: Haproxy
) -> None:
    watch = watch_of(inventory, nodes, settle=1000)
    haproxy.servers["c"] = C
    await watch.round()
    assert haproxy.commands == []
    nodes.join("c")
    await watch.round()
    nodes.leave("c")
    await watch.round()
    assert haproxy.commands == ["drain c", "forget 2"]


async def test_a_broken_inventory_changes_nothing(
    inventory: Path, nodes: StandIns, haproxy: Haproxy, caplog: pytest.LogCaptureFixture
) -> None:
    watch = watch_of(inventory, nodes)
    for text in ("nodes = [", ""):
        write(inventory, text)
        await watch.round()
        await watch.round()
    write(inventory, None)
    await watch.round()
    assert haproxy.commands == []
    assert [record.message.count("The inventory stays as it was") for record in caplog.records].count(1) == 3
    write(inventory, INVENTORY + '[[nodes]]\nname = "d"\naddress = "10.0.0.4"\nmodels = ["m"]\n')
    await watch.round()
    assert haproxy.commands == ["add d"]


def test_a_secret_that_appears_or_changes_is_noticed(inventory: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = inventory.with_name("secret")
    file = InventoryFile(inventory)
    inventory.write_text(f'secret_file = "secret"\n{INVENTORY}')
    for _ in range(3):
        assert not file.refresh()
    assert caplog.text.count("The inventory stays as it was") == 1
    for text in ("a secret that is long enough, the first", "a secret that is long enough, another one"):
        secret.write_text(text)
        secret.chmod(0o600)
        assert file.refresh()
        assert file.secret == text.encode()
        assert not file.refresh()
    secret.unlink()
    assert not file.refresh()
    assert file.secret == text.encode()
    assert caplog.text.count("The inventory stays as it was") == 2


async def test_a_stranger_is_named_once_and_gets_nothing(
    inventory: Path, nodes: StandIns, haproxy: Haproxy, caplog: pytest.LogCaptureFixture
) -> None:
    watch = watch_of(inventory, nodes)
    caplog.clear()
    nodes.join("s", Refused("it has no cluster secret", reachable=True))
    for _ in range(3):
        await watch.round()
    assert haproxy.commands == []
    assert [record.getMessage() for record in caplog.records] == [
        "unknown: s at 10.0.0.3:52415 gets no requests: it has no cluster secret"
    ]


async def test_many_strangers_do_not_fill_the_log(
    inventory: Path, nodes: StandIns, haproxy: Haproxy, caplog: pytest.LogCaptureFixture
) -> None:
    watch = watch_of(inventory, nodes)
    for number in range(3 * module._MOST_UNKNOWN):
        nodes.join(f"s{number}", Refused("no", reachable=True))
    await watch.round()
    assert len(caplog.records) == module._MOST_UNKNOWN + 1  # and that there is no secret_file


async def test_what_haproxy_refuses_is_told_once_and_tried_again(
    inventory: Path, nodes: StandIns, haproxy: Haproxy, caplog: pytest.LogCaptureFixture
) -> None:
    watch = watch_of(inventory, nodes)
    nodes.join("c")
    haproxy.refusal = "add"
    await watch.round()
    await watch.round()
    assert [record.getMessage() for record in caplog.records].count("not add") == 1
    haproxy.refusal = ""
    await watch.round()
    assert haproxy.commands == ["add c"]


async def test_a_proxy_that_is_away_is_waited_for(
    inventory: Path, nodes: StandIns, haproxy: Haproxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    watch = watch_of(inventory, nodes)
    haproxy.is_there = False
    with pytest.raises(ProxyUnreachable):
        await watch.once()
    nodes.join("c")
    running = asyncio.create_task(watch.run())
    for _ in range(3):
        await asyncio.wait_for(haproxy.missed.get(), 20)
    haproxy.is_there = True
    await asyncio.wait_for(haproxy.obeyed.wait(), 20)
    assert haproxy.commands == ["add c"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert caplog.text.count("It is tried again") == 1
    assert "HAProxy answers" in caplog.text


async def test_once_does_all_that_can_be_done(inventory: Path, nodes: StandIns, haproxy: Haproxy) -> None:
    haproxy.servers["c"] = C
    haproxy.servers["d"] = dataclasses.replace(C, name="d", sessions=1)
    nodes.join("e")
    await watch_of(inventory, nodes, settle=0.02).once()
    assert set(haproxy.servers) == {"a", "d", "e"}
    assert haproxy.servers["d"].draining
