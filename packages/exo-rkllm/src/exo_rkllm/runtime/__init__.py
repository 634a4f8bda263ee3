"""The binding of librkllmrt.so, Rockchip's runtime for language models on the NPUs of RK3588 and RK3576.

    library = open_library(find_library(os.environ))
    model = library.load(LoadOptions(Path("model.rkllm"), max_context=4096, max_new_tokens=-1))
    model.run([1, 2, 3], lambda text, token_id: print(text))
    model.destroy()

Importing loads no library and reads no setting. A crash of the library ends the process: use it in one of its own.
"""

from exo_rkllm.runtime.errors import (
    CallFailed,
    LayoutMismatch,
    LibraryNotFound,
    LibraryNotLoadable,
    LoadFailed,
    ModelBusy,
    ModelDestroyed,
    NotInThisVersion,
    NpuError,
    SymbolMissing,
    VersionUnknown,
)
from exo_rkllm.runtime.library import Library, check_library, open_library
from exo_rkllm.runtime.locate import find_library, library_marker
from exo_rkllm.runtime.model import NpuModel
from exo_rkllm.runtime.options import LoadOptions, Perf, RunOutcome, SamplingOptions

__all__ = [
    "CallFailed",
    "LayoutMismatch",
    "Library",
    "LibraryNotFound",
    "LibraryNotLoadable",
    "LoadFailed",
    "LoadOptions",
    "ModelBusy",
    "ModelDestroyed",
    "NotInThisVersion",
    "NpuError",
    "NpuModel",
    "Perf",
    "RunOutcome",
    "SamplingOptions",
    "SymbolMissing",
    "VersionUnknown",
    "check_library",
    "find_library",
    "library_marker",
    "open_library",
]
