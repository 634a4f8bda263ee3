"""The commands below `exo cluster`: their arguments. What they do is imported when they are called."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from exo.cli.entry import CommandParser
from exo.cluster.inventory import INVENTORY

if TYPE_CHECKING:
    from exo.cli.command import Action

_DESCRIPTION = (
    "Many nodes behind one address. A file, the inventory, lists them; the commands configure the proxy in front of "
    "them, keep it in step, and show what the nodes do."
)
_PROGRAMS = ("haproxy", "nginx", "prometheus")


def add_to(commands: argparse._SubParsersAction[CommandParser]) -> None:
    cluster = commands.add_parser("cluster", help="many nodes behind one address", description=_DESCRIPTION)
    parts = cluster.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=CommandParser)

    render = _add(parts, "render", _render, "write the configuration of a proxy or of Prometheus")
    render.add_argument("kind", metavar="PROGRAM", choices=_PROGRAMS, help=f"one of {', '.join(_PROGRAMS)}")
    render.add_argument("-o", "--output", metavar="DIR", default=".", help="folder for the files (default: this one)")

    discover = _add(parts, "discover", _discover, "look for nodes by mDNS", inventory=None)
    discover.add_argument("--seconds", metavar="N", default="3", help="how long to look (default 3)")
    discover.add_argument("--json", action="store_true", help="as JSON")

    status = _add(parts, "status", _status, "what each node of the inventory does; 1 if one is not ready")
    status.add_argument("--json", action="store_true", help="as JSON")

    watch = _add(parts, "watch", _watch, "keep a running HAProxy in step with the inventory and with mDNS")
    watch.add_argument("--once", action="store_true", help="do what is to be done now, and end")

    drain = _add(parts, "drain", _drain, "let a node end what it has, and take nothing new")
    drain.add_argument("node", metavar="NODE", help="its name in the inventory")
    drain.add_argument("--undo", action="store_true", help="let it take requests again")
    drain.add_argument("--wait", action="store_true", help="wait until it has no request left")


def _add(
    parts: argparse._SubParsersAction[CommandParser],
    name: str,
    action: Action,
    text: str,
    *,
    inventory: str | None = INVENTORY,
) -> CommandParser:
    parser = parts.add_parser(name, help=text, description=f"{text[:1].upper()}{text[1:]}.")
    parser.add_argument(
        "-i", "--inventory", metavar="FILE", default=inventory, help=f"the inventory (default {INVENTORY})"
    )
    parser.set_defaults(action=action)
    return parser


def _render(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    from exo.cli import cluster_render  # noqa: PLC0415 - see above

    return cluster_render.run(flags, env)


def _discover(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    from exo.cli import cluster_discover  # noqa: PLC0415 - see above

    return cluster_discover.run(flags, env)


def _status(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    from exo.cli import cluster_status  # noqa: PLC0415 - see above

    return cluster_status.run(flags, env)


def _watch(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    from exo.cli import cluster_watch  # noqa: PLC0415 - see above

    return cluster_watch.run(flags, env)


def _drain(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    from exo.cli import cluster_drain  # noqa: PLC0415 - see above

    return cluster_drain.run(flags, env)
