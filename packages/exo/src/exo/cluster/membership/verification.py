"""Asking a node to prove that it knows the cluster's secret."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
from anyio import fail_after

from exo import __version__
from exo.cluster.exchange import exchange
from exo.cluster.membership.announcement import MAX_SLOTS, NodeDescription, is_node_name
from exo.cluster.membership.challenge import CHALLENGE_PATH, ChallengeBody, ProvenNode
from exo.cluster.membership.mdns import Sighting
from exo.cluster.membership.secret import is_proof, new_challenge, plain_address, proof
from exo.cluster.plain import plain
from exo.types import host_and_port

if TYPE_CHECKING:
    import httpx2

TIMEOUT = 3.0
"""Seconds for a question with its answer."""
_LONGEST_ANSWER = 256 * 1024


@dataclass(frozen=True)
class Verified:
    """A node that knows the secret, and that is at this address itself."""

    node: NodeDescription
    address: str
    port: int


@dataclass(frozen=True)
class Refused:
    """Why a node is not trusted. `reachable`: it answered, only not with the proof."""

    reason: str
    reachable: bool
    is_wrong_proof: bool = False


def make_client() -> httpx2.AsyncClient:
    """A client for `verify`: it goes to the very address that it is told, by no proxy."""
    import httpx2  # noqa: PLC0415 - only for a node that asks others

    return httpx2.AsyncClient(
        headers={"user-agent": f"exo/{__version__}", "accept-encoding": "identity"},
        trust_env=False,
        verify=False,  # nodes speak plain HTTP; certificates would only be read from the disk
        limits=httpx2.Limits(max_keepalive_connections=0),
    )


async def verify(
    address: str, port: int, secret: bytes, client: httpx2.AsyncClient, *, timeout: float = TIMEOUT
) -> Verified | Refused:
    """Ask the node at an IP address for its proof; never raises for what it answers. `client` is of `make_client`."""
    import httpx2  # noqa: PLC0415 - see above

    challenge = new_challenge()
    try:
        with fail_after(timeout):
            status, content = await _ask(address, port, challenge, client)
    except TimeoutError:
        return Refused(f"it did not answer within {timeout:g} seconds", reachable=False)
    except (httpx2.TransportError, httpx2.InvalidURL) as error:
        return Refused(f"it cannot be reached: {plain(str(error)) or type(error).__name__}", reachable=False)
    if status == HTTPStatus.NOT_FOUND:
        return Refused("it has no cluster secret", reachable=True)
    if status != HTTPStatus.OK:
        return Refused(f"it answered the challenge with status {status}", reachable=True)
    if content is None:
        return Refused(f"its answer to the challenge has more than {_LONGEST_ANSWER} bytes", reachable=True)
    return _judged(content, challenge, address, port, secret)


async def verify_sighting(
    sighting: Sighting,
    secret: bytes,
    client: httpx2.AsyncClient,
    *,
    own: Collection[tuple[str, int]] = (),
    timeout: float = TIMEOUT,
) -> Verified | Refused:
    """As `verify`, at all addresses of an announced node at once; the first that is proven counts.

    `own` are the addresses and ports of the node that asks, where it would meet itself: on many machines a bridge for
    containers has the same address. For the same reason the node has to have the name that was announced.
    """
    addresses = [address for address in sighting.addresses if (address, sighting.port) not in own]
    if not addresses:
        return Refused("it announces nothing but addresses of this node", reachable=False)
    asking = (verify(address, sighting.port, secret, client, timeout=timeout) for address in addresses)
    found = [_named(one, sighting.node.name) for one in await asyncio.gather(*asking)]
    for one in found:
        if isinstance(one, Verified):
            return one
    return next((one for one in found if isinstance(one, Refused) and one.reachable), found[0])


def _named(found: Verified | Refused, name: str) -> Verified | Refused:
    if isinstance(found, Verified) and found.node.name != name:
        return Refused(f"at {found.address} is {found.node.name}, not {name}", reachable=True)
    return found


async def _ask(address: str, port: int, challenge: str, client: httpx2.AsyncClient) -> tuple[int, bytes | None]:
    """Status and body of the answer; None in place of a body that is too long."""
    url = f"http://{host_and_port(address, port)}{CHALLENGE_PATH}"
    body = msgspec.json.encode(ChallengeBody(challenge))
    headers = {"content-type": "application/json"}
    return await exchange(client, "POST", url, headers=headers, body=body, longest=_LONGEST_ANSWER)


def _judged(content: bytes, challenge: str, address: str, port: int, secret: bytes) -> Verified | Refused:
    try:
        answer = msgspec.json.decode(content, type=ProvenNode)
        node = msgspec.convert(answer.node, NodeDescription)
        given = is_proof(answer.proof, proof(secret, challenge, address, port, answer.node))
    except (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError) as error:
        return Refused(f"its answer to the challenge cannot be read: {plain(str(error))}", reachable=True)
    if not given:
        if (plain_address(answer.address), answer.port) != (plain_address(address), port):
            said = plain(host_and_port(answer.address, answer.port))
            return Refused(f"its proof is for {said}, not for {host_and_port(address, port)}", reachable=True)
        return Refused(
            "its proof is wrong: it knows another cluster secret, or none", reachable=True, is_wrong_proof=True
        )
    if not is_node_name(node.name) or not 1 <= node.slots <= MAX_SLOTS:
        return Refused("it tells a name or a number of slots that no node may have", reachable=True)
    return Verified(node, plain_address(address), port)
