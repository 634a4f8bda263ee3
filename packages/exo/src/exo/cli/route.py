"""The arguments of `exo route`. What it does is imported when it is called."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping

from exo.cli import settings
from exo.cli.entry import CommandParser

ROUTE_SETTINGS = (
    settings.ENGINE,
    settings.DEFAULT_MODEL,
    *settings.STORE_SETTINGS,
    dataclasses.replace(settings.ROUTING_RULES, flags=("--rules", "--routing-rules")),
)
_DESCRIPTION = (
    "Says which model a node here would choose for a request to `auto`, and why. No node has to run: the models are "
    "those that it would have, none of them loaded."
)


def add_to(commands: argparse._SubParsersAction[CommandParser]) -> None:
    route = commands.add_parser("route", help="explain which model `auto` means for a prompt", description=_DESCRIPTION)
    route.add_argument("prompt", nargs="*", default=[], help="the prompt of the request")
    route.add_argument("--json", action="store_true", help="print one JSON object")
    route.add_argument(
        "--file",
        metavar="FILE",
        help='prompts as JSON Lines, {"prompt": "..."}, or - for stdin; answers are JSON Lines',
    )
    route.add_argument("--print-rules", action="store_true", help="print the packaged rules, to begin a file with")
    for setting in ROUTE_SETTINGS:
        setting.add_to(route, default=argparse.SUPPRESS)
    route.set_defaults(action=_run)


def _run(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    from exo.cli import route_run  # noqa: PLC0415 - it imports the engines

    return route_run.run(flags, env)
