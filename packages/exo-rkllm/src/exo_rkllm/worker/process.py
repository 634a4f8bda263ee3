"""The worker's own side: one model, one run at a time.

Two threads. The running one waits for orders, loads the model and calls rkllm_run; the runtime calls back on it (or on
a thread of its own), where each token is written to the socket at once. The main one listens during a run, for that is
when the other cannot: it calls rkllm_abort. Whichever reads an order of the other hands it over. A write blocks while
the node does not read. Either end closing the socket ends the process.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import json
import os
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
    RunOutcome,
    SamplingOptions,
    open_library,
)
from exo_rkllm.worker.frames import (
    DONE_BODY,
    FLAG_TEXT,
    RUN_HEAD,
    RUN_ID,
    TOKEN_HEAD,
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
        self._reader = FrameReader()
        self._reading = threading.Lock()
        self._orders: collections.deque[tuple[int, bytes]] = collections.deque()
        self._order_came = Signal()
        self._stop_wanted = Signal()
        self._listening = threading.Event()
        self._model: NpuModel | None = None
        self._lock = threading.Lock()
        self._run: _Run | None = None
        self._dropped: set[int] = set()  # runs that were aborted before they began
        self._runner = threading.Thread(target=self._work, daemon=True, name="runner")

    def serve(self) -> None:
        """The main thread: listen during each run."""
        self._runner.start()
        poll = poll_of(self._socket, self._stop_wanted)
        while True:
            self._listening.wait()
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._stop_wanted.fileno() in ready:
                self._stop_wanted.clear()
                self._abort_if_complete()
            if self._socket.fileno() in ready:
                if not self._receive():
                    self._end()
                if self._orders:
                    self._order_came.set()

    def _receive(self) -> bool:
        """Read what has come, if the other thread has not; False once the node is gone."""
        with self._reading:
            try:
                data = self._socket.recv(_READ, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            except ConnectionError:
                return False
            for kind, body in self._reader.feed(data):
                if kind == Kind.ABORT:
                    self._abort(RUN_ID.unpack(body)[0])
                else:
                    self._orders.append((kind, body))
        return bool(data)

    def _abort(self, run_id: int) -> None:
        """The node wants no more of a run. One that has not begun never will."""
        with self._lock:
            run = self._run
            if run is None or run_id != run.id:
                self._dropped.add(run_id)
                return
            run.aborted = True
        self._abort_model()

    def _abort_if_complete(self) -> None:
        """The run in hand has all its tokens, or tokens come in spite of an abort."""
        with self._lock:
            run = self._run
        if run is not None and (run.capped or run.aborted):
            self._abort_model()

    def _abort_model(self) -> None:
        try:
            if self._model is not None:
                self._model.abort()
        except NpuError as error:  # the run goes on; if it gives no sign of life, the node ends this process
            print(error, file=sys.stderr, flush=True)  # noqa: T201 - the node reads it

    def _end(self) -> NoReturn:
        """The runtime may be in a call that cannot be ended: then the system frees what it holds."""
        self._abort_model()
        self._orders.append((_END, b""))
        self._order_came.set()
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
        poll = poll_of(self._socket, self._order_came)
        try:
            while True:
                while not self._orders:
                    poll.poll()
                    self._order_came.clear()
                    if not self._receive():
                        self._orders.append((_END, b""))
                kind, body = self._orders.popleft()
                self._listening.set()
                handlers[kind](body)
                self._listening.clear()
                self._stop_wanted.set()  # the main thread goes to wait for the next order
        except OSError:  # the node is gone: nobody is left to tell
            self._on_end(b"")
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
                    base_domain_id=order["domain"] if library.features.safe_base_domain else 0,
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
        sampling = sampling_options(json.loads(body[RUN_HEAD.size : start])) if length else SamplingOptions()
        prompt = body[start:].decode() if flags & FLAG_TEXT else ids_from_bytes(body[start:])
        run = _Run(run_id, cap, self._socket, self._stop_wanted)
        run.counted = not flags & FLAG_TEXT
        self._guarded(run, lambda model: generate(model, run, prompt, sampling))

    def _on_embed(self, body: bytes) -> None:
        (run_id,) = RUN_ID.unpack_from(body)
        ids = ids_from_bytes(body[RUN_ID.size :])
        run = _Run(run_id, 0, self._socket, self._stop_wanted)
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
            answer = done(run, None) if dropped else work(model)
        except (NpuError, ValueError) as error:  # ValueError: a prompt that cannot be passed
            answer = frame(Kind.FAILED, RUN_ID.pack(run.id) + json.dumps(refusal(error)).encode())
        finally:
            with self._lock:
                self._run = None
        if run.counted:  # the node need not wait for it
            self._socket.sendall(answer)
        positions = None if dropped else model.cache_size()
        if positions is not None:
            self._socket.sendall(frame(Kind.CACHE, RUN_ID.pack(positions)))
        if not run.counted:
            self._socket.sendall(answer)

    def _send_json(self, kind: Kind, body: Loaded | Refused) -> None:
        self._socket.sendall(frame(kind, json.dumps(body).encode()))


class Signal:
    """Wakes a thread that polls. It is set or not; setting it twice is setting it once."""

    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        os.set_blocking(self._out, False)
        os.set_blocking(self._in, False)

    def fileno(self) -> int:
        return self._out

    def set(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is set many times over
            os.write(self._in, b"!")

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is not set
            os.read(self._out, _READ)


def poll_of(*sources: socket.socket | Signal) -> select.poll:
    poll = select.poll()
    for source in sources:
        poll.register(source.fileno(), select.POLLIN)
    return poll


class _Run:
    """One run. Called for each token, it writes that to the socket, `cap` tokens at most.

    After the last one it asks the main thread for an abort, and it asks again with each token that comes in spite of an
    abort: one that was called a moment before the runtime began has no effect.
    """

    def __init__(self, run_id: int, cap: int, connection: socket.socket, stop_wanted: Signal) -> None:
        self.id = run_id
        self.cap = cap
        self.sent = 0
        self.capped = False
        self.aborted = False
        self.caps_itself = False  # the runtime ends the run at `cap`
        self.counted = True  # the node knows the length of the prompt
        self._send = connection.sendall
        self._stop_wanted = stop_wanted

    def __call__(self, text: bytes, token_id: int) -> None:
        if self.capped or self.aborted:
            self._stop_wanted.set()
            return
        self.sent += 1
        self._send(_PACK_TOKEN(8 + len(text), _TOKEN, self.id, token_id) + text)
        if self.sent == self.cap:
            self.capped = True
            if not self.caps_itself:
                self._stop_wanted.set()


def generate(model: NpuModel, run: _Run, prompt: Sequence[int] | str, sampling: SamplingOptions) -> bytes:
    """Run to the end; returns the frame that tells how it went. Raises NpuError."""
    run.caps_itself = model.features.max_new_tokens_per_run
    outcome = model.run(
        prompt,
        run,
        sampling=sampling if model.features.sampling_per_run else None,
        max_new_tokens=run.cap if run.caps_itself else None,
    )
    if outcome.error and not (run.aborted or run.capped):
        raise CallFailed("rkllm_run", -1)
    return done(run, outcome)


def done(run: _Run, outcome: RunOutcome | None) -> bytes:
    """`outcome` is None for a run that was aborted before it began."""
    aborted = outcome is None or (run.aborted and not run.capped)
    tokens, perf = (outcome.tokens, outcome.perf) if outcome else (0, None)
    measured = (perf.prefill_tokens, perf.prefill_ms, perf.generate_ms) if perf else (-1, 0.0, 0.0)
    return frame(Kind.DONE, DONE_BODY.pack(run.id, tokens, aborted, *measured))


_PACK_TOKEN = TOKEN_HEAD.pack
_TOKEN = int(Kind.TOKEN)


def refusal(error: Exception) -> Refused:
    if isinstance(error, NpuError):
        return {"kind": type(error).__name__, "message": error.message, "advice": f" {error.advice}".rstrip()}
    return {"kind": type(error).__name__, "message": str(error), "advice": ""}


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
