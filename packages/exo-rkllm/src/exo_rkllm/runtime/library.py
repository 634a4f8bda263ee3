"""An opened librkllmrt.so whose interface is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from exo_rkllm.runtime import loading
from exo_rkllm.runtime.ctypes_types import types_of
from exo_rkllm.runtime.errors import VersionUnknown
from exo_rkllm.runtime.identify import Evidence, identify
from exo_rkllm.runtime.locate import library_marker
from exo_rkllm.runtime.model import NpuModel
from exo_rkllm.runtime.options import LoadOptions
from exo_rkllm.runtime.probe import fitting_layouts
from exo_rkllm.runtime.raw import RawLibrary
from rkllm_facts.abi import Features, Layout, known_symbols, layout_for_release
from rkllm_facts.errors import UnknownVersion


@dataclass(frozen=True)
class Library:
    """`version` is what the library's marker says, None without one. `warnings` are sentences for the log."""

    path: Path
    version: str | None
    layout: Layout
    features: Features
    warnings: tuple[str, ...]
    raw: RawLibrary

    def load(self, options: LoadOptions) -> NpuModel:
        """Load a model; takes as long as the library needs. Raises LoadFailed, NotInThisVersion."""
        return NpuModel(self.raw, self.features, options)


def check_library(path: Path, abi: str | None = None) -> None:
    """What can be said of a library without loading it.

    Raises LibraryNotFound, LibraryNotLoadable, and VersionUnknown for a marker that names no supported release.
    """
    loading.check(path)
    marker = library_marker(path)
    if marker is None or abi:
        return
    try:
        layout_for_release(marker)
    except UnknownVersion as error:
        raise VersionUnknown(path, marker, error.message, "Or set RKLLM_ABI, at the risk of a crash.") from error


def open_library(path: Path, *, abi: str | None = None) -> Library:
    """Load the library at `path` into this process and find out its interface.

    `abi` (the setting RKLLM_ABI) names a supported release whose interface is to be taken for a library that is not
    known. Raises LibraryNotFound, LibraryNotLoadable, SymbolMissing, VersionUnknown.
    """
    marker = library_marker(path)
    library = loading.load(path)
    symbols = frozenset(name for name in known_symbols() if hasattr(library, name))

    def probe(candidates: Iterable[Layout]) -> list[Layout]:
        return fitting_layouts(library, candidates)

    found = identify(Evidence(path, marker, symbols, probe), abi)
    raw = RawLibrary(library, types_of(found.layout))
    return Library(path, found.version, found.layout, found.features, found.warnings, raw)
