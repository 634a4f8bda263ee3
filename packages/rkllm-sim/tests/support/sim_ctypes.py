"""A thin driver of the simulated library for its tests: ctypes classes made from the tables, and a few words more."""

from __future__ import annotations

import ctypes as c
import functools
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rkllm_facts.abi import SUPPORTED, CType, Field, Function, Layout, layout_for_release
from rkllm_sim.build import build

Builder = Callable[[str], Path]
"""The library of a release, compiled when it is first asked for."""

_SCALARS: dict[str, Any] = {
    "bool": c.c_bool,
    "char": c.c_char,
    "i8": c.c_int8,
    "u8": c.c_uint8,
    "i32": c.c_int32,
    "u32": c.c_uint32,
    "u64": c.c_uint64,
    "f32": c.c_float,
    "size_t": c.c_size_t,
}
_built: dict[str, Path] = {}


def releases(*names: str) -> pytest.MarkDecorator:
    """Parametrizes `abi`. All but the newest are slow: each library takes a second of the compiler's time."""
    newest = SUPPORTED[-1]
    return pytest.mark.parametrize(
        "abi", [name if name == newest else pytest.param(name, marks=pytest.mark.slow) for name in names]
    )


every_release = releases(*SUPPORTED)


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """Each release is compiled once, whichever test file asks first."""

    def compiled(abi: str) -> Path:
        if abi not in _built:
            _built[abi] = build(abi, tmp_path_factory.mktemp("sim") / abi)
        return _built[abi]

    return compiled


class Types:
    """The ctypes classes of a layout."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.callback = self._function(layout.callbacks["LLMResultCallback"])
        self.structs: dict[str, Any] = {}
        for name, struct in layout.structs.items():
            self.structs[name] = self._struct(name, struct.fields)

    def __getattr__(self, name: str) -> Any:
        """The class of a struct, by the end of its name: `Param` is RKLLMParam."""
        if name == "MultiModal":
            name = "MultiModalInput" if "RKLLMMultiModalInput" in self.structs else "MultiModelInput"
        return self.structs[f"RKLLM{name}"]

    def _function(self, function: Function) -> Any:
        returns = None if function.returns.kind == "void" else c.c_int
        kinds = [c.c_void_p if one.type.kind in {"pointer", "handle"} else c.c_int for one in function.parameters]
        return c.CFUNCTYPE(returns, *kinds)

    def _struct(self, name: str, fields: Sequence[Field]) -> Any:
        members: list[tuple[str, Any]] = []
        united = [(one.name, self._type(one)) for one in fields if one.in_union]
        for one in fields:
            if not one.in_union:
                members.append((one.name, self._type(one)))
            elif one.name == united[0][0]:
                members.append(("united", type(f"{name}Union", (c.Union,), {"_fields_": united})))
        content = {"_fields_": members, "_anonymous_": ("united",) if united else ()}
        return type(name, (c.Structure,), content)

    def _type(self, one: Field) -> Any:
        kind: CType = one.type
        if one.fields:
            return self._struct(one.name, one.fields)
        if kind.kind == "scalar":
            return _SCALARS[kind.name]
        if kind.kind == "array":
            assert kind.target is not None
            return _SCALARS[kind.target.name] * kind.length
        if kind.kind == "struct":
            return self.structs[kind.name]
        plain = {"enum": c.c_uint32, "ptr<char>": c.c_char_p}
        return plain.get(kind.kind) or plain.get(str(kind), c.c_void_p)


@functools.cache
def types_of(release: str) -> Types:
    return Types(layout_for_release(release))


@dataclass
class Call:
    """One callback: the state's name in small letters, the text as bytes, and the floats if there were any."""

    state: str
    text: bytes | None
    token: int
    thread: int
    hidden: list[list[float]] = field(default_factory=list)
    logits: list[list[float]] = field(default_factory=list)
    perf: Any = None


@dataclass
class Outcome:
    """What rkllm_run returned, and the callbacks."""

    ret: int
    calls: list[Call]

    @property
    def text(self) -> str:
        return b"".join(one.text or b"" for one in self.calls if one.state == "normal").decode()

    @property
    def states(self) -> list[str]:
        return [one.state for one in self.calls]

    @property
    def ids(self) -> list[int]:
        return [one.token for one in self.calls if one.state == "normal"]


def _rows(data: int | None, width: int, rows: int) -> list[list[float]]:
    if not data:
        return []
    floats = (c.c_float * (width * rows)).from_address(data)
    return [list(floats[row * width : (row + 1) * width]) for row in range(rows)]


