"""The command `rkllm-sim`: builds the library, writes models, lists the measured paces."""

# ruff: noqa: T201 - commands print

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from rkllm_facts.abi import SUPPORTED
from rkllm_facts.errors import FactsError
from rkllm_sim import __version__
from rkllm_sim.errors import SimulatorError
from rkllm_sim.model import LANGUAGE_MODELS, ModelOptions, write_model
from rkllm_sim.pace import Pace, pace, profiles

__all__ = ["main", "make_parser"]

_MODEL_TEXT = "Write the folder of a simulated model, as servers expect it below their folder of models."


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 with one sentence on stderr for an error that has a name."""
    flags = make_parser().parse_args(argv)
    action = cast("Callable[[argparse.Namespace], int]", flags.action)
    try:
        return action(flags)
    except (SimulatorError, FactsError) as error:
        print(f"rkllm-sim: {error}", file=sys.stderr)
    except BrokenPipeError:  # `rkllm-sim profiles | head`; the rest of the output goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        print(f"rkllm-sim: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
    return 2


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rkllm-sim", description="A stand-in for librkllmrt.so, for machines without an NPU."
    )
    parser.add_argument("--version", action="version", version=f"rkllm-sim {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    build = commands.add_parser("build", help="compile librkllmrt.so with gcc")
    build.add_argument(
        "--abi", required=True, help=f"the release whose symbols and structs it has, such as {', '.join(SUPPORTED)}"
    )
    build.add_argument("--output", required=True, type=Path, metavar="DIR", help="where librkllmrt.so goes")
    build.set_defaults(action=_build)

    model = commands.add_parser("model", help="write the folder of a simulated model", description=_MODEL_TEXT)
    _add_model_arguments(model)
    model.set_defaults(action=_model)

    profiles = commands.add_parser("profiles", help="list the paces that --pace knows by name")
    profiles.set_defaults(action=_profiles)
    return parser


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="the model's folder; its name is the model's")
    add("--lm", choices=LANGUAGE_MODELS, default="hash", help="what answers (default: hash)")
    add("--script", type=Path, metavar="FILE", help="records for --lm script")
    add("--gguf", type=Path, metavar="FILE", help="model for --lm llama; its tokenizer is taken too")
    add("--tokenizer", type=Path, metavar="FOLDER", help="take a real model's tokenizer (default: a small one)")
    add("--no-tokenizer", dest="with_tokenizer", action="store_false", help="no tokenizer files, as in old stores")
    add("--thinking", action="store_true", help="the small tokenizer's template of a reasoning model")
    add("--seed", type=int, metavar="N", help="another language (hash) or other samples (llama)")
    add("--answer", type=int, nargs=2, metavar=("MIN", "MAX"), help="length of answers in tokens (hash)")
    add(
        "--pace",
        metavar="PACE",
        help="PROFILE such as rk3588:qwen3-0.6b, or ms for a prompt token and a new one: 2.95,60",
    )
    add("--context", type=int, metavar="N", help="longest context in tokens (default: 4096)")
    add("--platform", metavar="CHIP", help="the chip that it is for (default: rk3588)")
    add("--toolkit", metavar="VERSION", help="the toolkit that has made it (default: 1.2.0)")
    add("--fault", dest="faults", action="append", metavar="SPEC", help='NAME[=VALUE] [when "SUBSTRING"]; repeatable')
    add("--name", metavar="NAME", help="the file's name without .rkllm (default: the folder's)")


def _build(flags: argparse.Namespace) -> int:
    from rkllm_sim.build import build  # noqa: PLC0415 - writing a model needs no compiler's knowledge

    print(build(flags.abi, flags.output))
    return 0


def _model(flags: argparse.Namespace) -> int:
    names = {field.name for field in dataclasses.fields(ModelOptions)}
    chosen: dict[str, Any] = {name: value for name, value in vars(flags).items() if name in names and value is not None}
    for name in {"answer", "faults"} & chosen.keys():
        chosen[name] = tuple(chosen[name])
    if flags.script is not None:
        chosen["script"] = flags.script.read_text(encoding="utf-8")
    if flags.pace is not None:
        figures = pace(flags.pace)
        chosen = {**figures.model_options(), **chosen}
        print(f"pace: {_figures(figures)}")
    print(write_model(flags.folder, **chosen))
    return 0


def _profiles(flags: argparse.Namespace) -> int:  # noqa: ARG001 - a command's shape
    width = max(len(one.source) for one in profiles())
    for one in profiles():
        print(_figures(one, width))
    sys.stdout.flush()
    return 0


def _figures(figures: Pace, width: int = 0) -> str:
    name = f"{figures.source:{width}}  " if figures.source else ""
    memory = "" if figures.memory_mb is None else f", {figures.memory_mb:.0f} MB"
    return f"{name}{figures.prefill_ms:.2f} ms for a prompt token, {figures.decode_ms:.2f} ms for a new one{memory}"
