"""Nodes with the same models make one pool, which is one queue of the proxy."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from exo.cluster.inventory import Inventory, InventoryNode

LISTINGS = "_get"
"""What follows a pool's name in that of the backend with the same servers, but without a limit of connections."""
RESPONSES = "_responses"
"""The same for the table that knows which server holds a stored response."""
_LONGEST_WORD = 40


@dataclass(frozen=True)
class Pool:
    """`models` are sorted. `name` depends on them alone: it means the same to a proxy that was set up before."""

    name: str
    models: tuple[str, ...]
    nodes: tuple[InventoryNode, ...]


def pool_name(models: Iterable[str]) -> str:
    """Such as `pool_qwen3-4b_1f3a9c`: the first model, and a hash of all."""
    ids = sorted(set(models))
    digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:6]
    word = re.sub(r"[^A-Za-z0-9.-]+", "-", ids[0])[:_LONGEST_WORD]
    return f"pool_{word}_{digest}"


def pools_of(inventory: Inventory) -> tuple[Pool, ...]:
    """In the order of their first nodes in the file."""
    found: dict[tuple[str, ...], list[InventoryNode]] = {}
    for node in inventory.nodes:
        found.setdefault(tuple(sorted(set(node.models))), []).append(node)
    return tuple(Pool(pool_name(models), models, tuple(nodes)) for models, nodes in found.items())


def pool_for(models: Iterable[str], pools: Sequence[Pool]) -> Pool | None:
    """The pool that a node with these models can join: the one with the most models, all of which the node has.

    None if there is no such pool; the proxy has to be set up anew then.
    """
    own = set(models)
    fitting = [pool for pool in pools if set(pool.models) <= own]
    return max(fitting, key=lambda pool: len(pool.models), default=None)
