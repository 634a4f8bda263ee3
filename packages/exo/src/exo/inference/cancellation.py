"""Taking back a cancellation that stood for something else, such as a deadline or a client that went away."""

from __future__ import annotations

import asyncio


def take_back_cancellation() -> bool:
    """Uncount one cancellation of this task (Python 3.11 and later count); False if somebody else cancelled it too."""
    uncancel = getattr(asyncio.current_task(), "uncancel", None)
    return uncancel is None or uncancel() == 0
