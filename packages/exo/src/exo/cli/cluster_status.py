"""`exo cluster status`: a line for each node of the inventory."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from exo.cli import logs
from exo.cli.tables import print_table
from exo.cluster.inventory_reader import nodes_key, read_inventory
from exo.cluster.status import NodeStatus, ask_all
from exo.types import ConfigurationError

_HEADS = ("NODE", "READY", "MODEL", "QUEUE", "TOK/S", "NPU LOAD", "TEMPERATURE")
_MOST_MODELS = 8


def run(flags: argparse.Namespace, env: Mapping[str, str]) -> int:  # noqa: ARG001 - a command's shape
    """1 if a node is not ready."""
    logs.set_up("error", as_json=False)
    inventory = read_inventory(Path(flags.inventory).expanduser())
    try:
        key = nodes_key(inventory)
    except ConfigurationError as error:  # what needs no key is shown all the same
        key = None
        print(error.message, file=sys.stderr)
    nodes = asyncio.run(ask_all(inventory, key))
    if flags.json:
        print(msgspec.json.format(msgspec.json.encode(nodes)).decode())
    else:
        print_table([_HEADS, *map(_row, nodes)])
        for node in nodes:
            for note in node.notes:
                print(note)
    return 0 if all(node.ready for node in nodes) else 1


def _row(node: NodeStatus) -> tuple[str, ...]:
    return (
        node.name,
        "yes" if node.ready else f"no: {node.reason}" if node.reason else "no",
        ", ".join([*node.loaded[:_MOST_MODELS], *(["…"] if len(node.loaded) > _MOST_MODELS else [])]) or "-",
        "-" if node.queued is None else f"{node.queued}/{node.queue_limit}",
        "-" if node.tokens_per_second is None else f"{node.tokens_per_second:.1f}",
        "-" if node.npu_load is None else f"{node.npu_load:.0%}",
        "-" if node.temperature is None else f"{node.temperature:.0f} °C",
    )
