"""A stand-in for the toolkit's class RKLLM: strict about names, types, order and values, and it converts nothing.

It is copied into a folder as rkllm/api.py, runs on Python 3.9 and later by itself, and judges on its own: nothing of
the converter is asked. Environment, each naming a method but the first:

    RKLLM_STANDIN_RECORD       a file: every call is appended as a line of JSON
    RKLLM_STANDIN_FAIL         returns -1
    RKLLM_STANDIN_RAISE        raises
    RKLLM_STANDIN_STALL        never returns
    RKLLM_STANDIN_CRASH        ends the process as a bad pointer does
    RKLLM_STANDIN_NO_MEMORY    ends the process as the kernel does when memory runs out
"""

from __future__ import annotations

# ruff: noqa: T201 - a toolkit prints
import functools
import json
import os
import signal
import time
from pathlib import Path
from typing import Any, Callable  # noqa: UP035 - as Python 3.9 has it

from . import legal, model_file, weights

__all__ = ["RKLLM", "STAND_IN"]

STAND_IN = True
UNDOCUMENTED: Any = type("Undocumented", (), {"__repr__": lambda _: "left out"})()
"""The default where none is documented: such an argument has to be given."""


def _version() -> str:
    """Of the distribution that this file is part of."""
    for folder in Path(__file__).resolve().parent.parent.glob("rkllm_toolkit-*.dist-info"):
        return folder.name[len("rkllm_toolkit-") : -len(".dist-info")]
    return "1.3.0"


VERSION = _version()
_OLD = tuple(int(one) for one in VERSION.split(".")[:2]) < (1, 3)


def _judged(method: Callable[..., Any]) -> Callable[..., Any]:
    """Records each call. What the method refuses is printed, and -1 returned; a name it does not know raises."""
    name = method.__name__

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        def record(result: Any, problem: str | None = None) -> Any:
            _record({"method": name, "positional": args, "arguments": kwargs, "result": result, "problem": problem})
            return result

        if name == "export_rkllm" and _told(name):
            _half_a_file(kwargs.get("export_path"))
        _misbehave(name, record)
        if os.environ.get("RKLLM_STANDIN_FAIL") == name:
            print(f"ERROR: {name}: told to fail")
            return record(-1, "told to fail")
        try:
            result = method(self, *args, **kwargs)
        except legal.Refusal as refusal:
            print(f"ERROR: {name}: {refusal}")
            return record(-1, str(refusal))
        except TypeError as error:
            record(None, f"TypeError: {error}")
            raise
        record(result if isinstance(result, int) else type(result).__name__)
        return result

    return call


