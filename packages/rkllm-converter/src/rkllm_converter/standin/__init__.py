"""A stand-in for Rockchip's toolkit, to try a conversion without it: it judges every call, and converts nothing.

What it writes is a model for the simulator of the runtime library (rkllm-sim), not for a board.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

__all__ = ["write_stand_in"]

_MODULES = ("api.py", "legal.py", "model_file.py", "weights.py")
_VERSION = re.compile(r"[0-9]+(\.[0-9]+)+[0-9A-Za-z.+]*", re.ASCII)


def write_stand_in(folder: Path, version: str) -> Path:
    """Write the package and what importlib.metadata looks for; to be used with PYTHONPATH=folder. Returns the folder.

    One of a release before 1.3.0 behaves as 1.2.3, any other one as 1.3.0.
    """
    if _VERSION.fullmatch(version) is None:
        raise ValueError(f"{version!r} is no version of a toolkit.")
    package = folder / "rkllm"
    metadata = folder / f"rkllm_toolkit-{version}.dist-info"
    for old in folder.glob("rkllm_toolkit-*.dist-info/METADATA"):
        old.unlink()
        old.parent.rmdir()
    package.mkdir(parents=True, exist_ok=True)
    metadata.mkdir()
    for name in _MODULES:
        (package / name).write_text(resources.files(__name__).joinpath(name).read_text("utf-8"), encoding="utf-8")
    (package / "__init__.py").write_text('"""A stand-in for Rockchip\'s toolkit."""\n', encoding="utf-8")
    text = f"Metadata-Version: 2.1\nName: rkllm-toolkit\nVersion: {version}\nSummary: a stand-in, converts nothing\n"
    (metadata / "METADATA").write_text(text, encoding="utf-8")
    return folder
