"""Which layouts fit what rkllm_createDefaultParam of a loaded library writes: a second opinion on its version."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterable

from rkllm_facts.abi import Layout, layout_by_default_param, probe_buffer

_FUNCTION = "rkllm_createDefaultParam"
_HIDDEN_POINTER_IS_FIRST_ARGUMENT = frozenset({"x86_64", "AMD64"})


class _Roomy(ctypes.Structure):
    """More room than any RKLLMParam takes, so that a longer one than expected damages nothing."""

    _fields_ = (("bytes", ctypes.c_uint8 * len(probe_buffer())),)


def fitting_layouts(library: ctypes.CDLL, candidates: Iterable[Layout], *, machine: str | None = None) -> list[Layout]:
    """Those of `candidates` whose RKLLMParam the library fills with the documented defaults.

    On x86_64 the address of the result is the first argument, so memory filled beforehand can be passed, and a write
    beyond a layout's RKLLMParam speaks against it. On aarch64 it is in a register (x8) that ctypes sets only for memory
    of its own, whose content before the call is unknown: there the defaults' places alone are compared, which tells
    apart any two layouts that have the same functions, 1.2.0 and 1.2.1b1 aside. Never tried on a vendor's library.
    """
    if (machine or platform.machine()) in _HIDDEN_POINTER_IS_FIRST_ARGUMENT:
        fitting = layout_by_default_param(_into_prefilled(library))
        return [one for one in candidates if one in fitting]
    written = _by_value(library)
    return [one for one in candidates if one in layout_by_default_param(_cut(written, one))]


def _into_prefilled(library: ctypes.CDLL) -> bytes:
    function = library[_FUNCTION]
    function.restype, function.argtypes = None, (ctypes.c_void_p,)
    buffer = ctypes.create_string_buffer(probe_buffer(), len(probe_buffer()))
    function(buffer)
    return buffer.raw


def _by_value(library: ctypes.CDLL) -> bytes:
    function = library[_FUNCTION]
    function.restype, function.argtypes = _Roomy, ()
    return bytes(function())


def _cut(written: bytes, layout: Layout) -> bytes:
    """As if nothing had been written beyond the layout's RKLLMParam."""
    size = layout.structs["RKLLMParam"].sizeof
    return written[:size] + probe_buffer()[size:]
