"""What was found before a conversion, for people and for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rkllm_converter.errors import PreflightFailed
from rkllm_facts.planner import Plan

__all__ = ["Preflight", "refuse"]

_GB = 1024
_WIDTH = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Preflight:
    """Memory and sizes in MB of 2^20 bytes.

    - `family`: the model_type, empty if it has none; `label` as the toolkit's list has it
    - `is_supported`: whether the toolkit is said to convert it; what a --custom-config describes is not
    - `parameters`: as the makers count them; None if not known
    - `memory_mb`: what the toolkit will need, None if not known; `memory_there_mb`: what this machine has left
    - `download_mb`: of the files that are not here yet
    - `disk_mb`, `disk_there_mb`: needed and free where the room is scarcest
    - `board`: what to expect there; None for a model that cannot be planned
    - `problems`: a sentence by kind, `architecture`, `groups`, `memory` or `disk`; `notes`: what else is to be known
    """

    name: str
    platform: str
    quant: str
    family: str
    label: str
    is_supported: bool
    parameters: int | None
    memory_mb: float | None
    memory_there_mb: float
    download_mb: float
    disk_mb: float
    disk_there_mb: float
    board: Plan | None
    problems: Mapping[str, str]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """For a terminal."""
        return [
            line
            for title, text in self._rows()
            for line in textwrap.wrap(
                text, _WIDTH, initial_indent=f"{title:<10}", subsequent_indent=" " * 10, break_on_hyphens=False
            )
        ]

    def as_json(self) -> dict[str, Any]:
        """Values that JSON has; the board's figures are rounded to what they are good for."""
        return {
            "model": self.name,
            "platform": self.platform,
            "quant": self.quant,
            "family": self.family,
            "is_supported": self.is_supported,
            "parameters": self.parameters,
            "memory_mb": None if self.memory_mb is None else round(self.memory_mb),
            "memory_there_mb": round(self.memory_there_mb),
            "download_mb": round(self.download_mb),
            "disk_mb": round(self.disk_mb),
            "disk_there_mb": round(self.disk_there_mb),
            "board": None if self.board is None else _board(self.board),
            "problems": dict(self.problems),
            "notes": [*self.notes],
        }

    def _rows(self) -> Iterator[tuple[str, str]]:
        size = f", {self.parameters / 1e9:.2f} billion parameters" if self.parameters else ""
        yield "model", f"{self.name}: {self.label or self.family or 'of an unknown family'}{size}"
        if self.download_mb:
            yield "download", _gb(self.download_mb)
        needed = "need not known" if self.memory_mb is None else f"{_gb(self.memory_mb)} needed"
        yield "memory", f"{needed}, {_gb(self.memory_there_mb)} there"
        yield "disk", f"{_gb(self.disk_mb)} needed, {_gb(self.disk_there_mb)} there"
        if self.board is not None:
            yield "board", _expected(self.board)
        yield from (("problem", f"{kind}: {text}") for kind, text in self.problems.items())
        yield from (("note", text) for text in self.notes)


def refuse(preflight: Preflight, ignore: Collection[str] = ()) -> None:
    """Raises PreflightFailed for problems of kinds that are not ignored."""
    left = {kind: text for kind, text in preflight.problems.items() if kind not in ignore}
    if left:
        raise PreflightFailed(left.values())


def _expected(board: Plan) -> str:
    fits = {True: " (fits)", False: " (does not fit)", None: ""}[board.fits]
    there = f" of {_gb(board.ram_mb)}" if board.ram_mb is not None else ""
    return (
        f"{board.platform} as {board.quant}: file {_gb(board.file_mb)}, memory {_gb(board.memory_mb)}{there}{fits}, "
        f"about {board.tokens_per_s:.1f} tokens/s, first token after {board.ttft_ms / 1000:.2f} s for a prompt of "
        f"{board.prompt_tokens} tokens"
    )


def _board(board: Plan) -> dict[str, Any]:
    return {
        "platform": board.platform,
        "quant": board.quant,
        "context": board.context,
        "prompt_tokens": board.prompt_tokens,
        "file_mb": round(board.file_mb),
        "memory_mb": round(board.memory_mb),
        "ram_mb": board.ram_mb,
        "fits": board.fits,
        "tokens_per_s": round(board.tokens_per_s, 1),
        "ttft_ms": round(board.ttft_ms),
    }


def _gb(size: float) -> str:
    return f"{size / _GB:.1f} GB"
