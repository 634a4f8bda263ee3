"""A library that is played by a Python function, for what the simulator cannot be made to do at the right moment."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from exo_rkllm.runtime import LoadOptions, NpuModel
from exo_rkllm.runtime.ctypes_types import types_of
from exo_rkllm.runtime.raw import RawLibrary
from rkllm_facts.abi import Features, layout

STATES = {"NORMAL": 0, "WAITING": 1, "FINISH": 2, "ERROR": 3, "HIDDEN": 4}


class FakeRaw:
    """Stands for RawLibrary. `play(fake)` is what rkllm_run does; it calls `emit` and returns the code."""

    def __init__(self, abi: str, play: Callable[[FakeRaw], int]) -> None:
        self.types = types_of(layout(abi))
        self.log: list[str] = []
        self.runs_now = 0  # what rkllm_is_running answers
        self.abort_code = 0
        self.aborted = threading.Event()
        self.on_abort: Callable[[], None] = lambda: None
        self._play = play
        self._result: Any = self.types.structs["RKLLMResult"]
        self._callback: Any = None

    def emit(self, state: str, text: bytes | int | None = None, token_id: int = 0, **fields: Any) -> int | None:
        """One callback. `text` may be an address; with `null` there is no result at all."""
        null = fields.pop("null", False)
        result = self._result(text=text, token_id=token_id, **fields)
        pointer = None if null else ctypes.pointer(result)
        answer: int | None = self._callback(pointer, None, STATES[state])
        return answer

    def hidden(self, rows: list[list[float]], state: str = "NORMAL") -> None:
        numbers = [number for row in rows for number in row]
        floats = (ctypes.c_float * len(numbers))(*numbers)
        layer = self.types.structs["RKLLMResultLastHiddenLayer"](
            ctypes.cast(floats, ctypes.POINTER(ctypes.c_float)), len(rows[0]), len(rows)
        )
        self.emit(state, None, 0, last_hidden_layer=layer)
        for index in range(len(numbers)):
            floats[index] = float("nan")  # valid in the callback only

    def create_default_param(self) -> Any:
        return self.types.structs["RKLLMParam"]()

    def init(self, handle: Any, _param: Any, callback: Any) -> int:
        handle._obj.value = 4711
        struct = not hasattr(type(callback), "_restype_")
        self._callback = callback.contents.result_callback if struct else callback
        return 0

    def run(self, *_arguments: Any) -> int:
        self.log.append("run")
        code = self._play(self)
        self.log.append("returned")
        return code

    def abort(self, _handle: Any) -> int:
        self.log.append("abort")
        self.on_abort()
        self.aborted.set()
        return self.abort_code

    def is_running(self, _handle: Any) -> int:
        return self.runs_now

    def clear_kv_cache(self, *_arguments: Any) -> int:
        self.log.append("clear")
        return 0

    def destroy(self, _handle: Any) -> int:
        return 0


def fake_model(folder: Path, abi: str, play: Callable[[FakeRaw], int]) -> tuple[NpuModel, FakeRaw]:
    path = folder / "fake.rkllm"
    path.touch()
    raw = FakeRaw(abi, play)
    options = LoadOptions(path, max_context=64, max_new_tokens=-1)
    return NpuModel(cast("RawLibrary", raw), Features(layout(abi)), options), raw


def finish(raw: FakeRaw) -> int:
    """The end of a run, or all of one."""
    raw.emit("FINISH")
    return 0


def wait_for(event: threading.Event) -> None:
    assert event.wait(10)
