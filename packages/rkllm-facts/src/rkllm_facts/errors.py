"""The exceptions of rkllm_facts. All of them are about a value that the caller gave.

FactsError (ValueError)
├── UnknownVersion          nothing is known of such a version of librkllmrt, or it is none
│   └── UnsupportedVersion  the release is known, but there is no table that could be used for it
├── UnknownLayout           no layout of that name
├── UnknownChip             no chip of that name
├── IllegalType             the chip does not run this quantisation type
├── GroupSizeMismatch       the type's groups do not fit the layer
├── UnknownModel            nothing is known of a model of that name
├── IncompleteConfig        a config.json does not say what is needed
├── UnknownArchitecture     a config.json is of a model that is no decoder as they are known here
├── BadGguf                 it is no GGUF file, or a faulty one
└── BadPlan                 a context or a prompt that makes no sense
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "BadGguf",
    "BadPlan",
    "FactsError",
    "GroupSizeMismatch",
    "IllegalType",
    "IncompleteConfig",
    "UnknownArchitecture",
    "UnknownChip",
    "UnknownLayout",
    "UnknownModel",
    "UnknownVersion",
    "UnsupportedVersion",
]


class FactsError(ValueError):
    """Base of every error that rkllm_facts raises on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UnknownVersion(FactsError):
    """Nothing is known of such a version of librkllmrt. `supported` are the releases there are tables for."""

    def __init__(self, version: str, problem: str, supported: Iterable[str]) -> None:
        self.version = version
        self.supported = tuple(supported)
        super().__init__(f"{problem} Supported: {', '.join(self.supported)}. Install one of these.")


class UnsupportedVersion(UnknownVersion):
    """The release is known to exist, but there is no table that could be used for it."""


class UnknownLayout(FactsError):
    """No layout has that name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(known)
        super().__init__(f"There is no layout {name!r} of librkllmrt. Take one of: {', '.join(self.known)}.")


class UnknownChip(FactsError):
    """No chip has that name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(known)
        super().__init__(f"Nothing is known of a chip {name!r}. Known chips: {', '.join(self.known)}.")


class IllegalType(FactsError):
    """The chip does not run this quantisation type. `legal` are the types it runs."""

    def __init__(self, chip: str, type_name: str, legal: Iterable[str], elsewhere: Iterable[str]) -> None:
        self.chip = chip
        self.type_name = type_name
        self.legal = tuple(legal)
        others = tuple(elsewhere)
        hint = f" {type_name} is for {', '.join(others)}." if others else ""
        super().__init__(
            f"{chip} does not run models of type {type_name!r}. Take one of: {', '.join(self.legal)}.{hint}"
        )


class GroupSizeMismatch(FactsError):
    """The group size of a type does not divide the output dimension of a linear layer."""

    def __init__(self, type_name: str, group_size: int, output_dimension: int) -> None:
        self.type_name = type_name
        self.group_size = group_size
        self.output_dimension = output_dimension
        super().__init__(
            f"The groups of {group_size} of type {type_name} do not divide {output_dimension}, the output dimension of "
            "a linear layer. Take a type with smaller groups, or one without."
        )


class UnknownModel(FactsError):
    """Nothing is known of a model of that name. `near` are names that are like it."""

    def __init__(self, name: str, near: Iterable[str]) -> None:
        self.name = name
        self.near = tuple(near)
        hint = f" Names like it: {', '.join(self.near)}." if self.near else ""
        super().__init__(
            f"The architecture of {name!r} is not known here.{hint} Give the model's config.json, or a .gguf."
        )


class IncompleteConfig(FactsError):
    """A config.json lacks `key`, or has there what cannot be used."""

    def __init__(self, key: str, problem: str = "it is not there.") -> None:
        self.key = key
        super().__init__(
            f"The configuration does not tell {key!r}: {problem} Take the config.json of the model's makers."
        )


class UnknownArchitecture(FactsError):
    """A config.json is of a model that cannot be described by what is known here. `why` is a sentence."""

    def __init__(self, family: str, why: str) -> None:
        self.family = family
        super().__init__(f"Models of the family {family or 'without a name'!r} cannot be planned: {why}")


class BadGguf(FactsError):
    """No GGUF file, or a faulty one. The message names it."""


class BadPlan(FactsError):
    """A context or a prompt that makes no sense."""
