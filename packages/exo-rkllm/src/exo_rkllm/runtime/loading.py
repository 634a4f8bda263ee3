"""Loading a shared library, with words for every way in which that fails."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

from exo_rkllm.runtime.elf import why_not_loadable
from exo_rkllm.runtime.errors import LibraryNotLoadable
from exo_rkllm.runtime.locate import unreadable

_NEEDED = re.compile(r"(\S+): cannot open shared object file: No such file or directory")
_HEAD = 64


def load(path: Path) -> ctypes.CDLL:
    """The library at `path`. A library that it needs and the system lacks (libomp.so) may lie beside it: that one is
    loaded first then. Raises LibraryNotFound, LibraryNotLoadable."""
    path = path.absolute()
    check(path)
    return _open(path, [])


def check(path: Path) -> None:
    """Whether the file looks like a library for this machine. Raises LibraryNotFound, LibraryNotLoadable."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise unreadable(path, error) from error
    problem = why_not_loadable(head)
    if problem is not None:
        raise LibraryNotLoadable(path, problem)


def _open(path: Path, loaded: list[str]) -> ctypes.CDLL:
    """`loaded` are the names that were loaded from beside `path` for its sake."""
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        found = _NEEDED.search(str(error))
        if found is None:
            problem = f"the system's loader says {str(error)!r}. It may be damaged, or made for a newer system."
            raise LibraryNotLoadable(path, problem) from error
        missing = found[1]
        beside = path.parent / Path(missing).name
        if missing in loaded or not beside.is_file():
            raise LibraryNotLoadable(path, _advice(path, missing, loaded), missing=missing) from error
    _preload(path, beside)
    return _open(path, [*loaded, missing])


def _preload(path: Path, needed: Path) -> None:
    try:
        ctypes.CDLL(str(needed), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        problem = f"it needs {needed.name}; the one beside it does not load: {error}. Put one for this machine there."
        raise LibraryNotLoadable(path, problem, missing=needed.name) from error


def _advice(path: Path, missing: str, loaded: list[str]) -> str:
    if missing in loaded:
        return (
            f"it needs {missing}; the file of that name beside it has another name inside (SONAME). "
            f"Put one there that is called {missing} inside, or start with LD_LIBRARY_PATH={path.parent}."
        )
    return (
        f"it needs {missing}, which this system does not have. Put {missing} beside it, into {path.parent}, or install "
        "the package that brings it."
    )
