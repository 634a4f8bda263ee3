"""Simulated libraries, built once for each test process, and small models for them."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exo_rkllm.runtime import Library, LoadOptions, NpuModel, open_library
from rkllm_facts.abi import SUPPORTED
from rkllm_sim.build import build

EOS = 256
PAD = 257
VOCABULARY = [bytes([value]) for value in range(256)] + [b"</s>", b"[PAD]"]
"""Token i is the byte i: prompts and answers can be read."""

HASH = ("lm hash", "seed 7", "answer 8 40", "words 97 26")


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="exo-runtime-sim-")


@functools.cache
def library_path(abi: str, *, marker: bool = True) -> Path:
    """The simulated library of a release."""
    return build(abi, Path(_folder().name) / f"{abi}-{marker}", marker=marker)


def open_simulated(abi: str) -> Library:
    return open_library(library_path(abi))


def write_model(folder: Path, *lines: str, script: tuple[str, ...] = (), embd: int = 8) -> Path:
    """A model file with the given lines; with `script` it plays them, else it is a hash model."""
    head = ["rkllm-sim model 1", "toolkit 1.1.0", "platform rk3588", "max_context 512", "npu_cores 3", f"embd {embd}"]
    head += [f"eos {EOS}", f"special {PAD}", *(["lm script"] if script else HASH), *lines]
    vocab = [f"vocab {len(VOCABULARY)}", *(piece.hex() for piece in VOCABULARY)]
    played = ["script", *script, "end"] if script else []
    path = folder / "model.rkllm"
    path.write_text("\n".join([*head, *vocab, *played, "rkllm-toolkit version: 1.1.0", ""]), encoding="utf-8")
    return path


def options(path: Path, **changes: Any) -> LoadOptions:
    return LoadOptions(**{"model_path": path, "max_context": 256, "max_new_tokens": 64, **changes})


def load(abi: str, path: Path, **changes: Any) -> NpuModel:
    return open_simulated(abi).load(options(path, **changes))


class Tokens:
    """An on_token that keeps what comes, and calls `then` with the number of tokens so far."""

    def __init__(self, then: Callable[[int], None] = lambda _count: None) -> None:
        self.pieces: list[bytes] = []
        self.ids: list[int] = []
        self._then = then

    def __call__(self, text: bytes, token_id: int) -> None:
        self.pieces.append(text)
        self.ids.append(token_id)
        self._then(len(self.ids))

    @property
    def text(self) -> str:
        return b"".join(self.pieces).decode("utf-8")


def calls(log: Path, name: str = "", event: str = "") -> list[dict[str, Any]]:
    """The lines of RKLLM_SIM_LOG: all of them, or those of one function and event."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    return [line for line in lines if name in {"", line["call"]} and event in {"", line.get("event")}]


def last(log: Path, name: str, event: str = "") -> dict[str, Any]:
    return calls(log, name, event)[-1]


def since(abi: str, version: str) -> bool:
    return SUPPORTED.index(abi) >= SUPPORTED.index(version)
