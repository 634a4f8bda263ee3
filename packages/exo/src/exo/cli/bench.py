"""The arguments of `exo bench`. What it does is imported when it is called."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping

from exo.cli import settings
from exo.cli.entry import CommandParser

BENCH_SETTINGS = (
    dataclasses.replace(settings.HOST, help="address of the node to measure"),
    dataclasses.replace(settings.PORT, help="port of the node to measure"),
    dataclasses.replace(settings.API_KEY, help="API key for the server that is measured"),
)
_DESCRIPTION = (
    "Asks a server five questions, several times, and says how long the first token takes and how many follow per "
    "second. The server may be any that speaks OpenAI's dialect."
)
_LEVELS, _LENGTHS = "1,2,4", "128,512,1024"


def add_to(commands: argparse._SubParsersAction[CommandParser]) -> None:
    bench = commands.add_parser("bench", help="measure how fast a server answers", description=_DESCRIPTION)
    bench.add_argument("--url", metavar="URL", help="server to measure, with or without /v1; without it the node here")
    bench.add_argument(
        "--model", metavar="NAME", action="append", default=[], help="model to measure; several are put side by side"
    )
    bench.add_argument("--repeat", metavar="N", default="3", help="times that each question is asked (default 3)")
    bench.add_argument(
        "--concurrency",
        metavar="N,N",
        nargs="?",
        const=_LEVELS,
        default="",
        help=f"also with so many requests at a time (alone: {_LEVELS})",
    )
    bench.add_argument("--requests", metavar="N", default="8", help="requests at each level of these (default 8)")
    bench.add_argument(
        "--prompt-lengths",
        metavar="N,N",
        nargs="?",
        const=_LENGTHS,
        default="",
        help=f"also with prompts of so many tokens (alone: {_LENGTHS})",
    )
    bench.add_argument("--max-tokens", metavar="N", default="128", help="most tokens of an answer (default 128)")
    bench.add_argument("--temperature", metavar="T", default="0", help="temperature of the answers (default 0)")
    bench.add_argument(
        "--timeout",
        metavar="SECONDS",
        default="600",
        help="longest silence of the server; a request takes at most ten times that (default 600)",
    )
    bench.add_argument(
        "-o", "--output", metavar="DIR", help="folder for bench.md, bench.csv, bench.json and bench.html"
    )
    bench.add_argument("--compare", metavar="FILE", help="bench.json of an earlier run to compare with")
    for setting in BENCH_SETTINGS:
        setting.add_to(bench, default=argparse.SUPPRESS)
    bench.set_defaults(action=_run)


def _run(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    from exo.cli import bench_run  # noqa: PLC0415 - see above

    return bench_run.run(flags, settings.read(BENCH_SETTINGS, flags, env))
