"""The command `exo echo-info`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from exo_echo import __version__
from exo_echo.detector import DEVICE_VARIABLE, detect
from exo_echo.models import MODELS


class EchoInfo:
    """What `exo` asks of a command: `help`, `configure` and `run`."""

    help = "show the device and the models of exo-echo"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--models", action="store_true", help="print the ids of the models and nothing else")

    def run(self, flags: argparse.Namespace, env: Mapping[str, str]) -> int:  # noqa: ARG002 - the shape of a command
        if not flags.models:
            print(f"exo-echo {__version__}")
            device = detect() or f"none ({DEVICE_VARIABLE}=1 pretends that there is one)"
            print(f"device: {device}")
        print(*MODELS, sep="\n")
        return 0


COMMAND = EchoInfo()
