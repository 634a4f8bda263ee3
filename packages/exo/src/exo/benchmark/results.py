"""What a run of the benchmark leaves behind: its settings, the server, every request. bench.json is this and the sums.

All times are in seconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from exo.benchmark.answer import LARGEST
from exo.types import ConfigurationError
from exo.types.printable import escaped

SCHEMA = 1
"""Raised when a reader of an earlier bench.json would misunderstand a later one."""

Part = Literal["warm-up", "prompts", "concurrency", "lengths"]
CountedBy = Literal["usage", "chunks"]
Count = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=LARGEST)]
_SHORTEST = 1e-9
"""In seconds: nothing is measured more finely, and a rate over less may be too large for a number."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for. `requests` is the number of requests at each level of `concurrency`."""

    models: tuple[str, ...]
    repeat: Count = 3
    max_tokens: Count = 128
    temperature: float = 0.0
    concurrency: tuple[Count, ...] = ()
    requests: Count = 8
    prompt_lengths: tuple[Count, ...] = ()


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """The server as far as it tells who it is: empty where it does not."""

    url: str
    program: str = ""
    version: str = ""
    engine: str = ""
    machine: str = ""
    models: tuple[str, ...] = ()
    loaded: tuple[str, ...] = ()


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One request.

    `name` is the prompt's kind, or its intended length in the part `lengths`; `level` says how many requests ran at the
    same time; `started` counts from the start of the run. `first_token` and `first_answer` (the first one that is not
    reasoning) and `total` count from the request's start. `load` is what the server says that loading took,
    `answered_by` the model that it says has answered. None is what is not known; with an `error` none of the numbers
    counts.
    """

    part: Part
    model: str
    name: str
    repeat: Count
    level: Count = 1
    started: Seconds
    first_token: Seconds | None = None
    first_answer: Seconds | None = None
    total: Seconds
    prompt_tokens: Count | None = None
    cached_tokens: Count | None = None
    completion_tokens: Count = 0
    counted_by: CountedBy = "usage"
    load: Seconds | None = None
    answered_by: str | None = None
    finish_reason: str | None = None
    error: str | None = None

    @property
    def tokens_per_s(self) -> float | None:
        """After the first token."""
        if self.first_token is None or self.completion_tokens < 2 or self.total - self.first_token < _SHORTEST:
            return None
        return (self.completion_tokens - 1) / (self.total - self.first_token)

    @property
    def prefill_tokens_per_s(self) -> float | None:
        """Prompt tokens that the server had to read, not those from its cache, by the time to the first token."""
        if self.prompt_tokens is None or self.first_token is None or self.first_token < _SHORTEST:
            return None
        return (self.prompt_tokens - (self.cached_tokens or 0)) / self.first_token


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run, complete or as far as it came. `started` is the time of day, ISO 8601 in UTC."""

    schema: int = SCHEMA
    exo_version: str
    started: str
    complete: bool
    settings: Settings
    server: Identity
    samples: tuple[Sample, ...]


def read_run(content: bytes, source: str) -> Run:
    """An earlier bench.json, `source` in messages. Raises ConfigurationError if it is none, or of another schema."""
    try:
        found = _without_tricks(msgspec.json.decode(content.removeprefix(_BYTE_ORDER_MARK)))
        schema = msgspec.convert(found, _Versioned).schema
        if schema != SCHEMA:
            raise ConfigurationError(
                f"{source} has the schema version {schema}, but this exo reads {SCHEMA}: measure anew, or compare with "
                "the exo that wrote it."
            )
        return msgspec.convert(found, Run)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{source} is not a bench.json of `exo bench`: {error}.") from None


def _without_tricks(found: Any) -> Any:
    """JSON whose texts, which are shown, have no control characters. The names of fields stay as they are."""
    if isinstance(found, dict):
        return {name: _without_tricks(value) for name, value in found.items()}
    if isinstance(found, list):
        return [_without_tricks(value) for value in found]
    return escaped(found) if isinstance(found, str) else found


class _Versioned(msgspec.Struct):
    schema: Count
