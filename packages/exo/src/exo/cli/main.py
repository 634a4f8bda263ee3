"""The command `exo`: parses the command line and calls the part that does the work."""

from __future__ import annotations

# Only what is light is imported here, the rest inside functions: Ctrl-C before `main` begins is a traceback.
import os
import sys

from exo import __version__

TYPE_CHECKING = False  # typing is not light
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from exo.cli.command import Action, Command
    from exo.cli.entry import CommandParser
    from exo.cli.settings import Setting

COMMANDS_GROUP = "exo.commands"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code, see exo.cli.entry.run_command."""
    try:
        from exo.cli.entry import run_command  # noqa: PLC0415 - see above
    except KeyboardInterrupt:
        return 130

    def work() -> int:
        arguments = list(sys.argv[1:] if argv is None else argv)
        flags = make_parser(arguments).parse_args(arguments)
        action: Action = flags.action
        return action(flags, os.environ)

    return run_command("exo", work)


def make_parser(arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser; further commands are imported only if `arguments` name them or ask for help."""
    import argparse  # noqa: PLC0415 - see above

    from exo.cli import bench, cluster, route, settings  # noqa: PLC0415 - as above
    from exo.cli.entry import CommandParser  # noqa: PLC0415 - as above

    parser = argparse.ArgumentParser(
        prog="exo", description="Serve language models on this machine. Alone: start the node."
    )
    parser.add_argument("--version", action="version", version=f"exo {__version__}")
    parser.add_argument(
        "--list-engines", action="store_const", dest="action", const=_list_engines, help=_LIST_ENGINES_HELP
    )
    _add_settings(parser, settings.SERVE_SETTINGS)
    parser.set_defaults(action=_serve)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=CommandParser)

    run = commands.add_parser("run", help="chat with a model in the terminal")
    run.add_argument("model", help="a model's id")
    run.add_argument("prompt", nargs="*", default=[], help="one question; without it a conversation")
    _add_settings(run, settings.RUN_SETTINGS, default=argparse.SUPPRESS)
    run.set_defaults(action=_run)

    models = commands.add_parser("models", help="list the known models and those in the store")
    _add_settings(models, settings.STORE_SETTINGS, default=argparse.SUPPRESS)
    models.set_defaults(action=_models)

    pull = commands.add_parser("pull", help="bring a model into the store")
    pull.add_argument("model", help="a model's id, or owner/repository/file.gguf[:name] of the hub")
    pull.add_argument("--force", action="store_true", help="replace a model of the same name")
    _add_settings(pull, settings.STORE_SETTINGS, default=argparse.SUPPRESS)
    pull.set_defaults(action=_pull)

    _add_key(commands)
    bench.add_to(commands)
    route.add_to(commands)
    cluster.add_to(commands)
    commands.add_parser("version", help="print the version").set_defaults(action=_version)
    _add_plugin_commands(commands, arguments)
    return parser


_LIST_ENGINES_HELP = "show each engine, whether it can run here, and if not why"


def _add_settings(parser: argparse.ArgumentParser, table: tuple[Setting, ...], *, default: str | None = None) -> None:
    for setting in table:
        setting.add_to(parser, default=default)


def _add_key(commands: argparse._SubParsersAction[CommandParser]) -> None:
    key = commands.add_parser("key", help="make an API key and the line for the key file")
    key.add_argument("name", help="whose key it is")
    key.add_argument(
        "--admin", action="store_true", help="it may pull, create, copy, delete, load and unload models too"
    )
    key.add_argument("--requests", metavar="N", help="requests that it may have under way at the same time")
    key.add_argument("--tokens", metavar="N", help="tokens that it may spend in a minute, prompts and answers together")
    key.set_defaults(action=_key)


def _add_plugin_commands(
    commands: argparse._SubParsersAction[CommandParser],
    arguments: Sequence[str],
) -> None:
    """A command that is broken or claims a taken name is named on stderr; the others work."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - see above

    from exo.cli.entry import CommandParser  # noqa: PLC0415 - as above

    wants_help = "-h" in arguments or "--help" in arguments
    for point in sorted(entry_points(group=COMMANDS_GROUP), key=lambda point: (point.name, point.value)):
        if not (wants_help or point.name in arguments):
            continue
        if point.name in commands.choices:
            print(f"exo: the command {point.name} ({point.value}) is left out: the name is taken", file=sys.stderr)
            continue
        try:
            command: Command = point.load()
            parser = CommandParser(prog=f"exo {point.name}", add_help=False)
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


def _key(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    from exo.cli import key  # noqa: PLC0415

    return key.run(flags, env)


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
