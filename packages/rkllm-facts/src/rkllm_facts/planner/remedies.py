"""What would make a model fit that does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rkllm_facts.chips import CHIPS, chip
from rkllm_facts.planner.plan import Plan, plan, usual_type

__all__ = ["LEAST_CONTEXT", "Remedy", "remedies"]

LEAST_CONTEXT = 512
"""Less context than this is proposed to nobody."""

_STEP = 256
_BOARDS = {"rk3588": (4, 8, 16, 32), "rk3576": (4, 8, 16), "rk3562": (1, 2, 4), "rv1126b": (1, 2, 4)}
"""GB of memory that boards with a chip usually have."""

_GB = 1024


@dataclass(frozen=True, slots=True)
class Remedy:
    """`kind` is `embed_flash`, `context`, `quant`, `together` or `board`; `plan` is how it would be then."""

    kind: str
    what: str
    plan: Plan


def remedies(planned: Plan) -> tuple[Remedy, ...]:
    """One change each, after which it fits; if none is enough on this board, several together.

    Empty if it fits already, or if the memory is not known.
    """
    if planned.fits is not False:
        return ()
    candidates = (*_embeddings(planned), *_shorter(planned), *_other_types(planned))
    here = tuple(one for one in candidates if one.plan.fits) or tuple(_together(planned))
    return (*here, *(one for one in _boards(planned) if one.plan.fits))


def _embeddings(planned: Plan) -> Iterator[Remedy]:
    if not planned.embed_flash:
        yield Remedy("embed_flash", "leave the embeddings in the file (embed_flash)", _again(planned, embed_flash=True))


def _shorter(planned: Plan, *also: int) -> Iterator[Remedy]:
    """The longest context that fits: one of `also`, or less in steps of 256 tokens."""
    least = max(LEAST_CONTEXT, planned.prompt_tokens + 1)
    longest = (planned.context - 1) // _STEP * _STEP
    for context in (*also, *range(longest, least - 1, -_STEP)):
        shorter = _again(planned, context=context)
        if shorter.fits:
            yield Remedy("context", f"a context of {context} tokens", shorter)
            return


def _other_types(planned: Plan) -> Iterator[Remedy]:
    for quant in chip(planned.platform).types:
        if quant != planned.quant:
            yield Remedy("quant", f"quantised as {quant}", _again(planned, dtype=quant))


def _together(planned: Plan) -> Iterator[Remedy]:
    """The type that leaves room for the most context, with the embeddings in the file."""
    found = [
        one.plan
        for quant in chip(planned.platform).types
        for one in _shorter(_again(planned, dtype=quant, embed_flash=True), planned.context)
    ]
    if found:
        best = max(found, key=lambda one: (one.context, one.tokens_per_s))
        what = f"quantised as {best.quant}, with a context of {best.context} tokens and the embeddings in the file"
        yield Remedy("together", what, best)


def _boards(planned: Plan) -> Iterator[Remedy]:
    """The smallest board with the same chip and more memory; the smallest with each other chip, of its usual type."""
    here = chip(planned.platform).target_platform
    for other in dict.fromkeys([here, *(one.target_platform for one in CHIPS)]):
        quant = planned.quant if other == here else usual_type(other)
        for size in _BOARDS[other]:
            bigger = _again(planned, platform=other, dtype=quant, ram_mb=float(size * _GB))
            if bigger.fits:
                yield Remedy("board", f"a board with {chip(other).name} and {size} GB, as {quant}", bigger)
                break


def _again(planned: Plan, **changed: Any) -> Plan:
    asked: dict[str, Any] = {
        "platform": planned.platform,
        "dtype": planned.quant,
        **{
            field.name: getattr(planned, field.name)
            for field in dataclasses.fields(planned)
            if field.name in {"context", "prompt_tokens", "ram_mb", "embed_flash"}
        },
    }
    return plan(planned.architecture, **{**asked, **changed})
