"""`exo plan`: how fast a model would run on a board, and whether it fits, before anybody has converted it."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from exo.types import ConfigurationError
from rkllm_facts.chips import CHIPS, chip, legal_types
from rkllm_facts.errors import FactsError

_MB = {"m": 1, "g": 1024}
_DEFAULT_PLATFORM = "rk3588"


class PlanCommand:
    """What `exo` asks of a command."""

    help = "predict speed and memory of a model on a Rockchip board, and say whether it fits"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "model", help="a known model's name, a folder with a config.json, a config.json, or a .gguf file"
        )
        parser.add_argument("--platform", metavar="CHIP", help=f"one of {_chips()}; this board's if it is one")
        parser.add_argument(
            "--quant", metavar="TYPE", help="quantisation, such as w8a8; the chip's usual one if not given"
        )
        parser.add_argument("--context", type=int, default=4096, metavar="N", help="tokens of context (4096)")
        parser.add_argument("--prompt", type=int, default=128, metavar="N", help="tokens of the prompt (128)")
        parser.add_argument("--ram", metavar="SIZE", help="the board's memory, such as 8G; this board's if it is one")
        parser.add_argument(
            "--no-embed-flash", action="store_true", help="with the embeddings in memory, not read from the file"
        )
        parser.add_argument("--json", action="store_true", help="one JSON object")
        parser.add_argument("--all", action="store_true", help="every type that the chip runs")

    def run(self, flags: argparse.Namespace, env: Mapping[str, str]) -> int:
        """Raises ConfigurationError for a model, a chip, a type or a size that cannot be used."""
        # What this needs is imported only when the command is used.
        from exo_rkllm.cli import plan_output  # noqa: PLC0415
        from exo_rkllm.cli.plan_model import find_model  # noqa: PLC0415
        from rkllm_facts.planner import plan, usual_type  # noqa: PLC0415

        board = _board(flags, env)
        try:
            model = find_model(flags.model)
            quant = flags.quant or usual_type(board.platform)
            quants = legal_types(board.platform) if flags.all or not (flags.quant or flags.json) else (quant,)
            plans = {
                one: plan(
                    model.architecture,
                    platform=board.platform,
                    dtype=one,
                    context=flags.context,
                    prompt_tokens=flags.prompt,
                    ram_mb=board.ram_mb,
                    embed_flash=not flags.no_embed_flash,
                )
                for one in dict.fromkeys((quant, *quants))
            }
        except FactsError as error:
            raise ConfigurationError(error.message) from error
        if flags.json:
            found = plan_output.record(model.name, plans.pop(quant))
            if flags.all:
                found["others"] = [plan_output.record(model.name, one) for one in plans.values()]
            json.dump(found, sys.stdout, indent=2)
            print()
        else:
            plan_output.show(model.name, list(plans.values()), board.where)
        return 0


@dataclass(frozen=True)
class _Board:
    """`ram_mb` is None where it is not known; `where` is for people, and says why it is this chip if no flag does."""

    platform: str
    ram_mb: float | None
    where: str


def _board(flags: argparse.Namespace, env: Mapping[str, str]) -> _Board:
    """What the flags say, else what this machine is, if it is a board."""
    from exo_rkllm.detection import read_board, root_from  # noqa: PLC0415 - as in `run`
    from exo_rkllm.memory import MIB, installed  # noqa: PLC0415 - as in `run`

    here = read_board(env).chip
    try:
        platform = chip(flags.platform or here or _DEFAULT_PLATFORM).target_platform
    except FactsError as error:
        raise ConfigurationError(error.message) from error
    found = installed(root_from(env)) if platform == here else None
    ram = memory_size(flags.ram) if flags.ram is not None else found / MIB if found else None
    name = chip(platform).name
    if flags.platform is not None:
        return _Board(platform, ram, "")
    if here is None:
        return _Board(
            platform, ram, f"This machine is no Rockchip board, so {name} is taken: --platform names another."
        )
    return _Board(platform, ram, f"This board has the chip {name}.")


def memory_size(text: str) -> float:
    """MB of `8G`, `8192M` or `8GiB`. Raises ConfigurationError."""
    found = re.fullmatch(r"([0-9]{1,7}(?:\.[0-9]{1,3})?) ?([mg])i?b?", text.strip().lower(), re.ASCII)
    if not found or float(found[1]) == 0:
        raise ConfigurationError(f"--ram: {text!r} is no size of memory: say 8G or 8192M.")
    return float(found[1]) * _MB[found[2]]


def _chips() -> str:
    return ", ".join(one.name.lower() for one in CHIPS)


COMMAND = PlanCommand()
