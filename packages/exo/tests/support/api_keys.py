"""Keys for tests: each is as long as it need be to be told from the others, its own name."""

from __future__ import annotations

from exo.api.keys import Key, KeyRing, digest_of
from exo.inference.caller import Caller


def ring_of(*callers: Caller) -> KeyRing:
    """A ring in which everybody's key is their name."""
    return KeyRing(Key(digest_of(caller.name), caller) for caller in callers)


def bearer(name: str) -> dict[str, str]:
    """The header that sends it."""
    return {"authorization": f"Bearer {name}"}
