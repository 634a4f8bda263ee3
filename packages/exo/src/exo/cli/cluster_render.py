"""`exo cluster render`: the configuration files of the programs around the nodes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from exo.cluster.render import render


def run(flags: argparse.Namespace, env: Mapping[str, str]) -> int:  # noqa: ARG001 - a command's shape
    for file in render(flags.kind, Path(flags.inventory)):
        path = file.write(Path(flags.output))
        print(f"{path}{'  (for its owner only: it has a key in it)' if file.has_secret else ''}")
    return 0
