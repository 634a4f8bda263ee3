"""What has to be told to a running HAProxy, so that it has the servers that it should have. Decides, does nothing.

A node has a server in the backend of its pool, with a limit, and another in the one for listings, without. A server
that has to go is drained first: its sessions end, and only then it is removed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from exo.cluster.inventory import Inventory, InventoryNode
from exo.cluster.membership.announcement import NodeDescription
from exo.cluster.membership.secret import plain_address
from exo.cluster.pools import LISTINGS, RESPONSES, Pool, pool_for, pools_of
from exo.cluster.proxy.runtime_api import ProxyState, Server

Key: TypeAlias = tuple[str, str]
"""Names of a backend and of a server in it."""
_RENDER = "render the proxy's configuration again and reload it"


@dataclass(frozen=True)
class Wanted:
    """A server that should be there. `slots` is None where there is no limit; `is_listed`: by the inventory."""

    backend: str
    name: str
    address: str
    port: int
    weight: int
    slots: int | None
    is_listed: bool


@dataclass(frozen=True)
class Joined:
    """A node that the inventory does not list, and that has proven itself."""

    node: NodeDescription
    address: str
    port: int


@dataclass(frozen=True)
class Misfit:
    """A node that no backend can have, and what to do."""

    name: str
    reason: str


@dataclass(frozen=True)
class Add:
    wanted: Wanted


@dataclass(frozen=True)
class Drain:
    """Let it end what it has. `tables` may lead conversations to it: they have to forget it."""

    server: Server
    tables: tuple[str, ...]


@dataclass(frozen=True)
class Forget:
    """What a drained server still ran may have led further conversations to it."""

    server: Server
    tables: tuple[str, ...]


@dataclass(frozen=True)
class Remove:
    """`even_busy`: it does not answer any more, so that its sessions cannot end well."""

    server: Server
    tables: tuple[str, ...]
    even_busy: bool = False


@dataclass(frozen=True)
class Ready:
    """Let a drained server take requests again."""

    server: Server


@dataclass(frozen=True)
class BreakOff:
    """It hangs: its checks fail, and the network still takes what is sent to it."""

    server: Server


@dataclass(frozen=True)
class SetWeight:
    server: Server
    weight: int


@dataclass(frozen=True)
class SetSlots:
    server: Server
    slots: int


Action: TypeAlias = Add | Drain | Forget | Remove | Ready | BreakOff | SetWeight | SetSlots


def plan(inventory: Inventory, joined: Sequence[Joined], backends: frozenset[str]) -> tuple[list[Wanted], list[Misfit]]:
    """The servers that the proxy should have, which has these backends; and the nodes for which it has none."""
    wanted: list[Wanted] = []
    misfits: list[Misfit] = []
    pools = pools_of(inventory)
    for pool in pools:
        if pool.name in backends:
            for node in pool.nodes:
                wanted += _pair(pool, node, backends, is_listed=True)
        else:
            reason = f"the running proxy has no pool for {', '.join(pool.models)}: {_RENDER}"
            misfits += [Misfit(node.name, reason) for node in pool.nodes]
    running = [pool for pool in pools if pool.name in backends]
    weight = inventory.defaults.weight or InventoryNode(name="-", address="-").weight
    for one in joined:
        fitting = pool_for(one.node.models, running)
        if fitting is None:
            models = ", ".join(one.node.models) or "no model"
            misfits.append(
                Misfit(one.node.name, f"it has {models}, which no pool takes: add it to the inventory, {_RENDER}")
            )
        else:
            node = InventoryNode(
                name=one.node.name, address=one.address, port=one.port, slots=one.node.slots, weight=weight
            )
            wanted += _pair(fitting, node, backends, is_listed=False)
    return wanted, misfits


def reconcile(
    wanted: Iterable[Wanted],
    state: ProxyState,
    managed: Iterable[str],
    leaving: Mapping[Key, float],
    *,
    known: Container[str] | None,
    patience: float,
    hanging: Container[Key] = (),
) -> list[Action]:
    """What to do about the backends `managed`, others are left alone.

    `leaving` tells for servers that were drained here how many seconds ago. `known` are the names of those that were
    wanted before: only they go when they are not wanted any more, as others may not have shown themselves yet; all do
    where it is None. One that does not answer keeps its sessions for `patience` seconds. Those of `hanging` are ended.
    """
    missing = {(one.backend, one.name): one for one in wanted}
    backends = frozenset(managed)
    actions: list[Action] = []
    for server in state.servers:
        if server.backend not in backends:
            continue
        key = server.backend, server.name
        if key in hanging:
            actions.append(BreakOff(server))
        one = missing.pop(key, None)
        if one is not None and _is_at(server, one):
            actions += _kept(server, one, ours=key in leaving)
        elif known is None or server.name in known:
            actions += _leave(server, state.tables, leaving.get(key, 0.0), patience)
    actions += [Add(one) for one in missing.values() if _is_address(one.address)]
    return actions


def unaddable(wanted: Iterable[Wanted], state: ProxyState) -> list[Misfit]:
    """Listed nodes that are not there yet, and whose name only the configuration can turn into an address."""
    present = {(server.backend, server.name) for server in state.servers}
    return [
        Misfit(one.name, f"it has a host name and is not in the running proxy yet: {_RENDER}")
        for one in wanted
        if not _is_address(one.address) and (one.backend, one.name) not in present and one.slots is not None
    ]


def managed_backends(inventory: Inventory) -> frozenset[str]:
    names = [pool.name for pool in pools_of(inventory)]
    return frozenset([*names, *(f"{name}{LISTINGS}" for name in names)])


def tables_of(server: Server, tables: frozenset[str]) -> tuple[str, ...]:
    """Those that lead conversations and stored responses to the server."""
    return tuple(sorted(tables & {server.backend, f"{server.backend}{RESPONSES}"}))


def _pair(pool: Pool, node: InventoryNode, backends: frozenset[str], *, is_listed: bool) -> Iterator[Wanted]:
    for backend, slots in ((pool.name, node.slots), (f"{pool.name}{LISTINGS}", None)):
        if backend in backends:
            yield Wanted(backend, node.name, node.address, node.port, node.weight, slots, is_listed)


def _kept(server: Server, wanted: Wanted, *, ours: bool) -> Iterator[Action]:
    """Who has drained a server of the inventory by hand wants it so; others cannot be meant."""
    if (server.draining or server.in_maintenance) and (ours or not wanted.is_listed):
        yield Ready(server)
    if server.weight != wanted.weight:
        yield SetWeight(server, wanted.weight)
    if wanted.slots is not None and server.slots != wanted.slots:
        yield SetSlots(server, wanted.slots)


def _leave(server: Server, tables: frozenset[str], seconds: float, patience: float) -> Iterator[Action]:
    own = tables_of(server, tables)
    if not (server.draining or server.in_maintenance):
        yield Drain(server, own)
    elif server.is_empty:
        yield Remove(server, own)
    elif seconds > patience and server.is_down:
        yield Remove(server, own, even_busy=True)
    else:
        yield Forget(server, own)


def _is_at(server: Server, wanted: Wanted) -> bool:
    """A host name means the address that the proxy has made of it."""
    if server.port != wanted.port:
        return False
    if not _is_address(wanted.address):
        return server.host == wanted.address
    return plain_address(server.address) == plain_address(wanted.address)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
