"""What becomes of the nodes in sight."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cluster_nodes import SECRET, answered, member_node, stranger
from scripted_engine import Until

from exo.cluster.membership import proofs as proofs_module
from exo.cluster.membership.announcement import NodeDescription
from exo.cluster.membership.mdns import Sighting
from exo.cluster.membership.peers import Peer, Peers
from exo.cluster.membership.verification import Refused, Verified, verify

LOOPBACK = "127.0.0.1"
CLAIMED = ("claimed",)


def sighting(port: int, *, name: str = "real", models: tuple[str, ...] = CLAIMED) -> Sighting:
    return Sighting("instance", NodeDescription(name, models=models), (LOOPBACK,), port)


class Watched:
    """Peers, and how many were active whenever they told it."""

    def __init__(self, secret: bytes | None = SECRET) -> None:
        self.active: list[int] = []
        self.peers = Peers(secret, self.active.append)

    def see(self, *sightings: Sighting) -> None:
        self.peers.see({one.instance: one for one in sightings}, ())

    @property
    def only(self) -> Peer:
        (found,) = self.peers.listed()
        return found


@contextlib.asynccontextmanager
async def watched(secret: bytes | None = SECRET) -> AsyncIterator[Watched]:
    made = Watched(secret)
    try:
        yield made
    finally:
        await made.peers.close()
    assert made.peers.listed() == []
    assert made.active[-1] == 0


async def test_a_node_that_proves_itself_is_active_and_tells_all_of_itself(until: Until) -> None:
    async with member_node() as node, watched() as seen:
        seen.see(sighting(node.port))
        assert (seen.only.state, seen.only.reason) == ("unknown", "it has not answered yet")
        await until(lambda: seen.active[-1] == 1)
        assert seen.only.state == "active"
        assert seen.only.reason == ""
        assert seen.only.node.models == ("one", "two/b:1"), "what it has proven, not what was announced"


async def test_without_a_secret_nobody_is_asked(until: Until) -> None:
    asked = asyncio.Event()

    async def answer(body: bytes) -> bytes:
        asked.set()
        return answered(b"{}")

    async with stranger(answer) as port, watched(secret=None) as seen:
        seen.see(sighting(port))
        assert (seen.only.state, seen.only.node.models) == ("unknown", CLAIMED)
        assert "no cluster secret" in seen.only.reason
        assert [task for task in asyncio.all_tasks() if task.get_name().startswith("proof ")] == []
    assert not asked.is_set()


async def test_a_stranger_stays_unknown(until: Until) -> None:
    async def answer(body: bytes) -> bytes:
        return answered(b'{"node":{"name":"real"},"address":"127.0.0.1","port":%d,"proof":"%s"}' % (port, b"0" * 64))

    async with stranger(answer) as port, watched() as seen:
        seen.see(sighting(port))
        await until(lambda: "proof is wrong" in seen.only.reason)
        assert seen.only.state == "unknown"
        assert set(seen.active) == {0}


async def test_a_node_that_ends_becomes_unreachable_and_comes_back(
    until: Until, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(proofs_module, "_AGAIN", 0.01)
    async with watched() as seen:
        with caplog.at_level(logging.INFO, logger="exo.cluster.membership.peers"):
            async with member_node() as node:
                seen.see(sighting(node.port))
                await until(lambda: seen.active[-1] == 1)
            await until(lambda: seen.active[-1] == 0)
            assert seen.only.state == "unreachable"
            assert "cannot be reached" in seen.only.reason
    told = [record.getMessage() for record in caplog.records]
    assert [text.partition(":")[0] for text in told] == [
        "the node real at 127.0.0.1 is active",
        "the node real at 127.0.0.1 is active no more",
    ], "told once each, not with every question"


async def test_a_node_that_goes_is_forgotten(until: Until, caplog: pytest.LogCaptureFixture) -> None:
    async with member_node() as node, watched() as seen:
        seen.see(sighting(node.port))
        await until(lambda: seen.active[-1] == 1)
        node.service.leaving.set()
        with caplog.at_level(logging.INFO, logger="exo.cluster.membership.peers"):
            seen.see()
            await until(lambda: seen.peers.listed() == [])
        assert seen.active[-1] == 0
    assert [record.getMessage() for record in caplog.records] == ["the node real at 127.0.0.1 has gone"]


async def test_a_forged_goodbye_takes_no_node_that_proves_itself(until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs_module, "_AGAIN", 0.01)
    asked = 0

    async def noted(*args: Any) -> Verified | Refused:
        nonlocal asked
        answer = await verify(*args)
        asked += 1
        return answer

    async with member_node() as node, watched() as seen:
        seen.see(sighting(node.port))
        await until(lambda: seen.active[-1] == 1)
        monkeypatch.setattr(proofs_module, "verify", noted)
        seen.see()
        await until(lambda: asked > 2)
        assert (seen.only.state, seen.active[-1]) == ("active", 1)


async def test_the_first_wrong_proof_is_told_and_only_that(until: Until, caplog: pytest.LogCaptureFixture) -> None:
    async with member_node(secret=b"another secret" * 3) as node, watched() as seen:
        seen.see(*(Sighting(name, NodeDescription("real"), (LOOPBACK,), node.port) for name in "ab"))
        await until(lambda: all("proof is wrong" in peer.reason for peer in seen.peers.listed()))
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1
    assert f"the node real at {LOOPBACK}:{node.port} knows another cluster secret, or none" in told[0]


async def test_a_node_keeps_its_state_while_it_announces_other_models(until: Until) -> None:
    async with member_node() as node, watched() as seen:
        seen.see(sighting(node.port))
        await until(lambda: seen.active[-1] == 1)
        seen.see(sighting(node.port, models=("new",)))
        assert seen.only.state == "active"


async def test_a_stranger_under_the_name_of_an_announcement_does_not_displace_the_node(
    until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proofs_module, "_AGAIN", 0.01)
    asked: list[int] = []

    async def noted(address: str, port: int, *args: Any) -> Verified | Refused:
        answer = await verify(address, port, *args)
        asked.append(port)
        return answer

    async with member_node() as node, stranger(lambda body: asyncio.sleep(9, b"")) as port, watched() as seen:
        seen.see(sighting(node.port))
        await until(lambda: seen.active[-1] == 1)
        monkeypatch.setattr(proofs_module, "verify", noted)
        seen.see(sighting(port, models=("forged",)))
        await until(lambda: len(asked) > 2)
        assert set(asked) == {node.port}
        assert (seen.only.state, seen.only.port, seen.only.node.models) == ("active", node.port, ("one", "two/b:1"))
        assert seen.active[-1] == 1


async def test_strangers_that_never_answer_do_not_take_all_connections(until: Until) -> None:
    release, asked = asyncio.Event(), 0

    async def answer(body: bytes) -> bytes:
        nonlocal asked
        asked += 1
        await release.wait()
        return answered(b"{}")

    async with stranger(answer) as port, watched() as seen:
        strangers = {str(one): Sighting(str(one), NodeDescription("x"), (LOOPBACK,), port) for one in range(40)}
        seen.peers.see(strangers, ())
        await until(lambda: asked == proofs_module._AT_ONCE)
        for _ in range(20):
            await asyncio.sleep(0)
        assert asked == proofs_module._AT_ONCE
        release.set()
        await until(lambda: asked == len(strangers))


async def test_peers_are_listed_by_name_and_address() -> None:
    async with watched(secret=None) as seen:
        places = [("b", 1), ("a", 2), ("a", 1)]
        seen.see(*(Sighting(f"{name}{port}", NodeDescription(name), (LOOPBACK,), port) for name, port in places))
        assert [(peer.node.name, peer.port) for peer in seen.peers.listed()] == [("a", 1), ("a", 2), ("b", 1)]
