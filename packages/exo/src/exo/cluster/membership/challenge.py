"""The question by which a node is asked whether it knows the cluster's secret, and its answer."""

from __future__ import annotations

from typing import Any

import msgspec

CHALLENGE_PATH = "/v1/cluster/challenge"


class ChallengeBody(msgspec.Struct):
    """The question: 64 hexadecimal digits."""

    challenge: str


class ProvenNode(msgspec.Struct):
    """The answer. `address` and `port` are the node's own on the connection that the question came by."""

    node: dict[str, Any]
    address: str
    port: int
    proof: str
