"""conversion.json: from what, with what and how a folder was made, and what has to be in it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rkllm_converter.errors import VerifyFailed

__all__ = ["FILE_NAME", "FileRecord", "Record", "hash_file", "identity", "read_record", "write_record"]

FILE_NAME = "conversion.json"
_FORMAT = 1
_CHUNK = 1 << 20
_LARGEST = 4 << 20


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
    - `options`: what the toolkit was given; `calibration`: hash, number of samples and seed
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
        with path.open("rb") as file:
            content = file.read(_LARGEST)
        return _record(json.loads(content))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise VerifyFailed(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise VerifyFailed(
            f"{path} is damaged ({type(error).__name__}). Convert the model again, with --force."
        ) from None


def _record(said: dict[str, Any]) -> Record:
    if said.pop("format") != _FORMAT:
        raise ValueError("another format")
    files = {name: FileRecord(int(one["bytes"]), str(one["sha256"])) for name, one in said.pop("files").items()}
    known = {field.name for field in dataclasses.fields(Record)}
    record = Record(files=files, **{name: value for name, value in said.items() if name in known})
    if any(PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts for name in files):
        raise ValueError("a file elsewhere")
    if not all(isinstance(one, Mapping) for one in (record.source, record.options)):
        raise TypeError("no mapping")
    return record
