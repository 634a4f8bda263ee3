"""`rkllm-convert` with a batch that calls converter_fake_model.py: `converter_batch_program.py BEHAVIOUR batch ...`.

It finds a toolkit 1.3.0 in every Python, unless BEHAVIOUR/toolkit names another version, or has nothing in it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rkllm_converter.batch import running
from rkllm_converter.cli.main import main
from rkllm_converter.errors import ToolkitMissing
from rkllm_converter.toolkit import door

FAKE = Path(__file__).with_name("converter_fake_model.py")


def find(python: str | None = None) -> Any:
    file = Path(sys.argv[1], "toolkit")
    version = file.read_text(encoding="utf-8") if file.exists() else "1.3.0"
    if not version:
        raise ToolkitMissing(f"{python or 'this one'} has none.")
    return SimpleNamespace(version=version)


if __name__ == "__main__":
    door.find = find
    running.PROGRAM = (sys.executable, str(FAKE), sys.argv[1])
    raise SystemExit(main(sys.argv[2:]))
