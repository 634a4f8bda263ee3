"""What is wrong with an inventory, said with the path of the key."""

from __future__ import annotations

import difflib
import ipaddress
import re
import typing
from collections.abc import Iterator
from typing import Any

import msgspec

from exo.cluster.inventory import PATTERNS, Inventory, routing_name
from exo.types.card import AUTO_MODEL

_PATH = re.compile(r"(?P<what>.*) - at (?P<key>`key` in )?`\$\.?(?P<path>[^`]*)`", re.DOTALL)
_PATTERN = re.compile(r"Expected `str` matching regex (.*)", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")
_OWN_LABELS = "node instance job"
_LABELS_OF_METRICS = "le model status type key kind endpoint zone device core governor version engine family"
_RESERVED_LABELS = frozenset([*_OWN_LABELS.split(), *_LABELS_OF_METRICS.split()])
"""Those of Prometheus and of the nodes' metrics, which would be renamed."""
_MOST_POOLS = 32
_DIGITS_AND_DOTS = re.compile(r"[0-9.]+")
RESERVED_NAMES = frozenset({"backend", "frontend"})
"""What HAProxy itself puts in the place of a server's name."""


class InventoryFault(Exception):
    """`path` names the key, such as `nodes[1].port`; where the file is no TOML, there is a line in its place."""

    def __init__(self, path: str, what: str, *, line: int | None = None, column: int | None = None) -> None:
        super().__init__(what)
        self.path = path
        self.what = what
        self.line = line
        self.column = column

    def __str__(self) -> str:
        place = f", line {self.line}" if self.line is not None else ""
        place += f", column {self.column}" if self.column is not None else ""
        key = f" {self.path}:" if self.path else ""
        end = "" if self.what.endswith("?") else "."
        return f"{place}:{key} {self.what}{end}"


def explain(error: msgspec.ValidationError, kind: type[msgspec.Struct]) -> InventoryFault:
    """What msgspec says of a file, in terms of its keys; `kind` is the struct of the whole file."""
    found = _PATH.fullmatch(str(error))
    what, path = (found["what"], found["path"]) if found else (str(error), "")
    unknown = _UNKNOWN.fullmatch(what)
    if unknown:
        known = [field.name for field in msgspec.structs.fields(_table_at(path, kind))]
        return InventoryFault(_below(path, unknown[1]), f"there is no such key{_perhaps(unknown[1], known)}")
    missing = _MISSING.fullmatch(what)
    if missing:
        return InventoryFault(_below(path, missing[1]), "this key has to be there")
    pattern = _PATTERN.fullmatch(what)
    if pattern:
        meant = next((words for known, words in PATTERNS.items() if repr(known) == pattern[1]), pattern[1])
        what = f"{'keys here are' if found and found['key'] else 'expected'} {meant}"
    return InventoryFault(path, f"{what[:1].lower()}{what[1:]}".replace("`", "").replace(" | null", ""))


def check(inventory: Inventory) -> None:
    """What no schema can say. Raises InventoryFault."""
    for fault in _faults(inventory):
        raise fault


def _faults(inventory: Inventory) -> Iterator[InventoryFault]:
    yield from _node_faults(inventory)
    yield from _model_faults(inventory)
    yield from _alias_faults(inventory)
    proxy = inventory.proxy
    for key in ("address", "metrics_address"):
        yield from _address_faults(f"proxy.{key}", getattr(proxy, key))
    if proxy.metrics_port == proxy.port:
        yield InventoryFault("proxy.metrics_port", "proxy.port has this port already")
    for name in ("nodes", "admin"):
        if getattr(inventory.keys, name) and getattr(inventory.keys, f"{name}_file"):
            yield InventoryFault(f"keys.{name}_file", f"keys.{name} is given already, one of them is enough")


def _node_faults(inventory: Inventory) -> Iterator[InventoryFault]:
    names: dict[str, int] = {}
    places: dict[tuple[str, int], int] = {}
    for number, node in enumerate(inventory.nodes):
        here = f"nodes[{number}]"
        if names.setdefault(node.name.lower(), number) != number:
            first = f"nodes[{names[node.name.lower()]}]"
            yield InventoryFault(f"{here}.name", f"{first} has this name already; upper and lower case are alike here")
        if node.name.lower() in RESERVED_NAMES:
            yield InventoryFault(f"{here}.name", f"{node.name} is a word of HAProxy's own")
        yield from _address_faults(f"{here}.address", node.address)
        place = (node.address.lower(), node.port)
        if places.setdefault(place, number) != number:
            yield InventoryFault(f"{here}.address", f"nodes[{places[place]}] has this address and port already")
        for label in node.labels:
            if label in _RESERVED_LABELS:
                yield InventoryFault(f"{here}.labels.{label}", "the metrics have this label already")


def _address_faults(where: str, address: str) -> Iterator[InventoryFault]:
    """What has a colon or nothing but digits and dots cannot be a host name."""
    if ":" not in address and not _DIGITS_AND_DOTS.fullmatch(address):
        return
    try:
        ipaddress.ip_address(address)
    except ValueError:
        hint = "; a port goes into the key port" if address.count(":") == 1 else ""
        yield InventoryFault(where, f"{address} is no IP address{hint}")


def _model_faults(inventory: Inventory) -> Iterator[InventoryFault]:
    """Names that differ, and that proxies and nodes take for one; and more pools than a proxy should have."""
    models: dict[str, str] = {}
    pools: set[frozenset[str]] = set()
    for number, node in enumerate(inventory.nodes):
        here = f"nodes[{number}].models"
        if not node.models:
            yield InventoryFault(here, "this key has to be there, here or in defaults")
        for position, model in enumerate(node.models):
            other = models.setdefault(routing_name(model), model)
            if other != model:
                yield InventoryFault(f"{here}[{position}]", f"{other} is another model with the same name for a proxy")
            if routing_name(model) == AUTO_MODEL:
                yield InventoryFault(f"{here}[{position}]", f"{AUTO_MODEL} stands for any model")
        pools.add(frozenset(node.models))
        if len(pools) > _MOST_POOLS:
            yield InventoryFault(here, f"there are more than {_MOST_POOLS} different lists of models by now")


def _alias_faults(inventory: Inventory) -> Iterator[InventoryFault]:
    models = {routing_name(model): model for model in inventory.models}
    aliases: dict[str, str] = {}
    for alias, model in inventory.aliases.items():
        if model not in models.values():
            known = ", ".join(inventory.models)
            yield InventoryFault(f"aliases.{alias}", f"no node has the model {model}; there are {known}")
        if routing_name(alias) in models:
            yield InventoryFault(f"aliases.{alias}", "a node has a model of that name")
        if aliases.setdefault(routing_name(alias), alias) != alias:
            yield InventoryFault(f"aliases.{alias}", f"it is the same as {aliases[routing_name(alias)]}")
        if routing_name(alias) == AUTO_MODEL:
            yield InventoryFault(f"aliases.{alias}", f"{AUTO_MODEL} stands for any model")


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _perhaps(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"


def _table_at(path: str, kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The struct of the table at `path`."""
    for part in re.sub(r"\[[^\]]*\]", "", path).split("."):
        if part:
            kind = next(_structs_in(typing.get_type_hints(kind, include_extras=True)[part]))
    return kind


def _structs_in(hint: Any) -> Iterator[type[msgspec.Struct]]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield hint
    for inner in typing.get_args(hint):
        yield from _structs_in(inner)
