"""Which conversions of a models.yaml the toolkit or the chip does not allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from rkllm_converter.batch.document import Mistakes
from rkllm_converter.batch.keys import Option
from rkllm_converter.batch.values import Given
from rkllm_converter.errors import IllegalOptions, Problem
from rkllm_converter.options import Options, check
from rkllm_converter.toolkit.versions import Toolkit

__all__ = ["Asked", "judge"]

_FIELDS = {field.name: Problem(field.name, None, "").option for field in fields(Options)}
"""Of Options: the keys of the file."""
_MOST_NAMES = 3


@dataclass(frozen=True, slots=True)
class Asked:
    """A conversion with its `values`, and where each of them was `given`, which may be outside of its `place`."""

    name: str
    place: Given
    model: str
    values: Mapping[str, Option]
    given: Mapping[str, Given]


def judge(asked: Iterable[Asked], toolkit: Toolkit, mistakes: Mistakes) -> None:
    """Adds a mistake for each option that is not legal, where it is written: once, if many conversions share it."""
    shared: dict[tuple[int, str, str], list[str]] = {}
    for one in asked:
        for problem in _problems(one, toolkit):
            key, sentence = problem.option, problem.said
            given = one.given.get(key)
            line, path = (given.line, given.path) if given else (one.place.line, f"{one.place.path}.{key}")
            if given is None or given.path.startswith(f"{one.place.path}."):
                mistakes.add(line, path, sentence)
            else:
                shared.setdefault((line, path, sentence), []).append(one.name)
    for (line, path, sentence), names in shared.items():
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        mistakes.add(line, path, f"{sentence} That is for {', '.join(names[:_MOST_NAMES])}{more}.")


def _problems(asked: Asked, toolkit: Toolkit) -> tuple[Problem, ...]:
    given: dict[str, Any] = {field: asked.values[key] for field, key in _FIELDS.items() if key in asked.values}
    gguf = "f16" if asked.model.lower().endswith(".gguf") else None  # of which type it is, the conversion finds out
    try:
        check(Options(**given), toolkit, gguf=gguf, has_lora="lora" in asked.values)
    except IllegalOptions as error:
        return error.of_options
    return ()
