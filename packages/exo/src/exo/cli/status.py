"""The live status line on a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
import threading

from rich.console import Console
from rich.live import Live
from rich.text import Text

from exo.inference import InferenceService

_INTERVAL = 0.5
_ECHO = 6
"""Columns that stay free, where the terminal shows ^C: on the next line it would leave the status line behind."""


async def show_status(service: InferenceService, title: str, url: str) -> None:
    """Redraw until cancelled. `title` is the program's name and version. Log lines scroll above the status line.

    It begins after half a second: before, nobody has begun to load the default model.
    """
    console = Console(file=sys.stderr)
    live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)
    with live, contextlib.redirect_stderr(_Above(console)):
        while True:
            await asyncio.sleep(_INTERVAL)
            text = await status_text(service, title, url)
            text.truncate(max(console.width - _ECHO, 1), overflow="ellipsis")
            live.update(text, refresh=True)


async def status_text(service: InferenceService, title: str, url: str) -> Text:
    """What matters most is at the left: the right end may be cut."""
    state = await service.readiness()
    text = Text(no_wrap=True)
    text.append(f" {title} ", style="reverse")
    text.append(f" running {state.running}/{state.slots}  queued {state.queued} ")
    if state.ready:
        text.append(" ● ready", style="green")
        text.append(f"  {service.engine.name}: {', '.join(state.loaded) or 'no model loaded'}")
    else:
        text.append(f" ● {state.reason}", style="yellow")
    text.append(f"  {url}")
    return text


class _Above(io.TextIOBase):
    """Whole lines to a console, above what lives on it. The terminal folds them, so that a path can be copied."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._console.print(line, soft_wrap=True, markup=False, highlight=False, emoji=False)
        return len(text)

    def isatty(self) -> bool:
        return True
