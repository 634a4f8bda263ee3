"""The other nodes in sight, and what came of asking them for their proof."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from exo.cluster.membership.announcement import NodeDescription
from exo.cluster.membership.mdns import Sighting
from exo.cluster.membership.verification import Refused, Verified, make_client, verify_sighting

if TYPE_CHECKING:
    import httpx2

State = Literal["active", "unreachable", "unknown"]

_AGAIN = 30.0
"""Seconds between two questions to the same node."""
_SOON = 2.0
"""The first pause after a node that has not proven itself; each further one is twice as long."""
_AT_ONCE = 16
"""Nodes that are asked at the same time, so that many strangers do not take all connections."""

logger = logging.getLogger(__name__)


class Peer(msgspec.Struct, frozen=True):
    """A node in sight: `active` has proven that it knows the secret, and answers; `unknown` has not.

    `reason` says why it is not active; what is told of an `unknown` one is its own word.
    """

    node: NodeDescription
    addresses: tuple[str, ...]
    port: int
    state: State
    reason: str = ""


@dataclass
class _Known:
    sighting: Sighting
    found: Verified | Refused | None = None
    asking: asyncio.Task[None] | None = None


class Peers:
    """Asks each node in sight soon after it appears, and then again and again. One owner: the event loop.

    Blocks: nothing. Times out: a question, see membership.verification. Can race: a node that goes while it is asked,
    whose answer is then dropped. `on_change` is called with the number of active ones. Without a secret it asks nobody.
    """

    def __init__(self, secret: bytes | None, on_change: Callable[[int], None]) -> None:
        self._secret = secret
        self._on_change = on_change
        self._known: dict[str, _Known] = {}
        self._own: frozenset[tuple[str, int]] = frozenset()
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._client: httpx2.AsyncClient | None = None

    def see(self, sightings: Mapping[str, Sighting], own: Collection[tuple[str, int]]) -> None:
        """These are in sight now. `own` are the addresses and ports of this node."""
        self._own = frozenset(own)
        for instance in [instance for instance in self._known if instance not in sightings]:
            self._forget(instance)
        for instance, sighting in sightings.items():
            known = self._known.get(instance)
            if known is None or known.sighting != sighting:
                self._note(instance, sighting)
        self._tell()

    def listed(self) -> list[Peer]:
        """By name and address."""
        peers = [self._peer(known) for known in self._known.values()]
        return sorted(peers, key=lambda peer: (peer.node.name, peer.addresses, peer.port))

    async def close(self) -> None:
        """Forget all of them."""
        tasks = [known.asking for known in self._known.values() if known.asking is not None]
        self.see({}, ())
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    def _note(self, instance: str, sighting: Sighting) -> None:
        """Ask it now; at the same place it keeps its state until it has answered."""
        before = self._known.get(instance)
        known = self._known[instance] = _Known(sighting)
        if before is not None:
            if before.asking is not None:
                before.asking.cancel()
            if (before.sighting.addresses, before.sighting.port) == (sighting.addresses, sighting.port):
                known.found = before.found
        if self._secret is not None:
            known.asking = asyncio.create_task(self._ask_again_and_again(known, self._secret), name=f"peer {instance}")

    def _forget(self, instance: str) -> None:
        known = self._known.pop(instance)
        if known.asking is not None:
            known.asking.cancel()
        if isinstance(known.found, Verified):
            logger.info("the node %s at %s has gone", known.found.node.name, known.found.address)

    async def _ask_again_and_again(self, known: _Known, secret: bytes) -> None:
        pause = _SOON
        while True:
            async with self._places:
                if self._client is None:
                    self._client = make_client()
                found = await verify_sighting(known.sighting, secret, self._client, own=self._own)
            _log(known, found)
            known.found = found
            self._tell()
            pause = _AGAIN if isinstance(found, Verified) else min(_AGAIN, 2 * pause)
            await asyncio.sleep(pause)

    def _tell(self) -> None:
        self._on_change(sum(isinstance(known.found, Verified) for known in self._known.values()))

    def _peer(self, known: _Known) -> Peer:
        sighting, found = known.sighting, known.found
        if isinstance(found, Verified):
            return Peer(found.node, (found.address,), found.port, "active")
        state: State = "unknown"
        if self._secret is None:
            reason = "this node has no cluster secret to ask it with"
        elif found is None:
            reason = "it has not answered yet"
        else:
            reason = found.reason
            state = "unknown" if found.reachable else "unreachable"
        return Peer(sighting.node, sighting.addresses, sighting.port, state, reason)


def _log(known: _Known, found: Verified | Refused) -> None:
    """Only what has changed, and of strangers only at level debug: they could fill the log."""
    before = known.found
    if isinstance(found, Verified):
        if not isinstance(before, Verified):
            logger.info("the node %s at %s is active", found.node.name, found.address)
    elif isinstance(before, Verified):
        logger.warning("the node %s at %s is active no more: %s", before.node.name, before.address, found.reason)
    elif before != found:
        logger.debug("the node announced as %r is not trusted: %s", known.sighting.instance, found.reason)
