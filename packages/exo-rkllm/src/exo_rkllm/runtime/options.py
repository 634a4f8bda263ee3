"""What a model is loaded with, and what a run gives back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SamplingOptions:
    """How the next token is chosen; None leaves the library's own value (at load) or the loaded one (in a run)."""

    top_k: int | None = None
    top_p: float | None = None
    temperature: float | None = None
    repeat_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None


@dataclass(frozen=True)
class LoadOptions:
    """`max_context` and `max_new_tokens` in tokens, -1 for no limit of new ones. `n_keep`: positions kept at the start
    when the window shifts, None for the library's own value. `embed_flash`: word embeddings stay in storage; every
    version before 1.2.0 keeps them in memory. `cpus`: numbers of the CPUs to use, None for the library's choice."""

    model_path: Path
    max_context: int
    max_new_tokens: int
    sampling: SamplingOptions = SamplingOptions()
    n_keep: int | None = None
    embed_flash: bool = True
    cpus: tuple[int, ...] | None = None
    base_domain_id: int = 0
    skip_special_token: bool = True


@dataclass(frozen=True)
class Perf:
    """The library's own measurement of a run. Times in ms, `memory_mb` is the process's greatest so far."""

    prefill_ms: float
    prefill_tokens: int
    generate_ms: float
    generate_tokens: int
    memory_mb: float


@dataclass(frozen=True)
class RunOutcome:
    """`finished`, `error`: a callback said so. `tokens`: callbacks that brought a token or a part of a character.
    `perf`: None before 1.2.1 and where no FINISH came."""

    finished: bool
    error: bool
    tokens: int
    perf: Perf | None
