"""What node and worker say to each other over the socket pair: a head (length of the body, kind), then the body.

| from | kind | body |
|---|---|---|
| node | LOAD | JSON of LoadOrder |
| node | RUN | run, cap of tokens, flags, length of the JSON (u32 each); JSON of sampling; token ids (i32) or UTF-8 |
| node | EMBED | run; token ids |
| node | ABORT | run |
| worker | LOADED | JSON of Loaded |
| worker | REFUSED | JSON of Refused: the load has failed, the worker ends |
| worker | TOKEN | run; token id (i32); UTF-8 text |
| worker | DONE | run; see DONE_BODY |
| worker | CACHE | positions in the KV cache (u32), after DONE where the runtime tells |
| worker | FAILED | run; JSON of Refused: the run has failed |
| worker | EMBEDDING | run; float32 |

All integers are in the machine's own byte order: both ends are on one machine. `run` is a number that the node gives.
"""

from __future__ import annotations

import enum
import struct
from array import array
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

HEAD = struct.Struct("=IB")
RUN_ID = struct.Struct("=I")
RUN_HEAD = struct.Struct("=IIII")
TOKEN_HEAD = struct.Struct("=IBIi")
TOKEN_BODY = struct.Struct("=Ii")
DONE_BODY = struct.Struct("=Ii?iff")
"""Run, tokens generated, whether it was aborted; then tokens prefilled, -1 where the runtime does not tell, and its
milliseconds of prefill and of generation."""
FLAG_TEXT = 1
"""The prompt is text, for a model whose tokenizer nobody here has."""
LARGEST_BODY = 1 << 28


class Kind(enum.IntEnum):
    """The kinds of frames."""

    LOAD = 1
    RUN = 2
    EMBED = 3
    ABORT = 4
    LOADED = 11
    REFUSED = 12
    TOKEN = 13
    DONE = 14
    FAILED = 15
    EMBEDDING = 16
    CACHE = 17


class LoadOrder(TypedDict):
    """`library` is the runtime's path, `abi` the layout to use in spite of its version. `sampling` as in
    runtime.SamplingOptions. `cpus` are those of the NPU runtime, `housekeeping` those for all else; empty: any.
    `domain` is the base_domain_id, where the runtime can have one."""

    library: str
    abi: str | None
    model: str
    max_context: int
    max_new_tokens: int
    sampling: dict[str, float]
    cpus: list[int]
    housekeeping: list[int]
    domain: int
    template: bool


class Loaded(TypedDict):
    """What the worker has found: the runtime's release (or None) and layout, doubts about it, seconds of the load."""

    version: str | None
    layout: str
    warnings: list[str]
    seconds: float


class Refused(TypedDict):
    """`kind` is the class of the exception, `advice` what to say where the runtime has printed no cause."""

    kind: str
    message: str
    advice: str


class Done(NamedTuple):
    """How a run ended. The runtime made `tokens`, perhaps more than it was asked for; None where it does not tell."""

    tokens: int
    aborted: bool
    prefilled: int | None
    prefill_ms: float | None
    decode_ms: float | None

    @classmethod
    def from_body(cls, body: bytes) -> Done:
        _, tokens, aborted, prefilled, prefill_ms, decode_ms = DONE_BODY.unpack(body)
        if prefilled < 0:
            return cls(tokens, aborted, None, None, None)
        return cls(tokens, aborted, prefilled, prefill_ms, decode_ms)


def frame(kind: Kind, body: bytes = b"") -> bytes:
    return HEAD.pack(len(body), kind) + body


def ids_to_bytes(ids: Sequence[int]) -> bytes:
    return array("i", ids).tobytes()


def ids_from_bytes(data: bytes) -> array[int]:
    ids = array("i")
    ids.frombytes(data)
    return ids


class FrameReader:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take bytes; return kind and body of each complete frame. Raises ValueError for an impossible head."""
        held = self._rest + data if self._rest else data
        frames, at, end = [], 0, len(held)
        while end - at >= HEAD.size:
            length, kind = HEAD.unpack_from(held, at)
            if length > LARGEST_BODY:
                raise ValueError(f"a frame of {length} bytes")
            body = at + HEAD.size
            if end - body < length:
                break
            at = body + length
            frames.append((kind, held[body:at]))
        self._rest = held[at:]
        return frames
