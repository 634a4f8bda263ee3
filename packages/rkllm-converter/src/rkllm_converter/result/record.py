"""conversion.json: from what, with what and how a folder was made, and what has to be in it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rkllm_converter.errors import VerifyFailed

__all__ = ["FILE_NAME", "FileRecord", "Record", "hash_file", "identity", "read_record", "write_record"]

FILE_NAME = "conversion.json"
_FORMAT = 1
_CHUNK = 1 << 20
_LARGEST = 4 << 20
_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "identity": str,
    "converter": str,
    "toolkit": str,
    "is_stand_in": bool,
    "python": str,
    "source": dict,
    "options": dict,
    "inputs": dict,
    "ignored": list,
    "began": str,
    "seconds": (int, float),
    "files": dict,
}


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of the folder: its size in bytes, and its SHA-256 in hexadecimal."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        return cls(path.stat().st_size, hash_file(path))


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What conversion.json says.

    - `identity`: a hash of everything that decides what comes out (see `identity`)
    - `converter`, `toolkit`, `python`: versions; `is_stand_in`: the toolkit was a stand-in, so the model is none
    - `source`: the model, its repository, the commit's hash, or a fingerprint of a local folder
    - `options`: what the toolkit was given; `inputs`: everything that decides what comes out, with the hashes of files
    - `ignored`: kinds of problems that a person has passed over; `calibration`: hash, number of samples and seed
    - `began`: UTC, ISO 8601; `seconds`: how long it took, the download included
    - `files`: by name, without conversion.json itself
    """

    identity: str
    converter: str
    toolkit: str
    is_stand_in: bool
    python: str
    source: Mapping[str, Any]
    options: Mapping[str, Any]
    inputs: Mapping[str, Any]
    ignored: Sequence[str]
    calibration: Mapping[str, Any] | None
    began: str
    seconds: float
    files: Mapping[str, FileRecord]


def identity(parts: Mapping[str, Any]) -> str:
    """A hash of JSON values, whatever their order: two conversions with the same one need not both be run."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 in hexadecimal."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
    return sha256.hexdigest()


def write_record(folder: Path, record: Record) -> None:
    text = json.dumps({"format": _FORMAT, **dataclasses.asdict(record)}, indent=2, ensure_ascii=False)
    (folder / FILE_NAME).write_text(f"{text}\n", encoding="utf-8")


def read_record(folder: Path) -> Record | None:
    """None if the folder has no conversion.json. Raises VerifyFailed for one that makes no sense."""
    path = folder / FILE_NAME
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise VerifyFailed(f"{path} is no plain file.")
            content = file.read(_LARGEST)
        return _record(json.loads(content))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise VerifyFailed(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise VerifyFailed(f"{path} is damaged, or of another program ({type(error).__name__}).") from None


def _record(said: dict[str, Any]) -> Record:
    if said["format"] != _FORMAT:
        raise ValueError("another format")
    for name, kind in _KINDS.items():
        if not isinstance(said[name], kind) or isinstance(said[name], bool) is not (kind is bool):
            raise TypeError(name)
    calibration = said["calibration"]
    if calibration is not None and not isinstance(calibration, dict):
        raise TypeError("calibration")
    return Record(
        files={_inside(name): _file(one) for name, one in said["files"].items()},
        calibration=calibration,
        **{name: said[name] for name in _KINDS if name != "files"},
    )


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not name or "\0" in name:
        raise ValueError("a file elsewhere")
    return name


def _file(one: dict[str, Any]) -> FileRecord:
    if type(one["bytes"]) is not int or not isinstance(one["sha256"], str):
        raise TypeError("no file")
    return FileRecord(one["bytes"], one["sha256"])
