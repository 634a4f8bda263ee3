"""What was found before a conversion, for people and for programs."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkllm_converter.errors import PreflightFailed
from rkllm_converter.units import gb
from rkllm_facts.planner import Plan, asked_mb, reserved_mb

__all__ = ["KINDS", "Preflight", "margin_fits", "refuse", "titled"]

KINDS = ("architecture", "groups", "memory", "disk")
"""Of problems; a person may choose to ignore them."""

_NARROWEST, _WIDEST = 60, 120
_TITLES = 15
"""Columns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preflight:
    """Memory and sizes in MB of 2^20 bytes.

    - `family`: the model_type, empty if it has none; `label` as the toolkit's list has it
    - `is_supported`: whether the toolkit is said to convert it; what a --custom-config describes is not
    - `parameters`: as the makers count them; None if not known
    - `memory_mb`: what the toolkit will need, None if not known; `memory_there_mb`: what this machine has left
    - `download_mb`: of the files that are not here yet
    - `disk_mb`, `disk_there_mb`: needed and free where the room is scarcest, which is the disk of `disk_folder`
    - `board`: what to expect there; None for a model that cannot be planned
    - `problems`: a sentence by kind (`KINDS`); `notes`: what else is to be known
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
    disk_folder: Path
    board: Plan | None
    problems: Mapping[str, str]
    notes: tuple[str, ...]

    def lines(self, width: int | None = None) -> list[str]:
        """For a terminal; `width` as for `titled`."""
        return [line for title, text in self._rows() for line in titled(title, text, width)]

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
            "disk_folder": str(self.disk_folder),
            "board": None if self.board is None else _board(self.board),
            "problems": dict(self.problems),
            "notes": [*self.notes],
        }

    def _rows(self) -> Iterator[tuple[str, str]]:
        size = f", {_count(self.parameters)} parameters" if self.parameters else ""
        yield "model:", f"{self.name}: {self.label or self.family or 'of an unknown family'}{size}"
        if self.download_mb:
            yield "download:", gb(self.download_mb)
        needed = "need not known" if self.memory_mb is None else f"{gb(self.memory_mb)} needed"
        yield "this computer:", f"memory: {needed}, {gb(self.memory_there_mb)} there"
        yield "", f"disk of {self.disk_folder}: {gb(self.disk_mb)} needed, {gb(self.disk_there_mb)} there"
        if self.board is not None:
            yield "board:", _expected(self.board)
        yield from (("problem:", f"{kind}: {text}") for kind, text in self.problems.items())
        yield from (("note:", text) for text in self.notes)


def titled(title: str, text: str, width: int | None = None) -> list[str]:
    """A text beside its title, in lines of `width` columns; without it those of this terminal.

    Words, such as paths, are never broken.
    """
    columns = shutil.get_terminal_size().columns if width is None else width
    return textwrap.wrap(
        text,
        min(max(columns, _NARROWEST), _WIDEST),
        initial_indent=f"{title:<{_TITLES}}",
        subsequent_indent=" " * _TITLES,
        break_on_hyphens=False,
        break_long_words=False,
    )


def refuse(preflight: Preflight, ignore: Collection[str] = ()) -> None:
    """Raises PreflightFailed for problems of kinds that are not ignored."""
    left = {kind: text for kind, text in preflight.problems.items() if kind not in ignore}
    if left:
        raise PreflightFailed(left.values())


def margin_fits(board: Plan) -> bool | None:
    """As Plan.fits, but with the margin that rkllama keeps."""
    return None if board.ram_mb is None else asked_mb(board) <= board.ram_mb - reserved_mb(board.ram_mb)


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} billion" if parameters >= 1e9 else f"{parameters / 1e6:.3g} million"


def _expected(board: Plan) -> str:
    return (
        f"{board.platform} as {board.quant}: file {gb(board.file_mb)}, memory {gb(board.memory_mb)}{_fitting(board)}, "
        f"about {board.tokens_per_s:.1f} tokens/s, first token after {board.ttft_ms / 1000:.2f} s for a prompt of "
        f"{board.prompt_tokens} tokens"
    )


def _fitting(board: Plan) -> str:
    if board.ram_mb is None:
        return ""
    words = "fits" if margin_fits(board) else "only just: rkllama refuses it" if board.fits else "does not fit"
    return f" of {gb(board.ram_mb)} (--ram; {words})"


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
        "margin_fits": margin_fits(board),
        "tokens_per_s": round(board.tokens_per_s, 1),
        "ttft_ms": round(board.ttft_ms),
    }
