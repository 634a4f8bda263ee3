"""The command `rkllama`: parses the command line and calls the part that does the work."""

from __future__ import annotations

# Only what is light is imported here, the rest inside functions: Ctrl-C before `main` begins is a traceback.
import os

from exo_rkllm import __version__

TYPE_CHECKING = False  # typing is not light
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

    from exo.cli.entry import CommandParser
    from exo.cli.settings import Setting

    Action = Callable[[argparse.Namespace, Mapping[str, str]], int]


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code, see exo.cli.entry.run_command."""
    try:
        from exo.cli.entry import run_command  # noqa: PLC0415 - see above
    except KeyboardInterrupt:
        return 130

    def work() -> int:
        flags = make_parser().parse_args(argv)
        action: Action = flags.action
        return action(flags, os.environ)

    return run_command("rkllama", work)


def make_parser() -> argparse.ArgumentParser:
    import argparse  # noqa: PLC0415 - see above

    from exo.cli.entry import CommandParser  # noqa: PLC0415 - as above
    from exo_rkllm.cli.settings import SERVE_SETTINGS  # noqa: PLC0415 - as above

    parser = argparse.ArgumentParser(
        prog="rkllama", description="Serve the models of a Rockchip board, and manage them."
    )
    parser.add_argument("--version", action="version", version=f"rkllama {__version__}")
    parser.set_defaults(action=lambda *_: _help(parser))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=CommandParser)

    _add(commands, "serve", "start the server", _serve, SERVE_SETTINGS)
    _add(commands, "list", "list the models", _list, aliases=("ls",))
    _add(commands, "ps", "list the models that are loaded", _ps)

    run = _add(commands, "run", "chat with a model in the terminal", _run)
    run.add_argument("model", help="a model's name")
    run.add_argument("prompt", nargs="*", default=[], help="one question; without it a conversation")

    show = _add(commands, "show", "tell about a model", _show)
    show.add_argument("model", help="a model's name")
    only = show.add_mutually_exclusive_group()
    for part in ("modelfile", "parameters", "template", "system", "license"):
        only.add_argument(f"--{part}", dest="part", action="store_const", const=part, help=f"only the {part}")

    _add_changes(commands)

    stop = _add(commands, "stop", "unload a model", _stop)
    stop.add_argument("model", help="a model's name")
    return parser


def _add_changes(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """The commands that change the store."""
    pull = _add(commands, "pull", "bring a model from the hub", _pull)
    pull.add_argument(
        "reference", help="owner/repository/file.rkllm, with :NAME if it is to have another name; or a card's id"
    )
    pull.add_argument("--force", action="store_true", help="replace a model of the same name")
    pull.add_argument(
        "--tokenizer", action="store_true", help="bring the tokenizer files of a model that is there, by its name"
    )
    pull.add_argument("--from", dest="original", metavar="OWNER/REPOSITORY", help="where --tokenizer finds them")

    create = _add(commands, "create", "make a model from a Modelfile", _create)
    create.add_argument("name", help="the new model's name")
    create.add_argument("-f", "--file", default="Modelfile", help="the Modelfile, default ./Modelfile; - for stdin")
    create.add_argument("--force", action="store_true", help="replace a model of the same name")

    copy = _add(commands, "cp", "copy a model", _copy)
    copy.add_argument("source", help="a model's name")
    copy.add_argument("destination", help="the copy's name")
    copy.add_argument("--force", action="store_true", help="replace a model of the same name")

    remove = _add(commands, "rm", "delete models", _remove)
    remove.add_argument("names", nargs="+", metavar="model", help="a model's name")


def _add(
    commands: argparse._SubParsersAction[CommandParser],
    name: str,
    text: str,
    action: Action,
    table: tuple[Setting, ...] = (),
    *,
    aliases: Sequence[str] = (),
) -> argparse.ArgumentParser:
    from exo_rkllm.cli.settings import CLIENT_SETTINGS  # noqa: PLC0415 - see above

    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", aliases=aliases)
    for setting in table or CLIENT_SETTINGS:
        setting.add_to(parser)
    parser.set_defaults(action=action)
    return parser


def _help(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return 0


# The commands are imported when they are called: `rkllama ps` has no need of a web server.


def _serve(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    from exo_rkllm.cli import serve  # noqa: PLC0415

    return serve.run(flags, env)


def _run(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    from exo_rkllm.cli import run  # noqa: PLC0415

    return run.run(flags, env)


def _models(name: str) -> Action:
    def action(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
        from exo_rkllm.cli import models  # noqa: PLC0415

        command: Action = getattr(models, name)
        return command(flags, env)

    return action


_list = _models("list_models")
_ps = _models("list_running")
_show = _models("show")
_pull = _models("pull")
_create = _models("create")
_copy = _models("copy")
_remove = _models("remove")
_stop = _models("stop")
