"""What the first bytes of a library tell about the machine it is made for."""

from __future__ import annotations

import platform
import struct
from collections.abc import Mapping
from types import MappingProxyType

_MAGIC = b"\x7fELF"
_HEADER = 20
_BITS = {1: 32, 2: 64}
_MACHINES: Mapping[int, str] = MappingProxyType(
    {3: "i386", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv", 258: "loongarch"}
)
_SAME = {"amd64": "x86_64", "arm64": "aarch64", "i686": "i386", "armv7l": "arm", "armv8l": "arm"}


def why_not_loadable(head: bytes, *, machine: str | None = None) -> str | None:
    """Why a file that begins with `head` cannot be loaded on `machine` (default: this one); None if it may be."""
    if len(head) < _HEADER or head[:4] != _MAGIC:
        return "it is not an ELF file, so no shared library. Point RKLLM_LIB to Rockchip's librkllmrt.so."
    here = machine or platform.machine()
    here = _SAME.get(here.lower(), here)
    bits = _BITS.get(head[4], 0)
    (number,) = struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)
    built_for = _MACHINES.get(number, f"machine number {number}")
    if built_for == here and bits == struct.calcsize("P") * 8:
        return None
    word = f" ({bits} bit)" if bits != 64 else ""
    python = "" if built_for != here else f" and this Python has {struct.calcsize('P') * 8} bit"
    return (
        f"it is for {built_for}{word}, this machine is {here}{python}. Rockchip publishes librkllmrt.so for aarch64 "
        "Linux; on other machines one that `rkllm-sim build` made stands in for it."
    )
