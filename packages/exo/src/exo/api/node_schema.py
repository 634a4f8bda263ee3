"""The bodies of the paths that tell about the node itself."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from exo.cluster.membership.announcement import NodeDescription
from exo.cluster.membership.peers import State
from exo.inference import Readiness
from exo.topology import NodeCapabilities


class Health(msgspec.Struct):
    status: str


@dataclass(frozen=True)
class NodeReadiness(Readiness):
    """What /ready answers."""

    name: str
    version: str


class DrainBody(msgspec.Struct):
    """Whether the node is to refuse new requests, or to take them again."""

    drain: bool


class ChallengeAnswer(msgspec.Struct):
    """What the node tells of itself, and its proof for the address and port at which it was asked."""

    node: NodeDescription
    address: str
    port: int
    proof: str


class TopologyNode(msgspec.Struct, kw_only=True):
    """One node. Only a node itself knows its capabilities; `reason` says why another is not active."""

    name: str
    state: State
    reason: str = ""
    version: str
    engine: str
    slots: int
    models: tuple[str, ...]
    addresses: tuple[str, ...]
    port: int
    capabilities: NodeCapabilities | None = None


class Topology(msgspec.Struct):
    """The node itself comes first."""

    nodes: list[TopologyNode]
