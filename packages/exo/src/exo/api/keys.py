"""API keys: kept as SHA-256, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from exo.types import ConfigurationError

_NAME = r"[^:#\s][^:\s]*"
_LINE = re.compile(rf"(?P<name>{_NAME}):(?P<digest>[0-9a-f]{{64}})")


class KeyRing:
    """The keys that a node accepts, by name; an empty ring accepts everybody."""

    def __init__(self, digests: Mapping[str, str] | None = None) -> None:
        self._digests = dict(digests or {})

    def __bool__(self) -> bool:
        return bool(self._digests)

    def __repr__(self) -> str:
        return f"KeyRing({sorted(self._digests)})"

    @classmethod
    def from_plain(cls, keys: Iterable[str]) -> KeyRing:
        """Keys as text, named by their position: key1, key2 … Raises ConfigurationError for one that is not ASCII."""
        digests = {}
        for number, key in enumerate(keys, start=1):
            if not key.isascii():
                raise ConfigurationError(f"API key {number} of the environment holds other characters than ASCII.")
            digests[f"key{number}"] = digest_of(key)
        return cls(digests)

    @classmethod
    def from_file(cls, path: Path) -> KeyRing:
        """Lines `name:sha256-in-hex`; blank lines and those with # are left out. Raises ConfigurationError."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"The key file {path} cannot be read: {getattr(error, 'strerror', None) or error}."
            ) from error
        digests: dict[str, str] = {}
        for number, line in enumerate(lines, start=1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            match = _LINE.fullmatch(text)
            if match is None:
                raise ConfigurationError(
                    f"{path}, line {number}: expected name:sha256. `exo key NAME` makes such a line."
                )
            if match["name"] in digests:
                raise ConfigurationError(f"{path}, line {number}: the name {match['name']} is there twice.")
            digests[match["name"]] = match["digest"]
        return cls(digests)

    def merged(self, other: KeyRing) -> KeyRing:
        """Both rings in one. Raises ConfigurationError if they share a name."""
        shared = sorted(set(self._digests) & set(other._digests))
        if shared:
            raise ConfigurationError(
                f"The name {shared[0]} belongs to a key of the environment; take another in the file."
            )
        return KeyRing({**self._digests, **other._digests})

    def name_of(self, key: str) -> str | None:
        """The name of a key, or None for a wrong one. Takes the same time for every wrong key."""
        digest = digest_of(key)
        found = None
        for name, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                found = name
        return found


def check_name(name: str) -> None:
    """Raises ConfigurationError for a name that a line of the key file cannot hold."""
    if not re.fullmatch(_NAME, name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a key: leave out blanks and colons, and a # in front."
        )


def digest_of(key: str) -> str:
    """SHA-256 of a key. Keys are long and random, so a slow password hash would add nothing."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def new_key() -> str:
    """A fresh random key."""
    return f"exo-{secrets.token_urlsafe(32)}"
