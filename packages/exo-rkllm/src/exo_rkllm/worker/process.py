"""The worker's own side: one model, one run at a time.

Two threads. The main one reads frames and calls rkllm_abort; the running one loads the model and calls rkllm_run, and
the runtime calls back on it (or on a thread of its own), where each token is written to the socket at once. A write
blocks while the node does not read. Either end closing the socket ends the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from exo_rkllm.runtime import (
    CallFailed,
    LoadOptions,
    NpuError,
    NpuModel,
    Perf,
    SamplingOptions,
    open_library,
)
from exo_rkllm.worker.frames import (
    FLAG_TEXT,
    RUN_HEAD,
    RUN_ID,
    TOKEN_HEAD,
    Done,
    FrameReader,
    Kind,
    Loaded,
    LoadOrder,
    Refused,
    frame,
    ids_from_bytes,
)

_READ = 1 << 16
_END = 0
_END_GRACE = 2.0
_LOAD_FAILED = 3
_DEFECT = 70


class Worker:
    """Serves one socket until it closes."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        connection.set_inheritable(False)  # a child of the runtime would keep it open
        self._orders: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()
        self._model: NpuModel | None = None
        self._stop_wanted, self._stop_signal = os.pipe()
        self._lock = threading.Lock()
        self._run: _Run | None = None
        self._dropped: set[int] = set()  # runs that were aborted before they began
        self._runner = threading.Thread(target=self._work, daemon=True, name="runner")

    def serve(self) -> None:
        """The main thread: read frames until the node is gone, then end the process."""
        self._runner.start()
        reader = FrameReader()
        poll = select.poll()
        for descriptor in (self._socket.fileno(), self._stop_wanted):
            poll.register(descriptor, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self._stop_wanted:
                    os.read(descriptor, _READ)
                    self._abort(None)
                elif not self._receive(reader):
                    self._end()

    def _receive(self, reader: FrameReader) -> bool:
        """Read what has come; False once the node is gone."""
        try:
            data = self._socket.recv(_READ)
        except ConnectionError:
            return False
        for kind, body in reader.feed(data):
            if kind == Kind.ABORT:
                self._abort(RUN_ID.unpack(body)[0])
            else:
                self._orders.put((kind, body))
        return bool(data)

    def _abort(self, run_id: int | None) -> None:
        """End a run, or with None the one that goes on. A run that has not begun never will."""
        with self._lock:
            run = self._run
            if run is None or (run_id is not None and run_id != run.id):
                if run_id is not None:
                    self._dropped.add(run_id)
                return
            run.aborted = run.aborted or run_id is not None
            model = self._model
        try:
            if model is not None:
                model.abort()
        except NpuError as error:  # the run goes on; if it gives no sign of life, the node ends this process
            print(error, file=sys.stderr, flush=True)  # noqa: T201 - the node reads it

    def _end(self) -> NoReturn:
        """The runtime may be in a call that cannot be ended: then the system frees what it holds."""
        self._abort(None)
        self._orders.put((_END, b""))
        self._runner.join(_END_GRACE)
        os._exit(0)

    # --- the running thread ---

    def _work(self) -> None:
        handlers: dict[int, Callable[[bytes], None]] = {
            Kind.LOAD: self._on_load,
            Kind.RUN: self._on_run,
            Kind.EMBED: self._on_embed,
            _END: self._on_end,
        }
        try:
            while True:
                kind, body = self._orders.get()
                handlers[kind](body)
        except OSError:  # the node is gone: nobody is left to tell
            os._exit(0)
        except BaseException:  # noqa: BLE001 - a defect: without this thread the process is of no use
            traceback.print_exc()
            os._exit(_DEFECT)

    def _on_load(self, body: bytes) -> None:
        order: LoadOrder = json.loads(body)
        started = time.monotonic()
        use_line_buffering()
        if order["housekeeping"]:
            leave_to_runtime(order["housekeeping"])
        try:
            library = open_library(Path(order["library"]), abi=order["abi"])
            self._model = library.load(
                LoadOptions(
                    model_path=Path(order["model"]),
                    max_context=order["max_context"],
                    max_new_tokens=order["max_new_tokens"],
                    sampling=sampling_options(order["sampling"]),
                    cpus=tuple(order["cpus"]) or None if library.features.has_cpu_mask else None,
                )
            )
            if not order["template"]:
                self._model.switch_off_template()
        except (NpuError, ValueError) as error:  # ValueError: a setting that no version can take
            self._send_json(Kind.REFUSED, refusal(error))
            os._exit(_LOAD_FAILED)
        loaded: Loaded = {
            "version": library.version,
            "layout": library.layout.name,
            "warnings": list(library.warnings),
            "seconds": time.monotonic() - started,
        }
        self._send_json(Kind.LOADED, loaded)

    def _on_run(self, body: bytes) -> None:
        run_id, cap, flags, length = RUN_HEAD.unpack_from(body)
        start = RUN_HEAD.size + length
        sampling = sampling_options(json.loads(body[RUN_HEAD.size : start] or b"{}"))
        prompt = body[start:].decode() if flags & FLAG_TEXT else ids_from_bytes(body[start:])
        run = _Run(run_id, cap, self._socket, self._stop_signal)
        self._guarded(run, lambda model: generate(model, run, prompt, sampling))

    def _on_embed(self, body: bytes) -> None:
        (run_id,) = RUN_ID.unpack_from(body)
        ids = ids_from_bytes(body[RUN_ID.size :])
        run = _Run(run_id, 0, self._socket, self._stop_signal)
        self._guarded(run, lambda model: frame(Kind.EMBEDDING, RUN_ID.pack(run_id) + model.embed(ids).tobytes()))

    def _on_end(self, _: bytes) -> None:
        if self._model is not None:
            self._model.destroy()
        os._exit(0)

    def _guarded(self, run: _Run, work: Callable[[NpuModel], bytes]) -> None:
        """Do the work of one run, which may be aborted meanwhile, and send its result or its failure."""
        model = self._model
        if model is None:
            raise RuntimeError("a run was ordered before a load")
        with self._lock:
            dropped = run.id in self._dropped
            self._dropped = {other for other in self._dropped if other > run.id}
            self._run = None if dropped else run
        try:
            answer = done(run, None, 0.0, dropped=True) if dropped else work(model)
        except (NpuError, ValueError) as error:  # ValueError: a prompt that cannot be passed
            answer = frame(Kind.FAILED, RUN_ID.pack(run.id) + json.dumps(refusal(error)).encode())
        finally:
            with self._lock:
                self._run = None
        self._socket.sendall(answer)

    def _send_json(self, kind: Kind, body: Loaded | Refused) -> None:
        self._socket.sendall(frame(kind, json.dumps(body).encode()))


class _Run:
    """One run. Called for each token, it writes that to the socket, `cap` tokens at most.

    After the last one it asks the main thread for an abort, and it asks again with each token that comes in spite of an
    abort: one that was called a moment before the runtime began has no effect.
    """

    def __init__(self, run_id: int, cap: int, connection: socket.socket, signal: int) -> None:
        self.id = run_id
        self.cap = cap
        self.sent = 0
        self.capped = False
        self.aborted = False
        self.caps_itself = False  # the runtime ends the run at `cap`
        self._send = connection.sendall
        self._signal = signal

    def __call__(self, text: bytes, token_id: int) -> None:
        if self.capped or self.aborted:
            os.write(self._signal, b"!")
            return
        self.sent += 1
        self._send(_PACK_TOKEN(8 + len(text), _TOKEN, self.id, token_id) + text)
        if self.sent == self.cap:
            self.capped = True
            if not self.caps_itself:
                os.write(self._signal, b"!")


def generate(model: NpuModel, run: _Run, prompt: Sequence[int] | str, sampling: SamplingOptions) -> bytes:
    """Run to the end; returns the frame that tells how it went. Raises NpuError."""
    run.caps_itself = model.features.max_new_tokens_per_run
    started = time.monotonic()
    outcome = model.run(
        prompt,
        run,
        sampling=sampling if model.features.sampling_per_run else None,
        max_new_tokens=run.cap if run.caps_itself else None,
    )
    seconds = time.monotonic() - started
    if outcome.error and not (run.aborted or run.capped):
        raise CallFailed("rkllm_run", -1)
    return done(run, outcome.perf, seconds, cached=model.cache_size())


def done(run: _Run, perf: Perf | None, seconds: float, *, cached: int | None = None, dropped: bool = False) -> bytes:
    body: Done = {
        "tokens": run.sent,
        "aborted": dropped or (run.aborted and not run.capped),
        "prefilled": perf.prefill_tokens if perf else None,
        "prefill_ms": perf.prefill_ms if perf else None,
        "decode_ms": perf.generate_ms if perf else None,
        "seconds": seconds,
        "cached": cached,
    }
    return frame(Kind.DONE, RUN_ID.pack(run.id) + json.dumps(body).encode())


_PACK_TOKEN = TOKEN_HEAD.pack
_TOKEN = int(Kind.TOKEN)


def refusal(error: Exception) -> Refused:
    return {"kind": type(error).__name__, "message": str(error)}


def use_line_buffering() -> None:
    """Let what the library prints come line by line, though it goes into a pipe."""
    libc = ctypes.CDLL(None)
    with contextlib.suppress(AttributeError, ValueError):  # a C library that hides its stdout
        stdout = ctypes.c_void_p.in_dll(libc, "stdout")
        libc.setvbuf(stdout, None, 1, 0)


def leave_to_runtime(housekeeping: list[int]) -> None:
    """The main thread keeps to the CPUs for housekeeping; this one, and the runtime's that it begets, have all."""
    with contextlib.suppress(OSError):  # a CPU that was taken away, or a container that forbids it
        os.sched_setaffinity(os.getpid(), housekeeping)
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def sampling_options(fields: dict[str, Any]) -> SamplingOptions:
    return SamplingOptions(**fields)
