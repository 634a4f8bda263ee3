"""A node as a member of a cluster, by real mDNS on loopback where that is needed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import NoReturn

import httpx2
import pytest
from cluster_nodes import SECRET, member_node, stranger
from scripted_engine import FakeEngine, Until, request, service_for
from scripted_server import Running

from exo.cluster.membership import member as member_module
from exo.cluster.membership.announcement import NodeDescription
from exo.cluster.membership.challenge import CHALLENGE_PATH
from exo.cluster.membership.mdns import Announcer, multicast
from exo.cluster.membership.member import Member, MemberSettings
from exo.types import DiscoveryError, EngineError, ModelCard

LOOPBACK = ("127.0.0.1",)


def loopback() -> tuple[str, ...]:
    return LOOPBACK


def others(node: Running) -> list[tuple[str, str]]:
    """Names and states of those that a node sees."""
    return [(peer.node.name, peer.state) for peer in node.member.peers()]


@contextlib.asynccontextmanager
async def started(member: Member) -> AsyncIterator[Member]:
    member.start()
    try:
        yield member
    finally:
        await member.close()


def alone(settings: MemberSettings, engine: FakeEngine | None = None) -> Member:
    """A member whose node has no server."""
    return Member(service_for(engine or FakeEngine()), settings)


@pytest.mark.slow
async def test_nodes_with_the_secret_find_each_other_and_say_goodbye(until: Until) -> None:
    async with member_node("a", addresses=loopback) as a:
        async with member_node("b", addresses=loopback) as b:
            await until(lambda: others(a) == [("b", "active")] and others(b) == [("a", "active")])
            assert a.sample("exo_nodes_active") == 2
            async with httpx2.AsyncClient(base_url=a.url) as client:
                nodes = (await client.get("/v1/topology")).json()["nodes"]
            assert [(node["name"], node["state"], node["addresses"], node["port"]) for node in nodes] == [
                ("a", "active", ["127.0.0.1"], a.port),
                ("b", "active", ["127.0.0.1"], b.port),
            ]
        await until(lambda: others(a) == [])
        assert a.sample("exo_nodes_active") == 1


@pytest.mark.slow
async def test_goodbye_is_said_as_soon_as_a_node_takes_no_new_work(until: Until) -> None:
    async with member_node("a", addresses=loopback) as a, member_node("b", addresses=loopback) as b:
        b.engine.script = ["Hello", asyncio.Event()]
        await until(lambda: others(a) == [("b", "active")])
        answer = await b.service.chat(request())
        ending = asyncio.create_task(b.service.end(grace=60))
        await until(lambda: others(a) == [])
        assert not ending.done(), "the running answer has its grace"
        b.service.hurry()
        await ending
        await answer.aclose()


@pytest.mark.slow
async def test_who_is_only_announced_is_unknown(until: Until) -> None:
    """A stranger of its own, one that relays the question to a real node, and a node without the secret."""

    async def relay(body: bytes) -> bytes:
        async with httpx2.AsyncClient() as client:
            answer = await client.post(f"{a.url}{CHALLENGE_PATH}", content=body)
        return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(answer.content), answer.content)

    async with (
        member_node("a", addresses=loopback) as a,
        member_node("b", secret=None, addresses=loopback) as b,
        stranger(relay) as port,
        multicast(LOOPBACK) as zeroconf,
    ):
        await Announcer(zeroconf).announce(NodeDescription("evil", models=("one",)), LOOPBACK, port)
        await until(lambda: others(b) == [("a", "unknown"), ("evil", "unknown")])

        def reasons() -> list[str]:
            return [peer.reason for peer in a.member.peers()]

        relayed = f"its proof is for {a.url.removeprefix('http://')}, not for 127.0.0.1:{port}"
        await until(lambda: reasons() == ["it has no cluster secret", relayed])
        assert others(a) == [("b", "unknown"), ("evil", "unknown")]
        assert (a.sample("exo_nodes_active"), b.sample("exo_nodes_active")) == (1, 1)


@pytest.mark.slow
async def test_new_models_are_announced(until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_module, "_LOOK", 0.01)
    engine = FakeEngine()
    member = alone(MemberSettings("n", port=9, addresses=loopback), engine)
    async with started(member), started(alone(MemberSettings("m", port=8, addresses=loopback))) as seen:
        await until(lambda: [peer.node.models for peer in seen.peers()] == [("m",)])
        engine.cards = [ModelCard(id="m"), ModelCard(id="new")]
        await until(lambda: [peer.node.models for peer in seen.peers()] == [("m", "new")])


@pytest.mark.slow
async def test_another_node_of_the_same_name_is_told(until: Until, caplog: pytest.LogCaptureFixture) -> None:
    async with member_node("twin", addresses=loopback) as a, member_node("twin", addresses=loopback):
        await until(lambda: others(a) == [("twin", "active")])
        await until(lambda: caplog.text.count("another node calls itself twin too; --node-name") == 2)


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_module, "_RETRY", 0.0)


@pytest.mark.usefixtures("quick_retries")
async def test_a_network_without_mdns_is_told_once_and_tried_again(
    until: Until, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0

    def broken(interfaces: Sequence[str]) -> NoReturn:
        nonlocal tries
        tries += 1
        raise DiscoveryError("port 5353 is taken.")

    monkeypatch.setattr(member_module, "multicast", broken)
    async with member_node(addresses=loopback) as node:
        await until(lambda: tries > 3)
        async with httpx2.AsyncClient(base_url=node.url) as client:
            assert (await client.get("/ready")).status_code == 200
    assert caplog.text.count("port 5353 is taken.") == 1


@pytest.mark.usefixtures("quick_retries")
async def test_a_failure_that_nobody_has_foreseen_does_not_stop_the_node(
    until: Until, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0

    def addresses() -> tuple[str, ...]:
        nonlocal tries
        tries += 1
        raise ZeroDivisionError

    with caplog.at_level(logging.CRITICAL):
        async with started(alone(MemberSettings("n", addresses=addresses))):
            await until(lambda: tries > 3)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_retries")
async def test_a_node_is_announced_once_it_has_an_address_and_anew_when_that_changes(
    until: Until, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(member_module, "_LOOK", 0.01)
    now: tuple[str, ...] = ()
    with caplog.at_level(logging.INFO, logger="exo.cluster.membership.member"):
        async with started(alone(MemberSettings("n", port=9, addresses=lambda: now))):
            await until(lambda: "no address yet" in caplog.text)
            now = LOOPBACK
            await until(lambda: "announced by mDNS as n at 127.0.0.1" in caplog.text)
            now = ("127.0.0.1", "127.0.0.2")
            await until(lambda: "announced by mDNS as n at 127.0.0.1, 127.0.0.2" in caplog.text)
    assert caplog.text.count("no address yet") == 1


async def test_a_node_that_keeps_away_from_mdns_does_nothing() -> None:
    before = asyncio.all_tasks()
    async with started(alone(MemberSettings("n", SECRET))) as member:
        assert asyncio.all_tasks() == before
        assert member.addresses() == ()
        assert member.peers() == []


async def test_an_engine_that_cannot_tell_its_models_is_described_without() -> None:
    class Broken(FakeEngine):
        async def models(self) -> Sequence[ModelCard]:
            raise EngineError("the server is down")

    member = alone(MemberSettings("n"), Broken())
    assert (await member.describe()).models == ()


async def test_the_secret_is_not_shown() -> None:
    assert SECRET.decode() not in repr(MemberSettings("n", SECRET))
