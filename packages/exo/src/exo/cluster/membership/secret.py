"""The secret that the nodes of a cluster share, and the proof that a node knows it.

The proof covers the address and the port at which the node was asked. So who hands the question on to a real node gets
a proof for that node's address, which is of no use at its own.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from exo.types import ConfigurationError

SHORTEST = 32
"""Characters of a secret."""
_LONGEST = 4096
_PURPOSE = "exo cluster node"
_CHALLENGE = re.compile(r"[0-9a-f]{64}")
_PROOF = re.compile(r"[0-9a-f]{64}")

logger = logging.getLogger(__name__)


def read_secret(path: Path) -> bytes:
    """The content of a secret file without the white space around it. Raises ConfigurationError.

    A file that other users may read is taken, with a warning.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
            mode = path.stat().st_mode
    except OSError as error:
        raise ConfigurationError(f"The secret file {path} cannot be read: {error.strerror or error}.") from error
    if len(content) > _LONGEST:
        raise ConfigurationError(f"The secret file {path} is longer than {_LONGEST} bytes, so it holds no secret.")
    secret = content.strip()
    if len(secret.decode("utf-8", "replace")) < SHORTEST:
        raise ConfigurationError(
            f"The secret in {path} is shorter than {SHORTEST} characters. `openssl rand -hex 32` makes a good one."
        )
    if mode & (stat.S_IRGRP | stat.S_IROTH) and stat.S_ISREG(mode):
        logger.warning("other users may read the secret file %s; `chmod 600 %s` keeps them out", path, path)
    return secret


def new_challenge() -> str:
    """64 hexadecimal digits that nobody can foresee."""
    return secrets.token_hex(32)


def is_challenge(text: str) -> bool:
    return _CHALLENGE.fullmatch(text) is not None


def proof(secret: bytes, challenge: str, address: str, port: int, node: Mapping[str, Any]) -> str:
    """HMAC-SHA256, as hexadecimal digits. `node` is what the node tells of itself, as JSON has it."""
    covered = {
        "purpose": _PURPOSE,
        "challenge": challenge,
        "address": plain_address(address),
        "port": port,
        "node": node,
    }
    return hmac.new(secret, msgspec.json.encode(covered, order="sorted"), hashlib.sha256).hexdigest()


def is_proof(given: str, expected: str) -> bool:
    """Whether somebody gave the proof that `proof` makes. Takes the same time for every wrong one."""
    return _PROOF.fullmatch(given) is not None and hmac.compare_digest(given, expected)


def plain_address(address: str) -> str:
    """One way to write an IP address: short, without the name of an interface, IPv4 as such within IPv6 too.

    What is no address stays as it is.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)
