"""What `exo plan` says: a page for people, a record for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rkllm_facts.planner import Errors, Part, Plan, Remedy, Spread, remedies, reserved_mb

_TIGHT = 0.05
_NARROWEST = 40
_SMALL = 0.005
"""Parts of a figure below this share are added up for people."""

Line = tuple[str, str]
"""Text and how it is to look: `bold`, `dim`, or a colour, or nothing."""


def record(name: str, plan: Plan) -> dict[str, Any]:
    """For programs. Memory and sizes in MB of 2^20 bytes."""
    return {
        "model": name,
        **_figures(plan),
        "fits": plan.fits,
        "reserved_mb": None if plan.ram_mb is None else round(reserved_mb(plan.ram_mb), 1),
        "parameters": plan.architecture.parameters,
        "ms_per_token": round(plan.ms_per_token, 2),
        "parts": {
            "ms_per_token": _parts(plan.token_parts),
            "ttft_ms": _parts(plan.ttft_parts),
            "memory_mb": _parts(plan.memory_parts),
            "file_mb": _parts(plan.file_parts),
        },
        "measured": plan.measured,
        "notes": list(plan.notes),
        "remedies": [{"kind": one.kind, "what": one.what, **_figures(one.plan)} for one in remedies(plan)],
    }


def show(name: str, plans: Sequence[Plan], where: str) -> None:
    """The first plan as a page, the others as a table below it."""
    from rich.console import Console  # noqa: PLC0415 - only for people
    from rich.text import Text  # noqa: PLC0415 - as above

    console = Console(highlight=False)
    for text, style in _page(name, plans, where):
        for line in _folded(text, console.width) if console.is_terminal else [text]:
            console.print(Text(line, style=style), soft_wrap=True)


def _page(name: str, plans: Sequence[Plan], where: str) -> Iterator[Line]:
    plan = plans[0]
    yield f"{_printable(name)} as {plan.quant} on {plan.platform}", "bold"
    yield (where, "dim") if where else ("", "")
    yield from [("", "")] if where else []
    yield from _answer(plan)
    yield "", ""
    yield from _aligned(
        [
            ("speed", f"{plan.tokens_per_s:.1f} tokens/s", _within(plan.errors, "tokens_per_s")),
            (
                "first token",
                _time(plan.ttft_ms),
                f"{_within(plan.errors, 'ttft_ms')}; after a prompt of {plan.prompt_tokens} tokens",
            ),
            (
                "memory",
                f"{plan.memory_mb:,.0f} MB",
                f"{_within(plan.errors, 'memory_mb')}; with {plan.context} tokens of context",
            ),
            ("file", f"{plan.file_mb:,.0f} MB", ""),
        ]
    )
    yield from _remedies(remedies(plan))
    yield "", ""
    yield "how it comes about", "bold"
    yield from _aligned(
        [
            ("a token", _time(plan.ms_per_token), _sum(plan.token_parts, plan.ms_per_token, "ms")),
            ("first token", _time(plan.ttft_ms), _sum(plan.ttft_parts, plan.ttft_ms, "ms")),
            ("memory", f"{plan.memory_mb:,.0f} MB", _sum(plan.memory_parts, plan.memory_mb, "MB")),
        ]
    )
    yield from _others(plans)
    for note in plan.notes:
        yield "", ""
        yield note, "dim"


def _printable(name: str) -> str:
    """A folder's name may have what would steer a terminal."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in name)


def _answer(plan: Plan) -> Iterator[Line]:
    if plan.ram_mb is None:
        yield "Whether it fits depends on the board's memory: say --ram 8G.", ""
        return
    left = plan.ram_mb - reserved_mb(plan.ram_mb)
    room = f"{plan.ram_mb:,.0f} MB less {reserved_mb(plan.ram_mb):,.0f} MB for the system leave {left:,.0f} MB."
    if not plan.fits:
        yield f"DOES NOT FIT: {plan.memory_mb:,.0f} MB are needed. {room}", "bold red"
    elif plan.memory_mb > left * (1 - _TIGHT):
        yield f"FITS, BUT ONLY JUST: {plan.memory_mb:,.0f} MB are needed. {room}", "bold yellow"
    else:
        yield f"FITS: {plan.memory_mb:,.0f} MB are needed. {room}", "bold green"


