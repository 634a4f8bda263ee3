"""From what is known of a loaded library to the one layout that its structs have. Pure: the probe is passed in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from exo_rkllm.runtime.errors import SymbolMissing, VersionUnknown
from rkllm_facts.abi import Features, Layout, known_symbols, layout_for_release, layouts, layouts_with_symbols
from rkllm_facts.errors import UnknownVersion

Probe = Callable[[Iterable[Layout]], list[Layout]]

_TWINS = ("1.2.0", "1.2.1b1")
"""Their functions and defaults are the same and so is every struct, but that RKLLMInput is longer in the second, behind
all that text and tokens use: a struct of the second layout serves both, the other way round the library could read
beyond it."""

_FORCE = "Or set RKLLM_ABI to the release whose interface it has, at the risk of a crash; {hint}."


@dataclass(frozen=True)
class Identity:
    """`version`: what the marker says. `features` are answered for it where it is supported."""

    layout: Layout
    version: str | None
    features: Features
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """Of the library at `path`: the version in its marker, the functions it exports, the probe of its defaults."""

    path: Path
    marker: str | None
    symbols: frozenset[str]
    probe: Probe

    def missing(self, layout: Layout) -> list[str]:
        return sorted(layout.symbols - self.symbols)

    def surplus(self, layout: Layout) -> list[str]:
        return sorted((self.symbols & known_symbols()) - layout.symbols)


def identify(evidence: Evidence, abi: str | None = None) -> Identity:
    """The marker decides and the functions have to agree. Without one, functions and probe may leave a single layout.

    `abi` names a supported release, whose layout is taken then. Raises SymbolMissing, VersionUnknown.
    """
    if abi:
        return _as_named(evidence, abi)
    if evidence.marker is None:
        return _without_marker(evidence)
    return _by_marker(evidence, evidence.marker)


def _by_marker(evidence: Evidence, marker: str) -> Identity:
    try:
        layout = layout_for_release(marker)
    except UnknownVersion as error:
        raise VersionUnknown(evidence.path, marker, error.message, _force(evidence)) from error
    _check_missing(evidence, layout, f"its marker says version {marker}")
    surplus = evidence.surplus(layout)
    if surplus:
        problem = f"its marker says {marker}, but it exports {', '.join(surplus)}, which {marker} does not have."
        raise VersionUnknown(evidence.path, marker, problem, f"Install an unaltered library. {_force(evidence)}")
    return Identity(layout, marker, Features(layout, marker), _second_opinion(evidence, layout))


def _without_marker(evidence: Evidence) -> Identity:
    candidates = layouts_with_symbols(evidence.symbols)
    if not candidates:
        problem = "it has no version marker, and the functions that it exports are those of no supported release."
        raise VersionUnknown(evidence.path, None, problem, f"{_supported()} {_force(evidence)}")
    fitting = evidence.probe(candidates)
    names = tuple(one.name for one in fitting)
    if len(fitting) != 1 and names != _TWINS:
        left = " or ".join(names) or "none"
        problem = (
            "it has no version marker, and its functions and defaults do not tell which interface it has "
            f"(by functions {_or(candidates)}, by defaults {left})."
        )
        raise VersionUnknown(evidence.path, None, problem, f"{_supported()} {_force(evidence)}")
    layout = fitting[-1]
    warning = (
        f"{evidence.path} has no version marker. Its functions and defaults are those of {_or(fitting)}, so the "
        f"interface {layout.name} is used. Set RKLLM_ABI to the release if you know it."
    )
    return Identity(layout, None, Features(layout), (warning,))


def _as_named(evidence: Evidence, abi: str) -> Identity:
    path, marker = evidence.path, evidence.marker
    try:
        layout = layout_for_release(abi)
    except UnknownVersion as error:
        problem = f"RKLLM_ABI is {abi!r}. {error.message}"
        raise VersionUnknown(path, marker, problem, "Or unset RKLLM_ABI.") from error
    _check_missing(evidence, layout, f"RKLLM_ABI is {abi}")
    own = _layout_or_none(marker)
    if own is layout:
        return Identity(layout, marker, Features(layout, marker), _second_opinion(evidence, layout))
    if own is not None and layout not in evidence.probe(layouts()):
        problem = f"RKLLM_ABI is {abi!r}, but the library's marker says version {marker}, and nothing speaks for {abi}."
        raise VersionUnknown(path, marker, problem, "Unset RKLLM_ABI.")
    says = "has no version marker" if marker is None else f"says that it is version {marker}"
    warnings = [f"{path} {says}; the interface of {abi} is used because RKLLM_ABI says so."]
    surplus = evidence.surplus(layout)
    if surplus:
        warnings.append(f"{path} exports {', '.join(surplus)}, which {abi} does not have: RKLLM_ABI may be wrong.")
    return Identity(layout, marker, Features(layout, abi), (*warnings, *_second_opinion(evidence, layout)))


def _second_opinion(evidence: Evidence, layout: Layout) -> tuple[str, ...]:
    """The probe is an idea that was never tried on a vendor's library: against a marker it only warns."""
    fitting = evidence.probe(layouts())
    if layout in fitting:
        return ()
    warning = (
        f"{evidence.path}: rkllm_createDefaultParam does not put the documented defaults where {layout.name} has them "
        f"(they fit {_or(fitting) or 'no known version'}). If loading crashes, the library is of another version."
    )
    return (warning,)


def _check_missing(evidence: Evidence, layout: Layout, reason: str) -> None:
    missing = evidence.missing(layout)
    if missing:
        raise SymbolMissing(evidence.path, layout.name, reason, missing)


def _layout_or_none(marker: str | None) -> Layout | None:
    try:
        return None if marker is None else layout_for_release(marker)
    except UnknownVersion:
        return None


def _force(evidence: Evidence) -> str:
    possible = [one for one in layouts() if not evidence.missing(one) and not evidence.surplus(one)]
    hint = f"by its functions it could be {_or(possible)}" if possible else "by its functions it is none of them"
    return _FORCE.format(hint=hint)


def _supported() -> str:
    releases = [release for layout in layouts() for release in layout.releases]
    return f"Install one of the releases {', '.join(releases)}."


def _or(some: Iterable[Layout]) -> str:
    return " or ".join(one.name for one in some)
