"""The environment of processes that have the toolkit in them."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["environment"]

_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""The toolkit is closed, and needs no hub: the model is here by then."""


def environment() -> dict[str, str]:
    """That of this process without the tokens of the hub, and with PYTHONPATH fit for any working directory."""
    found = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    if found.get("PYTHONPATH"):
        entries = found["PYTHONPATH"].split(os.pathsep)
        found["PYTHONPATH"] = os.pathsep.join(str(Path(one).absolute()) for one in entries)
    return found
