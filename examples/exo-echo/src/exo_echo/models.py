"""The cards of the models that this package brings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exo.types import ModelCard

MODELS: Mapping[str, Any] = {
    "echo-small": ModelCard(
        id="echo-small",
        display_name="Echo, small",
        family="echo",
        context_length=256,
        files={"echo": "built in"},
        licence="Apache-2.0",
        aliases=("echo",),
    ),
    "echo-wide": {"layers": 1, "repo": {"EchoEngine": "example-hub/echo-wide"}},
}
