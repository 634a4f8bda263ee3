"""Announcing and seeing by real mDNS on loopback, where nobody else hears it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from scripted_engine import FakeEngine, Until, service_for
from zeroconf import ServiceInfo, const
from zeroconf._dns import DNSPointer
from zeroconf._protocol.outgoing import DNSOutgoing

from exo.cluster.membership import mdns
from exo.cluster.membership.announcement import NodeDescription
from exo.cluster.membership.mdns import Announcer, Browser, Sighting, browsing, instance_name, multicast, own_addresses
from exo.cluster.membership.member import Member, MemberSettings
from exo.types import DiscoveryError

LOOPBACK = ("127.0.0.1",)
NODE = NodeDescription("board.1", "0.1.0", "dummy", 2, ("a", "b"))


def own_type() -> str:
    """What conftest.py has put in the place of the real type."""
    return str(vars(mdns)["SERVICE_TYPE"])


@contextlib.asynccontextmanager
async def announcing() -> AsyncIterator[Announcer]:
    async with multicast(LOOPBACK) as zeroconf:
        yield Announcer(zeroconf)


@pytest.mark.slow
async def test_a_node_is_seen_changes_and_goes(until: Until) -> None:
    async with browsing(LOOPBACK) as browser, announcing() as announcer:
        await announcer.announce(NODE, LOOPBACK, 4711)
        await until(browser.changed.is_set)
        instance = instance_name("board.1", LOOPBACK, 4711)
        assert announcer.instance == instance
        assert browser.sightings == {instance: Sighting(instance, NODE, LOOPBACK, 4711)}
        other = NodeDescription("board.1", "0.1.0", "dummy", 2, ("c",))
        await announcer.update(other)
        await until(lambda: browser.sightings[instance].node == other)
        browser.changed.clear()
        await announcer.withdraw()
        await until(browser.changed.is_set)
        assert browser.sightings == {}
        assert announcer.instance == ""
        await announcer.announce(NODE, LOOPBACK, 4711)
        await until(lambda: instance in browser.sightings)


@pytest.mark.slow
async def test_goodbye_is_said_at_the_end_also_by_one_that_was_broken_off(until: Until) -> None:
    async with browsing(LOOPBACK) as browser:
        async with announcing() as announcer:
            await announcer.announce(NODE, LOOPBACK, 4711)
            await until(lambda: len(browser.sightings) == 1)
        await until(lambda: browser.sightings == {})
        async with announcing() as announcer:
            task = asyncio.create_task(announcer.announce(NODE, LOOPBACK, 4711))
            await until(lambda: announcer.instance != "")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await announcer.withdraw()
        assert browser.sightings == {}


@pytest.mark.slow
async def test_a_name_that_is_taken_does_not_stop_a_node(until: Until, caplog: pytest.LogCaptureFixture) -> None:
    async with browsing(LOOPBACK) as browser, announcing() as first, announcing() as second:
        await first.announce(NODE, LOOPBACK, 4711)
        with caplog.at_level(logging.WARNING, logger="exo"):
            await second.announce(NODE, LOOPBACK, 4711)
        await until(lambda: len(browser.sightings) == 2)
        assert second.instance == first.instance.replace("._exo-", "-2._exo-")
        assert {one.node for one in browser.sightings.values()} == {NODE}
    assert "somebody else announces" in caplog.text


def info(
    name: str, text: bytes | dict[str, Any] = b"", *, port: int = 9, addresses: tuple[str, ...] = LOOPBACK
) -> ServiceInfo:
    return ServiceInfo(
        own_type(),
        f"{name}.{own_type()}",
        port,
        properties=text,
        server=f"{name}.local.",
        parsed_addresses=list(addresses),
    )


@pytest.mark.slow
async def test_strangers_may_announce_what_they_like(until: Until, caplog: pytest.LogCaptureFixture) -> None:
    """The last one of them is in order: once it is seen, all others have been looked at."""
    infos = [
        info("garbage", b"\xff" + b"\x00\x80=" * 60),
        info("cut", b"\xffname=x"),
        info("empty"),
        info("escapes", {"name": b"\x1b[2J", "version": b"\x1b]0;x\x07", "slots": b"9" * 200, "models": b"\x80,a"}),
        info("Stra\N{LATIN SMALL LETTER SHARP S}e \N{SNOWMAN}"),
        info("port", port=0),
        info("nowhere", addresses=("0.0.0.0", "224.0.0.251", "fe80::1")),
        info("many", addresses=tuple(f"192.0.2.{number}" for number in range(1, 100))),
        info("good", {"name": "good", "slots": "3"}),
    ]
    async with browsing(LOOPBACK) as browser, multicast(LOOPBACK) as zeroconf:
        with caplog.at_level(logging.DEBUG):
            for one in infos:
                await zeroconf.async_register_service(one, cooperating_responders=True)
            await until(lambda: len(browser.sightings) >= 7)
        seen = {instance.partition(".")[0]: one for instance, one in browser.sightings.items()}
        assert set(seen) == {
            "garbage",
            "cut",
            "empty",
            "escapes",
            "Stra\N{LATIN SMALL LETTER SHARP S}e \N{SNOWMAN}",
            "many",
            "good",
        }
        assert seen["good"].node == NodeDescription("good", slots=3)
        assert seen["escapes"].node == NodeDescription("escapes")
        assert seen["garbage"].node == NodeDescription("garbage")
        assert len(seen["many"].addresses) == 8
    assert [record for record in caplog.records if record.name.startswith("exo") and record.exc_info] == []


@pytest.mark.slow
async def test_a_name_that_none_may_have_is_left_out(until: Until, caplog: pytest.LogCaptureFixture) -> None:
    out = DNSOutgoing(const._FLAGS_QR_RESPONSE | const._FLAGS_AA)
    name = f"a\x07b.{own_type()}"
    out.add_answer_at_time(DNSPointer(own_type(), const._TYPE_PTR, const._CLASS_IN, 120, name), 0)
    async with browsing(LOOPBACK) as browser, multicast(LOOPBACK) as zeroconf:
        with caplog.at_level(logging.DEBUG, logger="exo"):
            zeroconf.zeroconf.async_send(out)
            await until(lambda: "is left out" in caplog.text)
        await zeroconf.async_register_service(info("good"), cooperating_responders=True)
        await until(lambda: [one.node.name for one in browser.sightings.values()] == ["good"])
    assert "\x07" not in caplog.text


@pytest.mark.slow
async def test_strangers_cannot_fill_the_memory(
    until: Until, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mdns, "_MOST_SIGHTINGS", 2)
    async with browsing(LOOPBACK) as browser, multicast(LOOPBACK) as zeroconf:
        for number in range(4):
            await zeroconf.async_register_service(info(f"n{number}"), cooperating_responders=True)
        await until(lambda: "further ones are left out" in caplog.text and len(browser.sightings) == 2)
    assert caplog.text.count("left out") == 1


def pointers(*names: str, ttl: int = 4500) -> DNSOutgoing:
    """Announcements as a stranger can make them up, without a node behind them."""
    out = DNSOutgoing(const._FLAGS_QR_RESPONSE | const._FLAGS_AA)
    for name in names:
        pointer = DNSPointer(own_type(), const._TYPE_PTR, const._CLASS_IN, ttl, f"{name}.{own_type()}")
        out.add_answer_at_time(pointer, 0)
    return out


@pytest.mark.slow
async def test_a_node_that_a_flood_left_out_is_found_after_it(until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mdns, "_MOST_SIGHTINGS", 2)
    monkeypatch.setattr(mdns, "_PAUSES", (0,))
    monkeypatch.setattr(mdns, "_LOOKUP", 1000)
    async with multicast(LOOPBACK) as others, multicast(LOOPBACK) as zeroconf:
        browser = Browser(others, loopback=True)
        zeroconf.zeroconf.async_send(pointers("x", "y"))
        await until(lambda: len(browser._lookups) == 2)
        await zeroconf.async_register_service(info("real"), cooperating_responders=True)
        await until(lambda: browser._incomplete)
        await until(lambda: not browser._lookups)
        assert browser.sightings == {}
        monkeypatch.setattr(mdns, "_LOOK_AGAIN", 0.1)
        browser._looking_again.cancel()
        browser._looking_again = asyncio.create_task(browser._look_again_and_again())
        await until(lambda: [one.node.name for one in browser.sightings.values()] == ["real"])
        assert set(browser._pointers()) == set(browser.sightings)
        await browser.close()


@pytest.mark.slow
async def test_names_beyond_number_are_forgotten_and_nodes_are_not(
    until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mdns, "_MOST_SIGHTINGS", 2)
    monkeypatch.setattr(mdns, "_MOST_LEFT_OUT", 20)
    async with browsing(LOOPBACK) as browser, multicast(LOOPBACK) as zeroconf:
        await zeroconf.async_register_service(info("real"), cooperating_responders=True)
        await until(lambda: len(browser.sightings) == 1)
        first = browser._browser
        zeroconf.zeroconf.async_send(pointers(*(f"x{number}" for number in range(100))))
        await until(lambda: browser._browser is not first)
        await until(lambda: len(browser._pointers()) == 2)
        assert set(browser._pointers()) == browser.sightings.keys() | browser._lookups.keys()
        assert [one.node.name for one in browser.sightings.values()] == ["real"]


@pytest.mark.slow
async def test_a_node_comes_back_after_a_goodbye_that_another_said(
    until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mdns, "_LOOK_AGAIN", 0.1)
    async with browsing(LOOPBACK) as browser, multicast(LOOPBACK) as zeroconf:
        await zeroconf.async_register_service(info("real"), cooperating_responders=True)
        await until(lambda: len(browser.sightings) == 1)
        browser.changed.clear()
        zeroconf.zeroconf.async_send(pointers("real", ttl=0))
        await until(browser.changed.is_set)
        await until(lambda: len(browser.sightings) == 1)


@pytest.mark.slow
async def test_a_node_whose_record_is_lost_goes_unless_it_answers(
    until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with browsing(LOOPBACK) as browser, multicast(LOOPBACK) as zeroconf:
        gone = info("gone")
        for one in (gone, info("there")):
            await zeroconf.async_register_service(one, cooperating_responders=True)
        await until(lambda: len(browser.sightings) == 2)
        zeroconf.zeroconf.registry.async_remove(gone)  # without a goodbye
        browser._zeroconf.cache.async_remove_records(list(browser._pointers().values()))
        monkeypatch.setattr(mdns, "_LOOK_AGAIN", 2.0)
        browser._looking_again.cancel()
        browser._looking_again = asyncio.create_task(browser._look_again_and_again())
        await until(lambda: [one.node.name for one in browser.sightings.values()] == ["there"])
        assert [name.partition(".")[0] for name in browser._pointers()] == ["there"]


@pytest.mark.slow
async def test_an_address_of_loopback_counts_only_on_loopback(until: Until) -> None:
    """Else a stranger could have nodes ask themselves, or what else listens on their loopback."""
    async with multicast(LOOPBACK) as zeroconf, multicast(LOOPBACK) as others:
        browser = Browser(others)
        await zeroconf.async_register_service(info("inside"), cooperating_responders=True)
        await zeroconf.async_register_service(
            info("both", addresses=("127.0.0.1", "192.0.2.7")), cooperating_responders=True
        )
        await until(lambda: len(browser.sightings) == 1)
        (seen,) = browser.sightings.values()
        assert (seen.node.name, seen.addresses) == ("both", ("192.0.2.7",))
        await browser.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # zeroconf leaves a socket to Python
async def test_an_interface_that_is_not_there_is_told() -> None:
    with pytest.raises(DiscoveryError, match=r"mDNS cannot be used on 192\.0\.2\.200"):
        async with multicast(["192.0.2.200"]):
            pass


async def test_a_machine_without_a_network_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mdns, "own_addresses", lambda listening: ())
    with pytest.raises(DiscoveryError, match="needs a network interface"):
        async with multicast():
            pass


class Adapter:
    def __init__(self, *addresses: str | tuple[str, int, int]) -> None:
        self.ips = [type("IP", (), {"ip": address}) for address in addresses]


@pytest.mark.parametrize(
    ("listening", "expected"),
    [
        ("0.0.0.0", ("169.254.3.4", "192.0.2.7", "198.51.100.1")),
        ("::", ("169.254.3.4", "192.0.2.7", "198.51.100.1", "2001:db8::7")),
        ("192.0.2.7", ("192.0.2.7",)),
        ("2001:DB8::7", ("2001:db8::7",)),
        ("::ffff:192.0.2.7", ("192.0.2.7",)),
        ("127.0.0.1", ()),
        ("127.0.0.9", ()),
        ("::1", ()),
        ("fe80::1", ()),
    ],
)
def test_the_addresses_of_a_node(monkeypatch: pytest.MonkeyPatch, listening: str, expected: tuple[str, ...]) -> None:
    import ifaddr

    lo = Adapter("127.0.0.1", ("::1", 0, 0))
    lan = Adapter("198.51.100.1", "192.0.2.7", "169.254.3.4", ("2001:db8::7", 0, 0), ("fe80::1", 0, 2))
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: [lo, lan])
    assert own_addresses(listening) == expected


async def test_a_service_that_may_not_list_interfaces_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one under systemd with RestrictAddressFamilies may be."""
    import ifaddr

    def refuse() -> list[Adapter]:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(ifaddr, "get_adapters", refuse)
    with pytest.raises(DiscoveryError, match=r"cannot be listed: .*Address family not supported"):
        own_addresses("0.0.0.0")
    with pytest.raises(DiscoveryError, match="cannot be listed"):
        async with multicast():
            pass
    member = Member(service_for(FakeEngine()), MemberSettings(addresses=lambda: own_addresses("0.0.0.0")))
    assert member.addresses() == ()


def test_the_name_of_an_announcement_fits_and_depends_on_the_place() -> None:
    names = {
        instance_name("n", ["192.0.2.7"], 1),
        instance_name("n", ["192.0.2.7"], 2),
        instance_name("n", ["192.0.2.8"], 1),
        instance_name("n", ["192.0.2.7", "192.0.2.8"], 1),
        instance_name("m", ["192.0.2.7"], 1),
    }
    assert len(names) == 5
    assert instance_name("n", ["a", "b"], 1) == instance_name("n", ["b", "a"], 1)
    label = instance_name("x.y" * 21, ["192.0.2.7"], 65535).removesuffix(f".{own_type()}")
    assert "." not in label
    assert len(f"{label}-12345") <= 63


def test_importing_does_not_load_zeroconf() -> None:
    program = "import sys, exo.cluster.membership.member, exo.cli.serve; print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", program], text=True).split())
    assert "exo.cluster.membership.mdns" in loaded
    assert loaded & {"zeroconf", "ifaddr", "httpx2"} == set()
