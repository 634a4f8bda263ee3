"""`exo cluster discover`: the nodes that mDNS shows, and which of them may have traffic."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from exo.cli import logs, values
from exo.cli.tables import print_table
from exo.cluster.inventory import INVENTORY, Inventory
from exo.cluster.inventory_reader import read_inventory
from exo.cluster.membership.mdns import browsing
from exo.cluster.membership.secret import read_secret
from exo.cluster.membership.verification import Refused, Verified, make_client, verify_sighting
from exo.cluster.plain import plain
from exo.cluster.proxy.standing import Found, judge, listed_in
from exo.types import ConfigurationError, host_and_port

_AT_ONCE = 32
_MOST_MODELS = 8


def run(flags: argparse.Namespace, env: Mapping[str, str]) -> int:  # noqa: ARG001 - a command's shape
    logs.set_up("error", as_json=False)
    try:
        seconds = values.some_seconds(flags.seconds)
    except ValueError as error:
        raise ConfigurationError(f"--seconds: {error}, got {flags.seconds!r}.") from None
    inventory = _inventory(flags.inventory)
    found = asyncio.run(_look(inventory, seconds))
    if flags.json:
        print(msgspec.json.format(msgspec.json.encode([_as_json(one) for one in found])).decode())
        return 0
    if not found:
        print(f"No node has shown itself within {seconds:g} seconds. Nodes announce themselves by mDNS on their own")
        print("network, if they listen beyond loopback and were not told otherwise (--no-announce).")
        return 0
    print_table([("NODE", "ADDRESS", "VERSION", "ENGINE", "SLOTS", "MODELS", "STANDING"), *map(_row, found)])
    if inventory is None:
        print(f"There is no {INVENTORY} here, so that nobody is listed.", file=sys.stderr)
    elif inventory.secret_file is None:
        print("The inventory has no secret_file, so that nobody can be asked for a proof.", file=sys.stderr)
    return 0


def _inventory(given: str | None) -> Inventory | None:
    """The one that was asked for, else that of this folder, if there is one."""
    if given is not None:
        return read_inventory(Path(given).expanduser())
    here = Path(INVENTORY)
    return read_inventory(here) if here.exists() else None


async def _look(inventory: Inventory | None, seconds: float) -> list[Found]:
    secret = None
    if inventory is not None and inventory.secret_file is not None:
        secret = read_secret(Path(inventory.secret_file))
    async with browsing() as browser:
        await asyncio.sleep(seconds)
        sightings = dict(browser.sightings)
    listed = await listed_in(inventory) if inventory else None
    proofs: dict[str, Verified | Refused] = {}
    if secret is not None:
        places = asyncio.Semaphore(_AT_ONCE)
        async with make_client() as client:

            async def ask(instance: str) -> None:
                async with places:
                    proofs[instance] = await verify_sighting(sightings[instance], secret, client)

            await asyncio.gather(*map(ask, sorted(sightings)))
    return judge(sightings, dict(sorted(proofs.items())), listed)


def _row(one: Found) -> tuple[str, ...]:
    node = one.node
    models = [*node.models[:_MOST_MODELS]]
    left = len(node.models) - len(models) + one.more_models
    if left:
        models.append(f"and {left} more")
    standing = f"{one.standing}: {one.reason}" if one.reason else one.standing
    place = ", ".join(host_and_port(address, one.port) for address in one.addresses)
    told = (node.name, place, node.version, node.engine, str(node.slots), ", ".join(models), standing)
    return tuple(plain(text, 1000) or "-" for text in told)


def _as_json(one: Found) -> dict[str, object]:
    node = one.node
    return {
        "name": node.name,
        "addresses": one.addresses,
        "port": one.port,
        "version": node.version,
        "engine": node.engine,
        "slots": node.slots,
        "models": [plain(model) for model in node.models],
        "more_models": one.more_models,
        "standing": one.standing,
        "reason": one.reason,
    }
