"""What a person asks for, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from rkllm_converter.calibration import DEFAULT_SAMPLES
from rkllm_converter.options import Options
from rkllm_converter.preflight import KINDS, Preflight
from rkllm_converter.toolkit.calls import Call

__all__ = ["DEFAULT_RAM_MB", "IGNORABLE", "NO_TOKENIZER", "STAND_IN", "Outcome", "Request", "Watcher"]

DEFAULT_RAM_MB = 8192
STAND_IN = "A stand-in for the toolkit has made it: it is for the simulator rkllm-sim, no NPU runs it."
"""What a person is told of such a result."""

NO_TOKENIZER = "tokenizer"
IGNORABLE = (*KINDS, NO_TOKENIZER)
"""What a person may choose to pass over: problems of the pre-flight, and that there is no tokenizer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One conversion.

    - `model`: `owner/name` at the hub, a folder, or a .gguf file; `revision`: a branch, tag or commit of it
    - `output`: the folder of the result itself
    - `tokenizer`: as `model`, where the tokenizer is; None: with the model
    - `lora`: a folder with an adapter for the model
    - `custom_config`: a description of an architecture that the toolkit does not know; `qparams`: of an earlier build
    - `dataset`: texts or chats to calibrate with; None: the ones that come with the package; `samples` of them at most
    - `max_new_tokens`: longest answer where a request sets none; None: half of the context
    - `ram_mb`: memory of the board, in MB of 2^20 bytes; `ignore`: kinds of problems of the pre-flight
    - `toolkit_python`: the interpreter that has the toolkit; None: this one; `toolkit_version`: what the toolkit is
      taken for, whatever it says
    - `replace`: an earlier result may go; `if_changed`: if it is current, it stays
    """

    model: str
    output: Path
    options: Options
    revision: str | None = None
    tokenizer: str | None = None
    lora: Path | None = None
    custom_config: Path | None = None
    qparams: Path | None = None
    dataset: Path | None = None
    samples: int = DEFAULT_SAMPLES
    seed: int = 0
    max_new_tokens: int | None = None
    ram_mb: float = DEFAULT_RAM_MB
    ignore: frozenset[str] = frozenset()
    toolkit_python: str | None = None
    toolkit_version: str | None = None
    replace: bool = False
    if_changed: bool = False

    @property
    def answer_tokens(self) -> int:
        return self.max_new_tokens if self.max_new_tokens is not None else self.options.max_context // 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """`folder` is the result's; `seconds` what it took; `calls` what the toolkit was, or would be, asked for.

    `file_mb`: of the .rkllm, predicted for a plan; `is_stand_in`: no NPU runs it; `notes`: what else is to be known.
    """

    status: Literal["done", "unchanged", "planned"]
    folder: Path
    seconds: float
    preflight: Preflight
    calls: tuple[Call, ...] = ()
    file_mb: float | None = None
    is_stand_in: bool = False
    notes: tuple[str, ...] = ()


class Watcher(Protocol):
    """Is told how far it is."""

    def phase(self, words: str) -> None:
        """A step begins."""

    def progress(self, done: int, total: int) -> None:
        """Bytes of the download."""

    def expect(self, report: Preflight) -> None:
        """What the pre-flight has found, before anything is fetched or refused for it."""

    def note(self, words: str) -> None:
        """Something that a person should know, and that stops nothing."""