def _remedies(found: Sequence[Remedy]) -> Iterator[Line]:
    if not found:
        return
    yield "", ""
    yield "it would fit with", "bold"
    yield from _aligned(
        [
            (
                one.what,
                f"{one.plan.memory_mb:,.0f} MB",
                f"{one.plan.tokens_per_s:.1f} tokens/s, {_first(one.plan)}",
                _measured(one.plan),
            )
            for one in found
        ]
    )


def _others(plans: Sequence[Plan]) -> Iterator[Line]:
    if len(plans) == 1:
        return
    yield "", ""
    yield "types that this chip runs", "bold"
    yield from _aligned(
        [
            (
                plan.quant,
                f"{plan.tokens_per_s:.1f} tokens/s",
                _first(plan),
                f"{plan.memory_mb:,.0f} MB",
                f"file {plan.file_mb:,.0f} MB",
                {True: "fits", False: "does not fit", None: ""}[plan.fits],
                _measured(plan),
            )
            for plan in plans
        ]
    )


def _aligned(rows: Iterable[Sequence[str]]) -> Iterator[Line]:
    """Columns side by side, two blanks in front of the first."""
    lines = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip(), ""


def _folded(text: str, width: int) -> list[str]:
    """Lines that fit into a terminal; what goes on stands below the last column."""
    last = text.rfind("  ") + 2 if "  " in text.strip() else 2
    return textwrap.wrap(text, max(width, _NARROWEST), subsequent_indent=" " * min(last, width // 2)) or [""]


def _sum(parts: Sequence[Part], whole: float, unit: str) -> str:
    digits = 1 if whole < 100 else 0
    named = [part for part in parts if part.value >= whole * _SMALL]
    small = [part for part in parts if part not in named]
    rest = sum(part.value for part in small)
    if round(rest, digits):
        named.append(small[0] if len(small) == 1 else Part("the rest", rest))
    return "= " + " + ".join(f"{part.name} {part.value:,.{digits}f} {unit}" for part in named)


def _within(errors: Errors | None, figure: str) -> str:
    """How far off the planner was for models that it had not seen."""
    error: Spread | None = getattr(errors, figure, None)
    if error is None:
        return "not measured"
    return f"half of the models within {_percent(error.half)}, nine of ten within {_percent(error.most)}"


def _percent(share: float) -> str:
    return f"{max(share, 0.01):.0%}"


def _measured(plan: Plan) -> str:
    return "" if plan.errors else "not measured"


def _first(plan: Plan) -> str:
    return f"first token {_time(plan.ttft_ms)}"


def _time(milliseconds: float) -> str:
    return f"{milliseconds:,.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:,.1f} s"


def _figures(plan: Plan) -> dict[str, Any]:
    return {
        "platform": plan.platform.lower(),
        "quant": plan.quant,
        "context": plan.context,
        "prompt_tokens": plan.prompt_tokens,
        "embed_flash": plan.embed_flash,
        "ram_mb": plan.ram_mb,
        "tokens_per_s": round(plan.tokens_per_s, 2),
        "ttft_ms": round(plan.ttft_ms, 1),
        "memory_mb": round(plan.memory_mb, 1),
        "file_mb": round(plan.file_mb, 1),
        "expected_errors": _errors(plan.errors),
    }


def _parts(parts: Sequence[Part]) -> dict[str, float]:
    return {part.name: round(part.value, 2) for part in parts}


def _errors(errors: Errors | None) -> dict[str, Any] | None:
    """For each figure `half` and `most`, see Spread."""
    return asdict(errors) if errors else None
