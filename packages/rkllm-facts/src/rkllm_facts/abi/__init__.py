"""The binary interface of librkllmrt.so, release by release."""

from rkllm_facts.abi.features import Features
from rkllm_facts.abi.model import Enum, Field, Function, Header, Layout, Parameter, Release, Struct
from rkllm_facts.abi.recognition import (
    DOCUMENTED_DEFAULTS,
    UNDOCUMENTED_SYMBOLS,
    MarkerScanner,
    known_symbols,
    layout_by_default_param,
    layouts_with_symbols,
    probe_buffer,
    version_marker,
)
from rkllm_facts.abi.tables import SUPPORTED, layout, layout_for_release, layouts, releases
from rkllm_facts.abi.types import SCALARS, CType
from rkllm_facts.abi.versions import Version

__all__ = [
    "DOCUMENTED_DEFAULTS",
    "SCALARS",
    "SUPPORTED",
    "UNDOCUMENTED_SYMBOLS",
    "CType",
    "Enum",
    "Features",
    "Field",
    "Function",
    "Header",
    "Layout",
    "MarkerScanner",
    "Parameter",
    "Release",
    "Struct",
    "Version",
    "known_symbols",
    "layout",
    "layout_by_default_param",
    "layout_for_release",
    "layouts",
    "layouts_with_symbols",
    "probe_buffer",
    "releases",
    "version_marker",
]
