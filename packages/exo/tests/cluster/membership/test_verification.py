"""Asking a node for its proof: real ones, and strangers of many kinds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from cluster_nodes import SECRET, Answer, answered, member_node, stranger

from exo import __version__
from exo.cluster.membership.announcement import NodeDescription
from exo.cluster.membership.challenge import CHALLENGE_PATH
from exo.cluster.membership.mdns import Sighting
from exo.cluster.membership.secret import proof
from exo.cluster.membership.verification import Refused, Verified, make_client, verify, verify_sighting

NODE = NodeDescription("real", __version__, "scripted", 2, ("one", "two/b:1"))
LOOPBACK = "127.0.0.1"


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with make_client() as made:
        yield made


def refusal(found: Verified | Refused) -> str:
    assert isinstance(found, Refused)
    assert found.reason.isprintable()
    return found.reason


def sighting(port: int, *addresses: str, name: str = "real") -> Sighting:
    return Sighting("instance", NodeDescription(name), addresses or (LOOPBACK,), port)


@pytest.mark.parametrize(
    ("listening", "asked"),
    [
        (LOOPBACK, LOOPBACK),
        ("0.0.0.0", LOOPBACK),
        ("0.0.0.0", "127.0.0.2"),
        ("::1", "::1"),
        ("::", "::1"),
        ("::", LOOPBACK),
    ],
)
async def test_a_node_proves_itself_at_the_address_where_it_is_asked(
    client: httpx2.AsyncClient, listening: str, asked: str
) -> None:
    async with member_node(host=listening) as node:
        assert await verify(asked, node.port, SECRET, client) == Verified(NODE, asked, node.port)


async def test_another_secret_is_refused(client: httpx2.AsyncClient) -> None:
    async with member_node(secret=SECRET + b"x") as node:
        found = await verify(LOOPBACK, node.port, SECRET, client)
    assert found == Refused(
        "its proof is wrong: it knows another cluster secret, or none", reachable=True, is_wrong_proof=True
    )


async def test_a_node_without_a_secret_is_refused(client: httpx2.AsyncClient) -> None:
    async with member_node(secret=None) as node:
        found = await verify(LOOPBACK, node.port, SECRET, client)
    assert found == Refused("it has no cluster secret", reachable=True)


async def test_nobody_there(client: httpx2.AsyncClient) -> None:
    async with stranger(lambda body: asyncio.sleep(0, b"")) as port:
        pass
    found = await verify(LOOPBACK, port, SECRET, client)
    assert isinstance(found, Refused)
    assert not found.reachable


def relay(target: int, changed: dict[str, Any] | None = None) -> Answer:
    """Asks the real node, and hands on its answer, as it is or with other fields in it."""

    async def answer(body: bytes) -> bytes:
        async with make_client() as own:
            response = await own.post(f"http://{LOOPBACK}:{target}{CHALLENGE_PATH}", content=body)
        return answered(json.dumps(response.json() | (changed or {})).encode())

    return answer


async def test_a_stranger_that_relays_the_question_is_refused(client: httpx2.AsyncClient) -> None:
    async with member_node() as node, stranger(relay(node.port)) as port:
        found = await verify(LOOPBACK, port, SECRET, client)
        assert found == Refused(f"its proof is for {LOOPBACK}:{node.port}, not for {LOOPBACK}:{port}", reachable=True)
        assert isinstance(await verify(LOOPBACK, node.port, SECRET, client), Verified), "the real one is not harmed"


async def test_a_relay_that_puts_its_own_address_into_the_answer_is_refused(client: httpx2.AsyncClient) -> None:
    changed: dict[str, Any] = {}
    async with member_node() as node, stranger(relay(node.port, changed)) as port:
        changed |= {"port": port, "address": LOOPBACK}
        assert "proof is wrong" in refusal(await verify(LOOPBACK, port, SECRET, client))


async def test_a_relay_at_another_address_with_the_same_port_is_refused(client: httpx2.AsyncClient) -> None:
    changed = {"address": "127.0.0.2"}
    async with member_node() as node, stranger(relay(node.port, changed), "127.0.0.2", node.port):
        assert "proof is wrong" in refusal(await verify("127.0.0.2", node.port, SECRET, client))
        changed.clear()
        assert "its proof is for 127.0.0.1:" in refusal(await verify("127.0.0.2", node.port, SECRET, client))


async def test_a_relay_that_changes_what_the_node_tells_is_refused(client: httpx2.AsyncClient) -> None:
    """Here the relay is even at the address that the real node proves."""
    changed: dict[str, Any] = {}
    told: dict[str, Any] = {"name": "real", "models": ["one"]}

    async def answer(body: bytes) -> bytes:
        challenge = json.loads(body)["challenge"]
        fields = {"address": LOOPBACK, "port": port, "proof": proof(SECRET, challenge, LOOPBACK, port, told)}
        return answered(json.dumps({"node": told | changed, **fields}).encode())

    async with stranger(answer) as port:
        assert isinstance(await verify(LOOPBACK, port, SECRET, client), Verified)
        for other in ({"models": ["two"]}, {"slots": 9}, {"extra": 1}):
            changed = other
            assert "proof is wrong" in refusal(await verify(LOOPBACK, port, SECRET, client))


async def test_an_answer_that_was_overheard_is_refused(client: httpx2.AsyncClient) -> None:
    told = {"name": "real"}

    async def answer(body: bytes) -> bytes:
        fields = {"address": LOOPBACK, "port": port, "proof": proof(SECRET, "0" * 64, LOOPBACK, port, told)}
        return answered(json.dumps({"node": told, **fields}).encode())

    async with stranger(answer) as port:
        assert "proof is wrong" in refusal(await verify(LOOPBACK, port, SECRET, client))


@pytest.mark.parametrize(
    "told", [{"name": "a b"}, {"name": ""}, {"name": "n", "slots": 0}, {"name": "n", "slots": 1 << 60}]
)
async def test_a_member_that_tells_what_no_node_may_is_refused(
    client: httpx2.AsyncClient, told: dict[str, Any]
) -> None:
    async def answer(body: bytes) -> bytes:
        challenge = json.loads(body)["challenge"]
        fields = {"address": LOOPBACK, "port": port, "proof": proof(SECRET, challenge, LOOPBACK, port, told)}
        return answered(json.dumps({"node": told, **fields}).encode())

    async with stranger(answer) as port:
        assert "that no node may have" in refusal(await verify(LOOPBACK, port, SECRET, client))


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"", "cannot be reached"),
        (b"220 mail.example ESMTP\r\n", "cannot be reached"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", "cannot be reached"),
        (answered(b"", b"302 Found", b"location: http://127.0.0.1:1/"), "with status 302"),
        (answered(b"{}", b"401 Unauthorized"), "with status 401"),
        (answered(b"", b"500 \x1b[2J\x1b[31m"), "with status 500"),
        (answered(b"<html>"), "cannot be read"),
        (answered(b"{}"), "cannot be read"),
        (answered(b"[" * 100_000), "cannot be read"),
        (answered(b"\xff" * 99), "cannot be read"),
        (answered(b'{"node":{"name":"\\ud800"},"address":"","port":1,"proof":""}'), "cannot be read"),
        (answered(b'{"node":{"name":7},"address":"","port":1,"proof":""}'), "cannot be read"),
        (answered(b'{"node":{"name":"n","\x1b[2J":1},"address":"","port":1,"proof":""}'), "cannot be read"),
        (answered(b'{"node":{"name":"n"},"address":"\\u001b[2J","port":1,"proof":""}'), "not for 127.0.0.1"),
        (answered(b'{"node":{"name":"n"},"address":"%s","port":1,"proof":""}' % (b"x" * 9999)), "not for 127.0.0.1"),
        (answered(b" " * 300_000), "more than 262144 bytes"),
        (answered(b'{"node":{"name":"n","slots":1%s}}' % (b"0" * 5000)), "cannot be read"),
    ],
)
async def test_whatever_a_stranger_answers_is_a_reason(client: httpx2.AsyncClient, sent: bytes, reason: str) -> None:
    async def answer(body: bytes) -> bytes:
        return sent

    async with stranger(answer) as port:
        found = refusal(await verify(LOOPBACK, port, SECRET, client))
    assert reason in found
    assert len(found) < 500


async def test_a_compressed_answer_is_not_unpacked(client: httpx2.AsyncClient) -> None:
    import gzip

    async def answer(body: bytes) -> bytes:
        return answered(gzip.compress(b" " * (1 << 22)), b"200 OK", b"content-encoding: gzip")

    async with stranger(answer) as port:
        assert "cannot be read" in refusal(await verify(LOOPBACK, port, SECRET, client))


async def test_a_stranger_that_never_answers_has_its_time(client: httpx2.AsyncClient) -> None:
    async def answer(body: bytes) -> bytes:
        await asyncio.Event().wait()
        return b""

    async with stranger(answer) as port:
        found = await verify(LOOPBACK, port, SECRET, client, timeout=0.05)
    assert found == Refused("it did not answer within 0.05 seconds", reachable=False)


async def test_of_several_addresses_the_one_that_is_proven_counts(client: httpx2.AsyncClient) -> None:
    async with member_node(host="127.0.0.2") as node:
        found = await verify_sighting(sighting(node.port, LOOPBACK, "127.0.0.2"), SECRET, client)
        assert found == Verified(NODE, "127.0.0.2", node.port)
        refused = await verify_sighting(sighting(node.port), SECRET, client)
    assert isinstance(refused, Refused)
    assert not refused.reachable


async def test_a_node_is_not_taken_for_one_of_another_name(client: httpx2.AsyncClient) -> None:
    async with member_node() as node:
        found = await verify_sighting(sighting(node.port, name="other"), SECRET, client)
    assert found == Refused("at 127.0.0.1 is real, not other", reachable=True)


async def test_a_node_does_not_ask_itself(client: httpx2.AsyncClient) -> None:
    async with member_node() as node:
        found = await verify_sighting(sighting(node.port), SECRET, client, own=[(LOOPBACK, node.port)])
        assert "addresses of this node" in refusal(found)
        other = await verify_sighting(sighting(node.port), SECRET, client, own=[(LOOPBACK, node.port + 1)])
    assert isinstance(other, Verified)


async def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with make_client() as client, member_node() as node:
        assert isinstance(await verify(LOOPBACK, node.port, SECRET, client), Verified)
