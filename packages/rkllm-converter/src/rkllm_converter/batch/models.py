"""What a models.yaml asks for, once it has been read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rkllm_converter.batch.keys import Option
from rkllm_converter.errors import Refused

__all__ = ["Conversion", "Models", "chosen"]


@dataclass(frozen=True, slots=True)
class Conversion:
    """One folder to be made. `options` have the names of the file's keys; paths are absolute."""

    name: str
    model: str
    options: Mapping[str, Option]
    line: int


@dataclass(frozen=True, slots=True)
class Models:
    """The whole file. `toolkit` is None if the file names none."""

    file: Path
    output: Path
    toolkit: str | None
    conversions: tuple[Conversion, ...]

    def folder(self, conversion: Conversion) -> Path:
        """Of the result."""
        return self.output / conversion.name


def chosen(models: Models, names: Iterable[str]) -> tuple[Conversion, ...]:
    """The conversions of these names in the order of the file, all without names. Raises Refused for unknown ones."""
    wanted = set(names)
    known = [one.name for one in models.conversions]
    unknown = sorted(wanted - set(known))
    if unknown:
        raise Refused(
            f"--only {name}: {models.file} has no conversion of that name. It has: {', '.join(known)}."
            for name in unknown
        )
    return tuple(one for one in models.conversions if not wanted or one.name in wanted)