class _Common:
    """What both releases have."""

    def __init__(self) -> None:
        print(f"INFO: rkllm-toolkit version: {VERSION}")
        print("INFO: this is a stand-in: it checks calls, and converts nothing")
        self._folder: Path | None = None
        self._weights = 0
        self._device: str | None = None
        self._lora = False
        self._config: dict[str, Any] = {}
        self._gptq: str | None = None
        self._gguf: dict[str, Any] = {}
        self._built: dict[str, Any] | None = None

    @_judged
    def load_huggingface(  # noqa: PLR0917 - as the toolkit has it
        self,
        model: str,
        model_lora: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        custom_config: str | None = None,
        load_weight: bool = True,  # noqa: FBT001, FBT002 - as the toolkit has it
    ) -> int:
        self._is_first()
        legal.flag("load_weight", load_weight)
        legal.choice("device", device, ("cpu", "cuda"))
        legal.choice("dtype", dtype, ("float32", "float16", "bfloat16"))
        config, size = legal.model_folder(model, load_weight=load_weight)
        gptq = weights.quantised(config)
        if model_lora is not None:
            legal.lora_folder(model_lora)
        if custom_config is not None:
            legal.json_object("custom_config", custom_config)
        self._folder, self._config, self._weights, self._gptq = Path(model), config, size, gptq
        self._device, self._lora = device, model_lora is not None
        print(f"INFO: loaded {model}")
        return 0

    @_judged
    def load_gguf(self, model: str) -> int:
        self._is_first()
        self._gguf, self._weights = weights.gguf_pairs(model)
        self._config = weights.gguf_config(self._gguf)
        self._device = "cpu"
        print(f"INFO: loaded {model}")
        return 0

    @_judged
    def build(  # noqa: PLR0913, PLR0917 - as the toolkit has it
        self,
        do_quantization: bool = UNDOCUMENTED,  # noqa: FBT001 - as the toolkit has it
        optimization_level: int = UNDOCUMENTED,
        quantized_dtype: str = UNDOCUMENTED,
        quantized_algorithm: str = UNDOCUMENTED,
        target_platform: str = UNDOCUMENTED,
        num_npu_core: int = UNDOCUMENTED,
        extra_qparams: str | None = None,
        dataset: str | None = None,
        hybrid_rate: float = UNDOCUMENTED,
        max_context: int = UNDOCUMENTED,
    ) -> int:
        self._is_loaded()
        self._built = None
        legal.flag("do_quantization", do_quantization)
        legal.number("optimization_level", optimization_level, (0, 1))
        platform = legal.platform(target_platform)
        legal.number("num_npu_core", num_npu_core, legal.CHIPS[platform].cores)
        legal.context(max_context)
        dtype = "fp16"
        if do_quantization or quantized_dtype is not UNDOCUMENTED:
            dtype = legal.quantized_dtype(quantized_dtype, platform)
            weights.groups(dtype, self._config)
        weights.becomes(dtype if do_quantization else "fp16", self._gptq, self._gguf)
        if do_quantization or quantized_algorithm is not UNDOCUMENTED:
            legal.algorithm(quantized_algorithm, dtype, self._device, old=_OLD)
        if do_quantization or hybrid_rate is not UNDOCUMENTED:
            legal.hybrid_rate(hybrid_rate)
        if extra_qparams is not None:
            legal.qparams(extra_qparams)
        if dataset is not None:
            legal.dataset(dataset)
        self._built = {
            "platform": platform,
            "max_context": max_context,
            "npu_cores": num_npu_core,
            "dtype": dtype if do_quantization else "fp16",
        }
        print(f"INFO: built for {platform}, {self._built['dtype']}, {num_npu_core} cores")
        return 0

    @_judged
    def update_rkllm(self, model: str) -> int:
        legal.file("model", model, ".rkllm")
        return 0

    @_judged
    def get_logits(self, inputs: Any) -> Any:
        """One row for each position; the largest number is that of the position's own token."""
        self._is_loaded()
        rows = legal.input_ids(inputs)
        width = max(max(row) for row in rows) + 1
        return [[[float(place == token) for place in range(width)] for token in row] for row in rows]

    @_judged
    def chat_model(self, messages: str, args: dict[str, Any]) -> str:
        self._is_loaded()
        legal.chat(messages, args)
        return "The stand-in has nothing to say."

    def _is_first(self) -> None:
        if self._device is not None:
            raise legal.Refusal("a model is loaded already: take another RKLLM()")

    def _is_loaded(self) -> None:
        if self._device is None:
            raise legal.Refusal("no model is loaded: call load_huggingface or load_gguf first")

    def _export(self, export_path: str) -> int:
        if self._built is None:
            raise legal.Refusal("nothing is built: call build first")
        path = legal.export_path(export_path)
        text = model_file.model_text(
            self._folder, self._config, version=VERSION, weights=self._weights, built=self._built
        )
        _write(path, text)
        if self._lora:
            _write(path.with_name(f"{path.stem}_lora.rkllm"), f"rkllm-sim lora\nrkllm-toolkit version: {VERSION}\n")
        print(f"INFO: wrote {path}")
        return 0


class _Release123(_Common):
    @_judged
    def export_rkllm(self, export_path: str) -> int:
        return self._export(export_path)


class _Release130(_Common):
    @_judged
    def export_rkllm(
        self,
        export_path: str,
        export_tokenizer: bool = True,  # noqa: FBT001, FBT002 - as the toolkit has it
        export_embedding: bool = True,  # noqa: FBT001, FBT002 - as the toolkit has it
    ) -> int:
        legal.flag("export_tokenizer", export_tokenizer)
        legal.flag("export_embedding", export_embedding)
        return self._export(export_path)


RKLLM = _Release123 if _OLD else _Release130


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode())


def _record(call: dict[str, Any]) -> None:
    file = os.environ.get("RKLLM_STANDIN_RECORD")
    if not file:
        return
    if not call["positional"]:
        del call["positional"]
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:  # one write: several processes may share the file
        os.write(descriptor, json.dumps(call, default=repr).encode() + b"\n")
    finally:
        os.close(descriptor)


def _told(name: str) -> bool:
    return name in {
        os.environ.get(f"RKLLM_STANDIN_{what}") for what in ("STALL", "RAISE", "CRASH", "NO_MEMORY", "FAIL")
    }


def _half_a_file(path: Any) -> None:
    """What an export leaves that is cut short."""
    if isinstance(path, str) and Path(path).parent.is_dir():
        _write(Path(path), model_file.FIRST_LINE)


def _misbehave(name: str, record: Callable[..., Any]) -> None:
    def told(what: str) -> bool:
        if os.environ.get(f"RKLLM_STANDIN_{what}") != name:
            return False
        record(None, f"told: {what}")
        return True

    if told("RAISE"):
        raise RuntimeError(f"{name}: told to raise")
    if told("CRASH"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if told("NO_MEMORY"):
        os.kill(os.getpid(), signal.SIGKILL)
    if told("STALL"):
        while True:
            time.sleep(60)
