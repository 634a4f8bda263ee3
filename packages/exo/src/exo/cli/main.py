"""The command `exo`: parses the command line and calls the part that does the work."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import cast

from exo import __version__
from exo.cli import settings
from exo.cli.command import Action, Command
from exo.types import ExoError

COMMANDS_GROUP = "exo.commands"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 with one sentence on stderr for an error that has a name."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    flags = make_parser(arguments).parse_args(arguments)
    action: Action = flags.action
    try:
        return action(flags, os.environ)
    except ExoError as error:
        print(f"exo: {error.message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def make_parser(arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser; further commands are imported only if `arguments` name them or ask for help."""
    parser = argparse.ArgumentParser(
        prog="exo", description="Serve language models on this machine. Alone: start the node."
    )
    parser.add_argument("--version", action="version", version=f"exo {__version__}")
    parser.add_argument(
        "--list-engines", action="store_const", dest="action", const=_list_engines, help=_LIST_ENGINES_HELP
    )
    _add_settings(parser, settings.SERVE_SETTINGS)
    parser.set_defaults(action=_serve)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    run = commands.add_parser("run", help="chat with a model in the terminal")
    run.add_argument("model", help="a model's id")
    run.add_argument("prompt", nargs="*", help="one question; without it a conversation")
    _add_settings(run, settings.RUN_SETTINGS, default=argparse.SUPPRESS)
    run.set_defaults(action=_run)

    models = commands.add_parser("models", help="list the known models and those in the store")
    _add_settings(models, settings.STORE_SETTINGS, default=argparse.SUPPRESS)
    models.set_defaults(action=_models)

    pull = commands.add_parser("pull", help="bring a model into the store")
    pull.add_argument("model", help="a model's id")
    _add_settings(pull, settings.STORE_SETTINGS, default=argparse.SUPPRESS)
    pull.set_defaults(action=_pull)

    key = commands.add_parser("key", help="make an API key and the line for the key file")
    key.add_argument("name", help="whose key it is")
    key.set_defaults(action=_key)

    commands.add_parser("version", help="print the version").set_defaults(action=_version)
    _add_plugin_commands(commands, arguments)
    return parser


_LIST_ENGINES_HELP = "show each engine, whether it can run here, and if not why"


def _add_settings(
    parser: argparse.ArgumentParser, table: tuple[settings.Setting, ...], *, default: str | None = None
) -> None:
    for setting in table:
        setting.add_to(parser, default=default)


def _add_plugin_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    arguments: Sequence[str],
) -> None:
    """A command that is broken or claims a taken name is named on stderr; the others work."""
    wants_help = "-h" in arguments or "--help" in arguments
    for point in sorted(entry_points(group=COMMANDS_GROUP), key=lambda point: (point.name, point.value)):
        if not (wants_help or point.name in arguments):
            continue
        if point.name in commands.choices:
            print(f"exo: the command {point.name} ({point.value}) is left out: the name is taken", file=sys.stderr)
            continue
        try:
            command = cast("Command", point.load())
            parser = argparse.ArgumentParser(prog=f"exo {point.name}", add_help=False)
            command.configure(parser)
            added = commands.add_parser(point.name, help=command.help, parents=[parser])
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything; the others must work
            print(f"exo: the command {point.name} of a plugin is broken: {error!r}", file=sys.stderr)
        else:
            added.set_defaults(action=command.run)


# The commands are imported when they are called: `exo version` has no need of a web server.


def _serve(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    from exo.cli import serve  # noqa: PLC0415

    return serve.run(flags, env)


def _run(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    from exo.cli import run  # noqa: PLC0415

    return run.run(flags, env)


def _models(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    from exo.cli import store  # noqa: PLC0415

    return store.list_models(flags, env)


def _pull(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    from exo.cli import store  # noqa: PLC0415

    return store.pull_model(flags, env)


def _key(flags: argparse.Namespace, env: Mapping[str, str]) -> int:  # noqa: ARG001 - a command's shape
    from exo.api.keys import check_name, digest_of, new_key  # noqa: PLC0415

    check_name(flags.name)
    key = new_key()
    print(f"The key, for whoever uses it (it is shown only once):\n{key}\n", file=sys.stderr)
    print("The line for the key file:", file=sys.stderr)
    print(f"{flags.name}:{digest_of(key)}")
    return 0


def _list_engines(flags: argparse.Namespace, env: Mapping[str, str]) -> int:  # noqa: ARG001 - a command's shape
    from exo.cli import logs  # noqa: PLC0415
    from exo.inference import discover  # noqa: PLC0415

    logs.set_up("error", as_json=False)
    plugins = discover()
    for listing in plugins.listings(env):
        state = "yes" if listing.availability.ok else "no"
        print(f"{listing.name:12} {state:4} {listing.availability.reason} (from {listing.source})")
    plugins.check()
    for problem in plugins.problems:
        print(f"problem: {problem}")
    return 0


def _version(flags: argparse.Namespace, env: Mapping[str, str]) -> int:  # noqa: ARG001 - a command's shape
    print(f"exo {__version__}")
    return 0
