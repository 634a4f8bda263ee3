"""`exo cluster watch`: a running HAProxy gets the nodes that come, and loses those that go."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Mapping
from pathlib import Path

from exo.cli import logs
from exo.cluster.proxy.watch import watching


def run(flags: argparse.Namespace, env: Mapping[str, str]) -> int:  # noqa: ARG001 - a command's shape
    logs.set_up("info", as_json=False)
    asyncio.run(_watch(Path(flags.inventory).expanduser(), once=flags.once))
    return 0


async def _watch(path: Path, *, once: bool) -> None:
    """Until SIGTERM or Ctrl-C, which are no failure."""
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    async with watching(path) as watch:
        work = asyncio.create_task(watch.once() if once else watch.run(), name="watch")
        stop = asyncio.create_task(ending.wait(), name="signal")
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
        finally:
            for task in (work, stop):
                task.cancel()
            await asyncio.gather(work, stop, return_exceptions=True)
