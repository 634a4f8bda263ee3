"""Which layouts fit a library: by its symbols, by what rkllm_createDefaultParam writes, by the marker in its file.

No release has a function that tells the version. The marker in the file decides, the symbols have to agree, and where
there is no marker, symbols and defaults together may leave exactly one layout.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from rkllm_facts.abi.model import Layout
from rkllm_facts.abi.tables import layouts

UNDOCUMENTED_SYMBOLS = frozenset({"rkllm_accuracy_analysis", "rkllm_print_timings", "rkllm_print_memorys"})
"""Exported by libraries that others have looked into, but in no header. Not to be called."""

DOCUMENTED_DEFAULTS: Mapping[str, int | float] = MappingProxyType(
    {
        "top_k": 40,
        "top_p": 0.9,
        "temperature": 0.8,
        "repeat_penalty": 1.1,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "mirostat_tau": 5.0,
        "mirostat_eta": 0.1,
        "extend_param.base_domain_id": 0,
        "extend_param.enabled_cpus_num": 4,
        "extend_param.n_batch": 1,
    }
)
"""What rkllm_createDefaultParam is said to set in RKLLMParam, in as far as the version has the field. Source: the SDK
manual of 1.3.0. The other fields' defaults are not documented."""

_TELLTALE = (
    "top_p",
    "temperature",
    "repeat_penalty",
    "mirostat_tau",
    "mirostat_eta",
    "extend_param.enabled_cpus_num",
    "extend_param.n_batch",
)
"""Of these defaults the ones that memory full of zeros does not have and whose place differs between layouts."""

_FORMATS = {"f32": "<f", "i8": "<b", "u8": "<B", "i32": "<i"}

PROBE_FILL = 0xA5
PROBE_SIZE = 1024
"""Bytes: far more than any RKLLMParam, since a newer library may write more than is known here."""

_MARKER = re.compile(rb"RKLLM SDK \(version: ([0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}[0-9A-Za-z.]{0,16})(?=[^0-9A-Za-z.])")
_LONGEST_UNFINISHED = len(b"RKLLM SDK (version: ") + 4 + 1 + 4 + 1 + 4 + 16


def known_symbols() -> frozenset[str]:
    """Every function that some supported layout exports: what to look up in a library."""
    return frozenset().union(*(layout.symbols for layout in layouts()))


def layouts_with_symbols(names: Iterable[str]) -> list[Layout]:
    """The layouts whose functions are exactly those of `names` that are known_symbols(); other names do not count.

    Symbols alone cannot tell 1.2.0 from 1.2.1b1, nor 1.2.1 to 1.2.3 from 1.3.0, nor any of them from a release that is
    not known here. None fits 1.0.x, or a library that lacks a function.
    """
    present = known_symbols() & frozenset(names)
    return [layout for layout in layouts() if layout.symbols == present]


def probe_buffer() -> bytes:
    """What the memory that rkllm_createDefaultParam is to write into has to hold before the call."""
    return bytes([PROBE_FILL]) * PROBE_SIZE


def layout_by_default_param(buffer: bytes) -> list[Layout]:
    """The layouts that fit what rkllm_createDefaultParam has written into probe_buffer().

    A layout fits if the documented defaults lie where it has them and nothing was written beyond its RKLLMParam. One
    that explains fewer of the defaults that lie in the buffer gives way to one that explains the same and more: 1.2.0
    to 1.2.3. 1.2.0 and 1.2.1b1 cannot be told apart. 1.0.1 has its first defaults where 1.2.x has them, so decide by
    symbols first. The defaults are documented, but the probe was never tried on a real library: take it as a second
    opinion. Raises ValueError if the buffer is too short to see a write beyond the known structs.
    """
    longest = max(layout.structs["RKLLMParam"].sizeof for layout in layouts())
    if len(buffer) < 2 * longest:
        raise ValueError(f"The buffer has {len(buffer)} bytes; start with the {PROBE_SIZE} of probe_buffer().")
    traces = {layout: _traces(layout) for layout in layouts()}
    fitting = [layout for layout, expected in traces.items() if _fits(layout, expected, buffer)]
    return [one for one in fitting if not any(traces[one] < traces[other] for other in fitting)]


def _traces(layout: Layout) -> frozenset[tuple[int, bytes]]:
    """Offset and bytes of every telltale default."""
    found = ((layout.locate("RKLLMParam", path), DOCUMENTED_DEFAULTS[path]) for path in _TELLTALE)
    return frozenset(
        (field.offset, struct.pack(_FORMATS[field.type.name], value)) for field, value in found if field is not None
    )


def _fits(layout: Layout, expected: frozenset[tuple[int, bytes]], buffer: bytes) -> bool:
    beyond = buffer[layout.structs["RKLLMParam"].sizeof :]
    return beyond.count(PROBE_FILL) == len(beyond) and all(
        buffer[offset : offset + len(value)] == value for offset, value in expected
    )


class MarkerScanner:
    """Looks for the version in the bytes of a library, which may come in pieces of any size.

    The marker is `RKLLM SDK (version: 1.2.0 | target: ...`. The same files also hold the version of the RKNN core
    inside (`lib version: 2.3.3b0`), which is none of librkllmrt and never matches. `version` is that of the first
    marker, None until it is found; a marker counts once a byte after the version has been seen.
    """

    def __init__(self) -> None:
        self.version: str | None = None
        self._tail = b""

    def feed(self, chunk: bytes) -> str | None:
        """Take the next bytes; return `version`."""
        if self.version is None:
            data = self._tail + chunk
            found = _MARKER.search(data)
            if found is not None:
                self.version = found[1].decode("ascii")
            self._tail = data[-_LONGEST_UNFINISHED:]
        return self.version


def version_marker(data: bytes) -> str | None:
    """The version in the marker that the bytes of a library hold; None if there is none."""
    return MarkerScanner().feed(data)