class Model:
    """A handle of the library. `answer` is called with each callback and gives its return value."""

    def __init__(self, library: Path, release: str, **settings: Any) -> None:
        self.types = types_of(release)
        self.release = release
        self.lib = c.CDLL(str(library))
        self.answer: Callable[[Call], int] = lambda call: 0
        self.calls: list[Call] = []
        self.handle = c.c_void_p()
        states = self.types.layout.enums["LLMCallState"].values
        self.states = {number: name.removeprefix("RKLLM_RUN_").lower() for name, number in states.items()}
        self.lib.rkllm_createDefaultParam.restype = self.types.Param
        self.param = self.lib.rkllm_createDefaultParam()
        self.callback = self.types.callback(self._called)
        self.kept: list[Any] = []
        self._init(settings)

    def _init(self, settings: dict[str, Any]) -> None:
        self.param.max_context_len = 256
        for name, value in settings.items():
            target = self.param.extend_param if hasattr(self.param.extend_param, name) else self.param
            setattr(target, name, str(value).encode() if isinstance(value, str | Path) else value)
        third: Any = self.callback
        if "RKLLMCallback" in self.types.structs:
            self.struct = self.types.Callback(result_callback=c.cast(self.callback, c.c_void_p))
            third = c.byref(self.struct)
        self.ret = self.lib.rkllm_init(c.byref(self.handle), c.byref(self.param), third)

    def _called(self, result: int, userdata: int, state: int) -> int:
        found = self.types.Result.from_address(result)
        layer = found.last_hidden_layer
        call = Call(self.states[state], found.text, found.token_id, threading.get_native_id())
        call.hidden = _rows(layer.hidden_states, layer.embd_size, layer.num_tokens)
        if hasattr(found, "logits"):
            call.logits = _rows(found.logits.logits, found.logits.vocab_size, found.logits.num_tokens)
        if hasattr(found, "perf"):
            call.perf = self.types.PerfStat.from_buffer_copy(found.perf)
        self.calls.append(call)
        return self.answer(call)

    # --- runs ---

    def input(self, prompt: Sequence[int] | str | Any) -> Any:
        made = self.types.Input()
        if isinstance(prompt, str):
            made.input_type = 0
            made.prompt_input = prompt.encode()
        elif isinstance(prompt, self.types.MultiModal):
            made.input_type = 3
            made.multimodal_input = prompt
        elif prompt and isinstance(prompt[0], list):
            made.input_type = 2
            rows: Any = prompt
            made.embed_input.embed = self.floats(rows)
            made.embed_input.n_tokens = len(prompt)
        else:
            ids = (c.c_int32 * len(prompt))(*prompt)
            self.kept.append(ids)
            made.input_type = 1
            made.token_input.input_ids = c.cast(ids, c.c_void_p)
            made.token_input.n_tokens = len(prompt)
        return made

    def floats(self, rows: Sequence[Sequence[float]]) -> Any:
        flat = [value for row in rows for value in row]
        data = (c.c_float * len(flat))(*flat)
        self.kept.append(data)
        return c.cast(data, c.c_void_p)

    def infer(self, **settings: Any) -> Any:
        made = self.types.InferParam()
        for name, value in settings.items():
            if isinstance(value, c.Structure):
                self.kept.append(value)
                setattr(made, name, c.cast(c.byref(value), c.c_void_p))
            else:
                setattr(made, name, value)
        return made

    def run(
        self, prompt: Any, *, answer: Callable[[Call], int] | None = None, asynchronous: bool = False, **settings: Any
    ) -> Outcome:
        """One run. `role` and `enable_thinking` are of the input, the others of RKLLMInferParam."""
        made = self.input(prompt)
        for name in ("role", "enable_thinking"):
            if name in settings:
                setattr(made, name, settings.pop(name))
        infer = self.infer(**settings)
        self.calls = []
        self.answer = answer or (lambda call: 0)
        function = self.lib.rkllm_run_async if asynchronous else self.lib.rkllm_run
        ret = function(self.handle, c.byref(made), c.byref(infer), None)
        return Outcome(ret, self.calls)

    # --- the rest ---

    def call(self, name: str, *arguments: Any) -> int:
        ret: int = getattr(self.lib, f"rkllm_{name}")(self.handle, *arguments)
        return ret

    def clear(self, *, keep_system: int = 0, start: int | None = None, end: int | None = None) -> int:
        if len(self.types.layout.functions["rkllm_clear_kv_cache"].parameters) == 2:
            return self.call("clear_kv_cache", keep_system)
        ranges = [c.byref(c.c_int(one)) if one is not None else None for one in (start, end)]
        return self.call("clear_kv_cache", keep_system, *ranges)

    def cache_size(self) -> int:
        size = c.c_int(-1)
        assert self.call("get_kv_cache_size", c.byref(size)) == 0
        return size.value

    def destroy(self) -> int:
        return self.call("destroy")


class Bench:
    """What most tests need: models of a release, and the call log in a new folder."""

    def __init__(self, libraries: Builder, folder: Path) -> None:
        self.libraries = libraries
        self.folder = folder
        self.log = folder / "calls.jsonl"
        self.loaded: list[Model] = []

    def load(self, release: str, path: Path, **settings: Any) -> Model:
        """A model that is loaded; it is destroyed after the test."""
        model = self.try_to_load(release, path, **settings)
        assert model.ret == 0
        assert model.handle.value
        return model

    def try_to_load(self, release: str, path: Path, **settings: Any) -> Model:
        model = Model(self.libraries(release), release, model_path=path, **settings)
        if model.handle.value:
            self.loaded.append(model)
        return model

    def last_run(self) -> dict[str, Any]:
        """The line that the last rkllm_run wrote when it returned."""
        return self.calls("rkllm_run", "return")[-1]

    def calls(self, call: str = "", event: str = "") -> list[dict[str, Any]]:
        """The lines of the call log, those of one call or event only if these are named."""
        return read_log(self.log, call, event)


@pytest.fixture
def bench(libraries: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(libraries, tmp_path)
    monkeypatch.setenv("RKLLM_SIM_LOG", str(made.log))
    yield made
    for model in made.loaded:
        model.destroy()


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a condition. Raises AssertionError after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition has not come true"
        time.sleep(0.002)


def read_log(path: Path, call: str = "", event: str = "") -> list[dict[str, Any]]:
    """The lines of the call log, those of one call or event only if these are named."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return [line for line in lines if (not call or line["call"] == call) and (not event or line.get("event") == event)]
