"""API keys: kept as SHA-256, compared in constant time, each with a name, a scope and its limits."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exo.inference.caller import Caller
from exo.types import ConfigurationError

_NAME = r"[^:#\s][^:\s]*"
_LINE = re.compile(rf"(?P<name>{_NAME}):(?P<digest>[0-9a-f]{{64}})(?P<options>(?:\s+\S+)*)")
_OPTION = re.compile(r"(?P<name>[a-z]+)=(?P<value>\S+)")


@dataclass(frozen=True)
class Key:
    """`digest` is that of `digest_of`, `caller` whoever sends the key."""

    digest: str
    caller: Caller

    def line(self) -> str:
        """As a key file has it."""
        caller = self.caller
        scope = "admin" if caller.admin else "use"
        limits = {"requests": caller.requests, "tokens": caller.tokens}
        options = [f"{name}={value}" for name, value in limits.items() if value is not None]
        return " ".join([f"{caller.name}:{self.digest}", f"scope={scope}", *options])


class KeyRing:
    """The keys that a node accepts; with an empty ring it asks for none."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = {key.caller.name: key for key in keys}

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"KeyRing({sorted(self._keys)})"

    @classmethod
    def from_plain(cls, keys: Iterable[str]) -> KeyRing:
        """Keys as text, which may do everything, named by their position: key1, key2 …

        Raises ConfigurationError for one that is not ASCII.
        """
        made = []
        for number, key in enumerate(keys, start=1):
            if not key.isascii():
                raise ConfigurationError(f"API key {number} of the environment holds other characters than ASCII.")
            made.append(Key(digest_of(key), Caller(f"key{number}")))
        return cls(made)

    @classmethod
    def from_file(cls, path: Path) -> KeyRing:
        """Lines `name:sha256-in-hex`, with options behind; blank lines and those with # are left out.

        The last line has to be complete: half a line may lack its limits. Raises ConfigurationError.
        """
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"The key file {path} cannot be read: {getattr(error, 'strerror', None) or error}."
            ) from error
        lines = content.splitlines(keepends=True)
        keys: dict[str, Key] = {}
        for number, line in enumerate(lines, start=1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            try:
                key = key_of_line(text)
            except ValueError as error:
                raise ConfigurationError(f"{path}, line {number}: {error}.") from None
            if key.caller.name in keys:
                raise ConfigurationError(f"{path}, line {number}: the name {key.caller.name} is there twice.")
            if any(known.digest == key.digest for known in keys.values()):
                raise ConfigurationError(f"{path}, line {number}: the same key is there twice, under two names.")
            keys[key.caller.name] = key
        if lines and lines[-1].rstrip("\r\n") == lines[-1]:
            raise ConfigurationError(
                f"{path}, line {len(lines)}: it has no line end, so the file may be half written. Add one."
            )
        return cls(keys.values())

    def merged(self, other: KeyRing) -> KeyRing:
        """Both rings in one. Raises ConfigurationError if they share a name."""
        shared = sorted(set(self._keys) & set(other._keys))
        if shared:
            raise ConfigurationError(
                f"The name {shared[0]} belongs to a key of the environment; take another in the file."
            )
        return KeyRing([*self._keys.values(), *other._keys.values()])

    def current(self) -> KeyRing:
        """The keys that count now: these."""
        return self

    def caller_of(self, key: str) -> Caller | None:
        """Who sends a key, or None for a wrong one. Takes the same time for every key, right or wrong."""
        digest = digest_of(key)
        found = None
        for known in self._keys.values():
            if hmac.compare_digest(digest, known.digest):
                found = known.caller
        return found


def key_of_line(line: str) -> Key:
    """Raises ValueError for a line that is not `name:sha256` with options, with what it expected.

    Without `scope` it is a key of scope admin, as all were before there were scopes.
    """
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("expected name:sha256. `exo key NAME` makes such a line")
    given: dict[str, Any] = {}
    for word in match["options"].split():
        option = _OPTION.fullmatch(word)
        if option is None or option["name"] not in _OPTIONS:
            raise ValueError(f"{word!r} is no option of a key; there are {', '.join(f'{name}=' for name in _OPTIONS)}")
        field, parse = _OPTIONS[option["name"]]
        if field in given:
            raise ValueError(f"{option['name']} is there twice")
        try:
            given[field] = parse(option["value"])
        except ValueError as error:
            raise ValueError(f"{option['name']}: {error}, got {option['value']!r}") from None
    return Key(match["digest"], Caller(match["name"], **given))


def _is_admin(value: str) -> bool:
    if value not in ("use", "admin"):
        raise ValueError("expected use or admin")
    return value == "admin"


def limit(value: str) -> int:
    """Of requests or tokens. Raises ValueError with what it expected."""
    if not re.fullmatch("[0-9]{1,12}", value) or int(value) == 0:
        raise ValueError("expected a whole number from 1 to 999999999999")
    return int(value)


_OPTIONS: Mapping[str, tuple[str, Callable[[str], bool | int]]] = {
    "scope": ("admin", _is_admin),
    "requests": ("requests", limit),
    "tokens": ("tokens", limit),
}
"""Of a line: the field of Caller that each sets, and how."""


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
