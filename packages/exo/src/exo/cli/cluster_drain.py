"""`exo cluster drain`: a node ends what it has, and takes nothing new until it is told to."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import httpx2

from exo.cli import logs
from exo.cluster.inventory import Inventory, InventoryNode
from exo.cluster.inventory_reader import admin_key, read_inventory
from exo.cluster.membership.verification import make_client
from exo.cluster.plain import plain
from exo.cluster.status import ReadyBody, ask_ready, fetch, ready_in
from exo.types import ConfigurationError, NodeFailed

_NOTICE = 3.5
"""Seconds: a node still takes requests for a while, until proxies have seen that it drains."""
_PAUSE = 0.5
_KEY_STATUSES = (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN)


def run(flags: argparse.Namespace, env: Mapping[str, str]) -> int:  # noqa: ARG001 - a command's shape
    logs.set_up("error", as_json=False)
    inventory = read_inventory(Path(flags.inventory).expanduser())
    node = _node_called(flags.node, inventory)
    if flags.undo and flags.wait:
        raise ConfigurationError("--wait waits for a node to end what it has, which makes no sense with --undo.")
    asyncio.run(_drain(node, inventory, undo=flags.undo, wait=flags.wait))
    return 0


def _node_called(name: str, inventory: Inventory) -> InventoryNode:
    for node in inventory.nodes:
        if node.name.lower() == name.lower():
            return node
    names = [node.name for node in inventory.nodes]
    raise ConfigurationError(
        f"The inventory has no node {name!r}; it has {', '.join(names)}. One that has joined by its secret is told at "
        "its own address, by POST /v1/drain."
    )


async def _drain(node: InventoryNode, inventory: Inventory, *, undo: bool, wait: bool) -> None:
    """Only the node is told: a proxy sees it with its next check, for a while before the node refuses anything."""
    async with make_client() as client:
        now = await _tell(client, node, admin_key(inventory), undo=undo)
        if undo:
            print(
                f"{node.name} takes requests again." if now.ready else f"{node.name} is not ready: {plain(now.reason)}."
            )
            return
        print(f"{node.name} takes no new requests; {_left(now)}.", flush=True)
        if not wait:
            return
        await asyncio.sleep(_NOTICE)
        while True:
            now = await ask_ready(node, client)
            if not now.draining:
                raise NodeFailed(f"{node.name} takes requests again: somebody has told it to, or has started it anew.")
            if not (now.running or now.queued):
                break
            await asyncio.sleep(_PAUSE)
        print(f"{node.name} has no request left.")


async def _tell(client: httpx2.AsyncClient, node: InventoryNode, key: str | None, *, undo: bool) -> ReadyBody:
    body = json.dumps({"drain": not undo}).encode()
    status, content = await fetch(client, node, "POST", "/v1/drain", key=key, body=body)
    if status in _KEY_STATUSES:
        raise NodeFailed(
            f"{node.name} refuses the key of the inventory for this. Give it one of scope admin: keys.admin_file."
            if key
            else f"{node.name} asks for a key. Give the inventory one of scope admin: keys.admin_file."
        )
    if status != httpx2.codes.OK:
        raise NodeFailed(f"{node.name} answers with status {status}: {plain(content.decode('utf-8', 'replace'))}")
    return ready_in(content, node)


def _left(now: ReadyBody) -> str:
    return f"it runs {now.running} and {now.queued} wait" if now.running or now.queued else "it has none"
