"""The paths of a node among others: drain, challenge, topology."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar

import httpx2
import pytest
from api_keys import bearer, ring_of
from cluster_nodes import SECRET, member_node
from scripted_server import CHAT, ScriptedEngine, running, until

from exo import __version__
from exo.api import HttpSettings
from exo.cluster.membership.announcement import NodeDescription
from exo.cluster.membership.challenge import CHALLENGE_PATH
from exo.cluster.membership.mdns import Sighting
from exo.cluster.membership.secret import new_challenge, proof
from exo.inference import Capability
from exo.inference.caller import Caller
from exo.topology import NodeCapabilities

KEYS = HttpSettings(port=0, keys=ring_of(Caller("user", admin=False), Caller("boss")))
STREAM = CHAT | {"stream": True}


async def test_a_node_drains_and_takes_requests_again() -> None:
    go_on = asyncio.Event()
    engine = ScriptedEngine(["a", go_on, "b"], slots=1)
    async with running(engine) as node, httpx2.AsyncClient(base_url=node.url) as client:
        first = asyncio.create_task(client.post("/v1/chat/completions", json=STREAM))
        second = asyncio.create_task(client.post("/v1/chat/completions", json=STREAM))
        await until(lambda: node.sample("exo_requests_queued") == 1)
        answer = await client.post("/v1/drain", json={"drain": True})
        ready = await client.get("/ready")
        refused = await client.post("/v1/chat/completions", json=CHAT)
        go_on.set()
        whole = [await first, await second]
        drained = (await client.get("/ready")).json()
        again = await client.post("/v1/drain", json={"drain": False})
        served = await client.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 200
    assert (ready.status_code, ready.json()) == (503, answer.json())
    told = ready.json()
    assert [told[name] for name in ("ready", "draining", "reason", "running", "queued")] == [
        False,
        True,
        "draining",
        1,
        1,
    ]
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    assert int(refused.headers["retry-after"]) >= 1
    assert [one.status_code for one in whole] == [200, 200]
    assert all("[DONE]" in one.text for one in whole)
    assert (drained["running"], drained["queued"], drained["ready"]) == (0, 0, False)
    assert (again.json()["ready"], again.json()["draining"]) == (True, False)
    assert served.status_code == 200


class AbleEngine(ScriptedEngine):
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "completion", "embeddings"})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", CHAT),
        ("/v1/messages", CHAT | {"max_tokens": 5}),
        ("/v1/messages/count_tokens", CHAT),
        ("/v1/responses", {"input": "x"}),
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/embeddings", {"input": "x"}),
    ],
)
async def test_every_dialect_refuses_in_its_own_shape_while_the_node_drains(path: str, body: dict[str, Any]) -> None:
    async with running(AbleEngine()) as node, httpx2.AsyncClient(base_url=node.url) as client:
        node.service.draining = True
        response = await client.post(path, json={"model": "one", **body})
    assert response.status_code == 503, response.text
    assert '"code":"draining"' in response.text
    assert "retry-after" in response.headers


@pytest.mark.parametrize("body", [b"", b"{}", b'{"drain":1}', b'{"drain":"yes"}', b"[true]", b"{"])
async def test_a_drain_that_makes_no_sense_changes_nothing(body: bytes) -> None:
    async with running() as node, httpx2.AsyncClient(base_url=node.url) as client:
        response = await client.post("/v1/drain", content=body)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_request")
        assert (await client.get("/ready")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 401), (bearer("nobody"), 401), (bearer("user"), 403), (bearer("boss"), 200)]
)
async def test_only_an_admin_has_a_node_drain(headers: Mapping[str, str], status: int) -> None:
    async with running(settings=KEYS) as node, httpx2.AsyncClient(base_url=node.url) as client:
        response = await client.post("/v1/drain", json={"drain": True}, headers=headers)
        assert response.status_code == status
        assert node.service.draining is (status == 200)


async def test_a_page_of_another_site_does_not_have_a_node_drain() -> None:
    async with running() as node, httpx2.AsyncClient(base_url=node.url) as client:
        response = await client.post("/v1/drain", json={"drain": True}, headers={"origin": "http://evil.example"})
        assert response.status_code == 403
        assert not node.service.draining


async def test_while_it_ends_a_node_drains_in_ready() -> None:
    async with running() as node, httpx2.AsyncClient(base_url=node.url) as client:
        await node.service.end(0)
        told = (await client.get("/ready")).json()
    assert (told["ready"], told["draining"], told["reason"]) == (False, True, "shutting down")


async def test_a_challenge_is_answered_with_a_proof() -> None:
    challenge = new_challenge()
    async with member_node("real") as node, httpx2.AsyncClient(base_url=node.url) as client:
        answer = (await client.post(CHALLENGE_PATH, json={"challenge": challenge})).json()
        ready = (await client.get("/ready")).json()
    assert answer["node"] == {
        "name": "real",
        "version": __version__,
        "engine": "scripted",
        "slots": 2,
        "models": ["one", "two/b:1"],
    }
    assert (answer["address"], answer["port"]) == ("127.0.0.1", node.port)
    assert answer["proof"] == proof(SECRET, challenge, "127.0.0.1", node.port, answer["node"])
    assert (ready["name"], ready["version"]) == ("real", __version__)


async def test_a_challenge_needs_no_key_but_a_secret() -> None:
    async with running(settings=KEYS) as node, httpx2.AsyncClient(base_url=node.url) as client:
        response = await client.post(CHALLENGE_PATH, json={"challenge": new_challenge()})
        below = await client.post(f"{CHALLENGE_PATH}/x", json={})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
    assert "--cluster-secret-file" in response.text
    assert below.status_code == 401


@pytest.mark.parametrize("challenge", ["", "0" * 63, "0" * 65, "G" * 64, 7, None])
async def test_what_is_no_challenge_is_not_signed(challenge: Any) -> None:
    async with member_node() as node, httpx2.AsyncClient(base_url=node.url) as client:
        response = await client.post(CHALLENGE_PATH, json={"challenge": challenge})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "challenge"


async def test_a_challenge_is_short_and_no_more_is_read() -> None:
    """It needs no key: whoever likes could fill the memory."""
    fitting = json.dumps({"challenge": new_challenge()}).ljust(1024)

    async def pieces() -> AsyncIterator[bytes]:
        yield fitting.encode()
        yield b" "

    async with member_node() as node, httpx2.AsyncClient(base_url=node.url) as client:
        fits = await client.post(CHALLENGE_PATH, content=fitting)
        too_large = [await client.post(CHALLENGE_PATH, content=content) for content in (f"{fitting} ", pieces())]
    assert fits.status_code == 200
    for response in too_large:
        assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")
        assert response.json()["error"]["message"].endswith("the limit of 1024 bytes. Send less.")


async def test_a_node_that_ends_proves_nothing() -> None:
    async with member_node() as node, httpx2.AsyncClient(base_url=node.url) as client:
        node.service.leaving.set()
        response = await client.post(CHALLENGE_PATH, json={"challenge": new_challenge()})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "shutting_down")


async def test_topology_has_this_node_first_and_then_those_in_sight() -> None:
    async with running() as node, httpx2.AsyncClient(base_url=node.url) as client:
        peer = Sighting("i", NodeDescription("a-peer", "9", "rkllm", 3, ("m",)), ("192.0.2.7", "192.0.2.8"), 8080)
        node.member._peers.see({"i": peer}, ())
        this, other = (await client.get("/v1/topology")).json()["nodes"]
    assert set(this["capabilities"]) == set(NodeCapabilities.__struct_fields__)
    assert (this["state"], this["reason"], this["port"], this["addresses"]) == ("active", "", node.port, [])
    assert other == {
        "name": "a-peer",
        "state": "unknown",
        "reason": "this node has no cluster secret to ask it with",
        "version": "9",
        "engine": "rkllm",
        "slots": 3,
        "models": ["m"],
        "addresses": ["192.0.2.7", "192.0.2.8"],
        "port": 8080,
        "capabilities": None,
    }
