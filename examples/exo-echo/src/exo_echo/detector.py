"""The device detector: tells a node that starts whether the hardware is there."""

from __future__ import annotations

import os

DEVICE_VARIABLE = "EXO_ECHO_DEVICE"


def detect() -> str | None:
    """The name of the device, or None. A real detector looks at files below /dev, /proc or /sys."""
    return "Echo Box" if os.environ.get(DEVICE_VARIABLE) == "1" else None
