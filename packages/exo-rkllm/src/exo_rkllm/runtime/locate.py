"""Where librkllmrt.so lies, and what its file says of its version. Nothing is loaded here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from exo_rkllm.runtime.errors import LibraryNotFound, LibraryNotLoadable
from rkllm_facts.abi import MarkerScanner

LIBRARY_NAME = "librkllmrt.so"
_SYSTEM_FOLDERS = ("usr/lib", "usr/lib/aarch64-linux-gnu", "usr/local/lib")
_PIECE = 1 << 18


def find_library(env: Mapping[str, str], *, root: Path = Path("/")) -> Path:
    """The library to use: what RKLLM_LIB names (the file, or a folder that holds librkllmrt.so), else the first of
    `$RKLLAMA_HOME/lib` (~/RKLLAMA/lib if that is not set), /usr/lib, /usr/lib/aarch64-linux-gnu and /usr/local/lib.

    `root` stands for / in the system's folders. Raises LibraryNotFound, which names every place; an RKLLM_LIB that
    leads nowhere is an error, too, for another library than the one asked for would be a surprise.
    """
    named = env.get("RKLLM_LIB", "").strip()
    if named:
        path = _below_home(named, env)
        file = path / LIBRARY_NAME if path.is_dir() else path
        if file.is_file():
            return file
        what = f"that folder holds no {LIBRARY_NAME}" if path.is_dir() else "there is no such file"
        raise LibraryNotFound(f"RKLLM_LIB is {named!r}, but {what}.", [file])
    places = list(_places(env, root))
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise LibraryNotFound(f"There is no {LIBRARY_NAME} on this system.", places)
    return found


def library_marker(path: Path) -> str | None:
    """The version in the marker that the file holds, such as `1.2.3`; None if it has none. The file is read in pieces
    up to the marker. Raises LibraryNotFound, LibraryNotLoadable if it cannot be read."""
    scanner = MarkerScanner()
    try:
        with path.open("rb") as file:
            while scanner.version is None and (piece := file.read(_PIECE)):
                scanner.feed(piece)
    except OSError as error:
        raise unreadable(path, error) from error
    return scanner.version


def unreadable(path: Path, error: OSError) -> LibraryNotFound | LibraryNotLoadable:
    """What to raise for a library that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return LibraryNotFound(f"There is no file {path}.", [path])
    return LibraryNotLoadable(path, f"it cannot be read: {error.strerror}. Make it readable for this user.")


def _places(env: Mapping[str, str], root: Path) -> Iterator[Path]:
    home = env.get("RKLLAMA_HOME", "").strip() or "~/RKLLAMA"
    yield _below_home(home, env) / "lib" / LIBRARY_NAME
    for folder in _SYSTEM_FOLDERS:
        yield root / folder / LIBRARY_NAME


def _below_home(text: str, env: Mapping[str, str]) -> Path:
    """A leading `~` means the HOME of `env`, which need not be the one of this process."""
    home = env.get("HOME", "").strip()
    if home and (text == "~" or text.startswith("~/")):
        return Path(home) / text[2:]
    return Path(text).expanduser()
