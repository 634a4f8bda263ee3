"""What a node tells of itself, and how it fits into the TXT record of its announcement.

Anybody on the network may announce anything: what is read from a record is made harmless, and never raises.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from exo.types import ModelCard

SERVICE_TYPE = "_exo._tcp.local."
MAX_SLOTS = 4096
_LONGEST_NAME = 63
_LONGEST_TEXT = 64
_LONGEST_STRING = 255
"""Bytes of one string of a TXT record, with the key and the sign between."""
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{_LONGEST_NAME - 1}}}")
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_NUMBER = re.compile(r"[0-9]{1,6}", re.ASCII)


class NodeDescription(msgspec.Struct, frozen=True):
    """What a node tells of itself. `models` are the ids of all that it serves."""

    name: str
    version: str = ""
    engine: str = ""
    slots: int = 1
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class Announced:
    """What a TXT record tells. So many ids of models as `more_models` had no room in it."""

    node: NodeDescription
    more_models: int = 0


def is_node_name(text: str) -> bool:
    """Whether a node may be called so: 1 to 63 letters, digits, dots, hyphens and underscores, no sign in front."""
    return _NAME.fullmatch(text) is not None


def fitting_name(text: str) -> str:
    """The nearest name that a node may have: that of a host need not be one."""
    return _UNFIT.sub("-", text).lstrip("._-")[:_LONGEST_NAME] or "node"


def describe(name: str, version: str, engine: str, slots: int, cards: Sequence[ModelCard]) -> NodeDescription:
    return NodeDescription(name, version, engine, slots, tuple(card.id for card in cards))


def to_txt(node: NodeDescription) -> dict[str, bytes]:
    """The strings of a TXT record. Ids of models that do not fit are counted under `more`."""
    models = _that_fit(node.models, _LONGEST_STRING - len("models="))
    texts = {
        "name": node.name,
        "version": node.version,
        "engine": node.engine,
        "slots": str(node.slots),
        "models": ",".join(models),
    }
    if len(models) < len(node.models):
        texts["more"] = str(len(node.models) - len(models))
    return {key: _cut(text, _LONGEST_STRING - len(key) - 1) for key, text in texts.items()}


def from_txt(strings: Mapping[bytes, bytes | None], instance: str) -> Announced:
    """What a TXT record tells; what is missing or makes no sense in it is left at its default.

    `instance` is the name of the announcement, from which the node's name is made if it tells none that it may have.
    """
    name = _text(strings, b"name")
    ids = _text(strings, b"models", longest=_LONGEST_STRING).split(",")
    node = NodeDescription(
        name=name if is_node_name(name) else fitting_name(instance),
        version=_text(strings, b"version"),
        engine=_text(strings, b"engine"),
        slots=min(max(_number(strings, b"slots"), 1), MAX_SLOTS),
        models=tuple(dict.fromkeys(filter(None, ids))),
    )
    return Announced(node, more_models=_number(strings, b"more"))


def _that_fit(ids: Sequence[str], room: int) -> list[str]:
    """The first that need at most `room` bytes together, commas included; an id with a comma could not be read."""
    found: list[str] = []
    for one in ids:
        size = len(one.encode()) + (1 if found else 0)
        if size > room:
            break
        if "," not in one:
            found.append(one)
            room -= size
    return found


def _cut(text: str, longest: int) -> bytes:
    return text.encode()[:longest].decode("utf-8", "ignore").encode()


def _text(strings: Mapping[bytes, bytes | None], key: bytes, *, longest: int = _LONGEST_TEXT) -> str:
    """A printable text of at most so many bytes, else nothing: it is shown on terminals."""
    value = strings.get(key) or b""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return ""
    return text if len(value) <= longest and text.isprintable() else ""


def _number(strings: Mapping[bytes, bytes | None], key: bytes) -> int:
    text = _text(strings, key)
    return int(text) if _NUMBER.fullmatch(text) else 0
