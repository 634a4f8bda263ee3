"""Which conversions of a models.yaml the toolkit or the chip does not allow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rkllm_converter.batch.document import Mistakes
from rkllm_converter.batch.keys import Option
from rkllm_converter.batch.values import Given
from rkllm_converter.errors import IllegalOptions
from rkllm_converter.options import Options, check
from rkllm_converter.toolkit.versions import Toolkit

__all__ = ["Asked", "judge"]

_FLAG = re.compile(r"--(?:no-)?([a-z-]+) ?:? ?")
_FLAG_WITHIN = re.compile(r"--([a-z][a-z-]*) ")
_FIELDS = {
    "platform": "platform",
    "quant": "quant",
    "algorithm": "algorithm",
    "opt_level": "optimization_level",
    "npu_cores": "npu_cores",
    "max_context": "max_context",
    "hybrid_rate": "hybrid_rate",
    "device": "device",
    "dtype": "dtype",
    "export_tokenizer": "export_tokenizer",
    "export_embedding": "export_embedding",
}
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
            key, sentence = _split(problem)
            given = one.given.get(key)
            line, path = (given.line, given.path) if given else (one.place.line, f"{one.place.path}.{key}")
            if given is None or given.path.startswith(f"{one.place.path}."):
                mistakes.add(line, path, sentence)
            else:
                shared.setdefault((line, path, sentence), []).append(one.name)
    for (line, path, sentence), names in shared.items():
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        mistakes.add(line, path, f"{sentence} That is for {', '.join(names[:_MOST_NAMES])}{more}.")


def _problems(asked: Asked, toolkit: Toolkit) -> tuple[str, ...]:
    fields: dict[str, Any] = {_FIELDS[key]: value for key, value in asked.values.items() if key in _FIELDS}
    gguf = "f16" if asked.model.lower().endswith(".gguf") else None  # of which type it is, the conversion finds out
    try:
        check(Options(**fields), toolkit, gguf=gguf, has_lora="lora" in asked.values)
    except IllegalOptions as error:
        return error.problems
    return ()


def _split(problem: str) -> tuple[str, str]:
    """The key that a sentence about flags begins with, and the sentence about keys."""
    found = _FLAG.match(problem)
    if found is None:
        return "", problem
    return found[1].replace("-", "_"), _FLAG_WITHIN.sub(_as_key, problem[found.end() :])


def _as_key(flag: re.Match[str]) -> str:
    return f"{flag[1].replace('-', '_')}: "
