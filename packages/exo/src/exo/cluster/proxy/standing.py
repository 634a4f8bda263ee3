"""Which of the nodes in sight may have traffic: those of the inventory, and those that have proven themselves."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from anyio import fail_after

from exo.cluster.inventory import Inventory
from exo.cluster.inventory_check import RESERVED_NAMES
from exo.cluster.membership.announcement import NodeDescription
from exo.cluster.membership.mdns import Sighting
from exo.cluster.membership.secret import plain_address
from exo.cluster.membership.verification import Refused, Verified
from exo.types import host_and_port

Standing: TypeAlias = Literal["listed", "verified", "unknown"]
Place: TypeAlias = tuple[str, int]
"""An IP address and a port."""

_LOOKUP = 3.0
"""Seconds for the addresses of the host names of an inventory."""


@dataclass(frozen=True)
class Found:
    """A node in sight. What a `listed` or `unknown` one tells of itself is its own word; `reason` explains."""

    instance: str
    node: NodeDescription
    addresses: tuple[str, ...]
    port: int
    standing: Standing
    reason: str = ""
    more_models: int = 0


@dataclass(frozen=True)
class Listed:
    """Names of an inventory in lower case, and the places of its nodes with their names."""

    names: frozenset[str]
    places: Mapping[Place, str]


async def listed_in(inventory: Inventory) -> Listed:
    """Looks up the addresses of host names; one that is not known has none."""
    loop = asyncio.get_running_loop()

    async def addresses(host: str) -> list[str]:
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            pass
        try:
            with fail_after(_LOOKUP):
                found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError):
            return []
        return [str(entry[4][0]) for entry in found]

    known = await asyncio.gather(*(addresses(node.address) for node in inventory.nodes))
    places = {
        (plain_address(address), node.port): node.name
        for node, found in zip(inventory.nodes, known)
        for address in found
    }
    return Listed(frozenset(node.name.lower() for node in inventory.nodes), places)


def judge(
    sightings: Mapping[str, Sighting], proofs: Mapping[str, Verified | Refused], listed: Listed | None
) -> list[Found]:
    """All in sight, by name. `proofs` are in the order in which they were first given.

    Nobody takes a name or a place of the inventory, nor of a node that has proven itself before.
    """
    names: dict[str, str] = dict.fromkeys(listed.names, "the inventory") if listed else {}
    places: dict[Place, str] = dict(listed.places) if listed else {}
    found: dict[str, Found] = {}
    for instance, sighting in sightings.items():
        name = _listed_at(sighting, proofs.get(instance), places)
        if name is not None:
            reason = "" if name == sighting.node.name else f"as {name}"
            found[instance] = _told(sighting, "listed", reason)
    for instance, proof in proofs.items():
        if instance in sightings and instance not in found and isinstance(proof, Verified):
            found[instance] = _proven(sightings[instance], proof, names, places)
    for instance, sighting in sightings.items():
        if instance not in found:
            answer = proofs.get(instance)
            reason = answer.reason if isinstance(answer, Refused) else "it was not asked for its proof"
            found[instance] = _told(sighting, "unknown", reason)
    return sorted(found.values(), key=lambda one: (one.node.name.lower(), one.addresses, one.port, one.instance))


def verified_among(found: list[Found]) -> Iterator[Found]:
    return (one for one in found if one.standing == "verified")


def _listed_at(sighting: Sighting, proof: Verified | Refused | None, places: Mapping[Place, str]) -> str | None:
    """The listed node that is meant. Where a node has proven itself, that counts, whatever is announced by now."""
    if isinstance(proof, Verified):
        return places.get((proof.address, proof.port))
    for address in sighting.addresses:
        name = places.get((plain_address(address), sighting.port))
        if name is not None:
            return name
    return None


def _proven(sighting: Sighting, proof: Verified, names: dict[str, str], places: dict[Place, str]) -> Found:
    name, place = proof.node.name.lower(), (proof.address, proof.port)
    reason = ""
    if name in RESERVED_NAMES:
        reason = f"{proof.node.name} is a word of HAProxy's own"
    elif name in names:
        reason = f"its name is taken, by {names[name]}"
    elif place in places:
        reason = f"its address is taken, by {places[place]}"
    else:
        names[name] = host_and_port(*place)
        places[place] = proof.node.name
    standing: Standing = "unknown" if reason else "verified"
    return Found(sighting.instance, proof.node, (proof.address,), proof.port, standing, reason)


def _told(sighting: Sighting, standing: Standing, reason: str) -> Found:
    return Found(
        sighting.instance, sighting.node, sighting.addresses, sighting.port, standing, reason, sighting.more_models
    )
