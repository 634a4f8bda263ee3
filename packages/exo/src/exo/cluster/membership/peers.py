"""The other nodes in sight, and what came of asking them for their proof."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Literal

import msgspec

from exo.cluster.membership.announcement import NodeDescription
from exo.cluster.membership.mdns import Sighting
from exo.cluster.membership.proofs import Answer, Proofs
from exo.cluster.membership.verification import Refused, Verified
from exo.types import host_and_port

State = Literal["active", "unreachable", "unknown"]

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


class Peers:
    """The nodes in sight, and those that still prove themselves. One owner: the event loop; see Proofs.

    `on_change` is called with the number of active ones. Without a secret nobody is asked.
    """

    def __init__(self, secret: bytes | None, on_change: Callable[[int], None]) -> None:
        self._secret = secret
        self._on_change = on_change
        self._proofs = Proofs(self._note)
        self._has_warned = False

    def see(self, sightings: Mapping[str, Sighting], own: Collection[tuple[str, int]]) -> None:
        """These are in sight now. `own` are the addresses and ports of this node."""
        self._proofs.see(sightings, self._secret, own)
        self._tell()

    def listed(self) -> list[Peer]:
        """By name and address."""
        peers = [self._peer(instance, sighting) for instance, sighting in self._proofs.sightings.items()]
        return sorted(peers, key=lambda peer: (peer.node.name, peer.addresses, peer.port))

    async def close(self) -> None:
        """Forget all of them."""
        await self._proofs.close()
        self._tell()

    def _note(self, instance: str, before: Answer | None, answer: Answer) -> None:
        """Log what has changed, of strangers at level debug only: they could fill the log."""
        if isinstance(answer, Verified):
            if not isinstance(before, Verified):
                logger.info("the node %s at %s is active", answer.node.name, answer.address)
        elif isinstance(before, Verified):
            if instance in self._proofs.in_sight:
                logger.warning(
                    "the node %s at %s is active no more: %s", before.node.name, before.address, answer.reason
                )
            else:
                logger.info("the node %s at %s has gone", before.node.name, before.address)
        else:
            self._log_stranger(instance, answer)
        self._tell()

    def _log_stranger(self, instance: str, answer: Refused) -> None:
        if answer.is_wrong_proof and not self._has_warned:
            self._has_warned = True
            sighting = self._proofs.sightings[instance]
            place = host_and_port(sighting.addresses[0], sighting.port)
            logger.warning(
                "the node %s at %s knows another cluster secret, or none: it stays unknown, as further ones will",
                sighting.node.name,
                place,
            )
        else:
            logger.debug("the node announced as %r is not trusted: %s", instance, answer.reason)

    def _tell(self) -> None:
        self._on_change(sum(isinstance(answer, Verified) for answer in self._proofs.latest.values()))

    def _peer(self, instance: str, sighting: Sighting) -> Peer:
        latest, found = self._proofs.latest.get(instance), self._proofs.found.get(instance)
        if isinstance(latest, Verified):
            return Peer(latest.node, (latest.address,), latest.port, "active")
        if latest is None:
            reason = "it has not answered yet" if self._secret else "this node has no cluster secret to ask it with"
            return Peer(sighting.node, sighting.addresses, sighting.port, "unknown", reason)
        if isinstance(found, Verified):
            return Peer(found.node, (found.address,), found.port, "unreachable", latest.reason)
        state: State = "unknown" if latest.reachable else "unreachable"
        return Peer(sighting.node, sighting.addresses, sighting.port, state, latest.reason)
