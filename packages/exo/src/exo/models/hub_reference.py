"""What somebody writes to name a model on the hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

from exo.types import NothingToPull

DEFAULT_REVISION = "main"
_PREFIX = re.compile(
    r"(?:https?://(?:www\.)?(?:huggingface\.co|hf\.co)/|(?:huggingface\.co|hf\.co|huggingface|hf)/)", re.IGNORECASE
)
_REPOSITORY_PART = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?", re.ASCII)
_NO_NAME = re.compile(r"[^A-Za-z0-9._:+-]+", re.ASCII)
_LONGEST_NAME = 100
_LONGEST_FILE_NAME = 200  # bytes; a file that is not complete has a longer name, and file systems allow 255


@dataclass(frozen=True)
class HubReference:
    """A model on the hub. `file` is a path inside the repository, or empty for the only model file that it holds.

    `name` is what the model is to be called in the store; empty as long as the file is not known.
    """

    owner: str
    repository: str
    file: str = ""
    name: str = ""
    revision: str = DEFAULT_REVISION

    @property
    def repo_id(self) -> str:
        return f"{self.owner}/{self.repository}"

    @classmethod
    def parse(cls, text: str) -> HubReference:
        """Read `owner/repo`, `owner/repo/path/file` or the address of a page or a file on the hub, each with `:name`.

        `hf/`, `hf.co/`, `huggingface/` and `huggingface.co/` may stand before it; a repository of an owner with one of
        these names needs another one before it. Raises NothingToPull for anything else.
        """
        address = text.strip()
        prefix = _PREFIX.match(address)
        path = address[prefix.end() :] if prefix else address
        if prefix and "://" in prefix[0]:
            path = unquote(re.split(r"[?#]", path, maxsplit=1)[0]).rstrip("/")
        *folders, last = path.split("/")
        last, colon, name = last.partition(":")
        owner, repository, revision, parts = _split([*folders, last])
        parsed = cls(owner, repository, "/".join(parts), name, revision)
        if (colon and not name) or not revision or not all(map(_is_repository_part, (owner, repository))):
            raise _no_reference(text)
        if parts and not is_safe(parsed.file):
            raise _no_reference(text)
        return parsed if name or not parts else cls(owner, repository, parsed.file, name_of(parsed.file), revision)


def name_of(file: str) -> str:
    """The name that a model gets from its file: the stem, with `-` for what a model's name may not have."""
    stem = PurePosixPath(file).stem
    name = _NO_NAME.sub("-", stem)[:_LONGEST_NAME].strip("._:+-")
    if not name:
        raise NothingToPull(f"The file {file!r} gives no name for the model: write :name behind the reference.")
    return name


def is_safe(path: str) -> bool:
    """Whether a path in a repository stays inside it, and its last part can be the name of a file here."""
    parts = path.split("/")
    return (
        all(part not in {"", ".", ".."} for part in parts)
        and "\\" not in path
        and path.isprintable()
        and not parts[-1].startswith(".")
        and len(parts[-1].encode()) <= _LONGEST_FILE_NAME
    )


def _split(parts: list[str]) -> tuple[str, str, str, list[str]]:
    """Owner, repository, revision and the rest; the owner is empty if there are too few parts."""
    if len(parts) < 2:
        return "", "", DEFAULT_REVISION, []
    owner, repository, *rest = parts
    if len(rest) > 2 and rest[0] in {"resolve", "blob"}:
        return owner, repository, *_revision(rest[1:])
    if len(rest) > 1 and rest[0] == "tree":
        revision, folder = _revision(rest[1:])
        return ("", "", revision, []) if folder else (owner, repository, revision, [])
    return owner, repository, DEFAULT_REVISION, rest


def _revision(parts: list[str]) -> tuple[str, list[str]]:
    """A branch, tag or commit, and what stands behind it; the hub's own `refs/pr/1` has slashes."""
    length = 3 if parts[0] == "refs" and len(parts) > 2 else 1
    return "/".join(parts[:length]), parts[length:]


def _is_repository_part(part: str) -> bool:
    return _REPOSITORY_PART.fullmatch(part) is not None and not part.endswith(".git")


def _no_reference(text: str) -> NothingToPull:
    return NothingToPull(
        f"{text!r} names no model on the hub: write owner/repo/path/to/file, owner/repo for a repository with one "
        "model, or https://huggingface.co/owner/repo/resolve/main/file; :name behind it gives the model another name."
    )
