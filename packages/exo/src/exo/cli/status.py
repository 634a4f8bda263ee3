"""The live status line on a terminal."""

from __future__ import annotations

import asyncio

from rich.console import Console
from rich.live import Live
from rich.text import Text

from exo import __version__
from exo.inference import InferenceService

_INTERVAL = 0.5


async def show_status(service: InferenceService, url: str) -> None:
    """Redraw until cancelled. Log lines scroll above the status line."""
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True, redirect_stdout=False) as live:
        while True:
            live.update(await status_text(service, url), refresh=True)
            await asyncio.sleep(_INTERVAL)


async def status_text(service: InferenceService, url: str) -> Text:
    state = await service.readiness()
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f" exo {__version__} ", style="reverse")
    text.append(f" {url} ")
    text.append("● ready " if state.ready else "● not ready ", style="green" if state.ready else "yellow")
    text.append(f" {service.engine.name}: {', '.join(state.loaded) or 'no model loaded'}")
    text.append(f"  running {state.running}/{state.slots}  queued {state.queued}")
    return text
