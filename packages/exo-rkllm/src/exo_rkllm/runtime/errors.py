"""What can go wrong between this package and librkllmrt.so.

NpuError
├── LibraryNotFound      there is no library at any place that was looked at
├── LibraryNotLoadable   there is a file, but the system does not load it: wrong machine, a library it needs is missing
├── SymbolMissing        the library is loaded, but lacks functions that its version has to have
├── VersionUnknown       which interface the library has cannot be told, or it is one that is not supported
├── LayoutMismatch       the structs that were built from a table are not laid out as the table says
├── LoadFailed           rkllm_init did not load a model
├── CallFailed           any other function returned something else than 0, or not what it was called for
├── NotInThisVersion     asked for something that this version of the library does not have
├── ModelBusy            asked for something that has to wait for the end of a run
└── ModelDestroyed       the model was destroyed before
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "CallFailed",
    "LayoutMismatch",
    "LibraryNotFound",
    "LibraryNotLoadable",
    "LoadFailed",
    "ModelBusy",
    "ModelDestroyed",
    "NotInThisVersion",
    "NpuError",
    "SymbolMissing",
    "VersionUnknown",
]


class NpuError(Exception):
    """Base of every error that exo_rkllm.runtime raises on purpose, wrong arguments (ValueError) aside."""

    def __init__(self, message: str, advice: str = "") -> None:
        """`advice` is for where nothing else tells the cause."""
        super().__init__(f"{message} {advice}".rstrip())
        self.message = message
        self.advice = advice


class LibraryNotFound(NpuError):
    """There is no librkllmrt.so at any of `places`."""

    def __init__(self, problem: str, places: Iterable[Path]) -> None:
        self.places = tuple(places)
        looked = ", ".join(str(place) for place in self.places)
        super().__init__(f"{problem} Looked at: {looked}. Set RKLLM_LIB to the file or to the folder that holds it.")


class LibraryNotLoadable(NpuError):
    """The file at `path` is there, but cannot be loaded as a library. `missing` names a library that it needs."""

    def __init__(self, path: Path, problem: str, *, missing: str | None = None) -> None:
        self.path = path
        self.missing = missing
        super().__init__(f"The library {path} cannot be loaded: {problem}")


class SymbolMissing(NpuError):
    """The library at `path` lacks `missing`, functions that the layout `layout` has."""

    def __init__(self, path: Path, layout: str, reason: str, missing: Iterable[str]) -> None:
        self.path = path
        self.layout = layout
        self.missing = tuple(missing)
        super().__init__(
            f"The library {path} does not export {', '.join(self.missing)}, which the interface {layout} has "
            f"({reason}). The file is damaged, or of another version: install a librkllmrt.so of a supported release."
        )


class VersionUnknown(NpuError):
    """The interface of the library at `path` is not known or not supported. `version` is what its marker says."""

    def __init__(self, path: Path, version: str | None, problem: str, advice: str) -> None:
        self.path = path
        self.version = version
        super().__init__(f"{path}: {problem} {advice}")


class LayoutMismatch(NpuError):
    """What ctypes made of the table `layout` differs from it: calls with such structs would corrupt memory."""

    def __init__(self, layout: str, differences: Iterable[str]) -> None:
        self.layout = layout
        self.differences = tuple(differences)
        super().__init__(
            f"The structs for librkllmrt {layout} differ from their table: {'; '.join(self.differences)}. "
            "Nothing was called. It takes a 64-bit Python on a 64-bit system; if this is one, please report it."
        )


class LoadFailed(NpuError):
    """rkllm_init did not load the model at `model`. `code` is what it returned; None if it was not called."""

    def __init__(self, model: Path, code: int | None, problem: str, advice: str = "") -> None:
        self.model = model
        self.code = code
        super().__init__(f"The model {model} was not loaded: {problem}", advice)


class CallFailed(NpuError):
    """`function` returned `code`, or returned 0 without doing its work."""

    def __init__(self, function: str, code: int, problem: str = "") -> None:
        self.function = function
        self.code = code
        advice = "" if problem else "RKLLM_LOG_LEVEL=2 makes the library print more."
        super().__init__(f"{function} returned {code}. {problem}".rstrip(), advice)


class NotInThisVersion(NpuError):
    """The library lacks `what`."""

    def __init__(self, what: str, version: str) -> None:
        self.what = what
        self.version = version
        super().__init__(f"librkllmrt {version} does not have {what}. Do without it, or install a newer library.")


class ModelBusy(NpuError):
    """`what` was asked for while a run or another call was under way."""

    def __init__(self, what: str, model: Path) -> None:
        self.what = what
        super().__init__(f"{what}: the model {model} is at work. Wait for the call to return; abort() ends a run.")


class ModelDestroyed(NpuError):
    """`what` was asked for after destroy()."""

    def __init__(self, what: str, model: Path) -> None:
        self.what = what
        super().__init__(f"{what}: the model {model} was destroyed. Load it again.")
