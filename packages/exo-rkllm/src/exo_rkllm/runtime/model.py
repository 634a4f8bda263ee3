"""A loaded model: every call to the library goes through here, and every return code is looked at."""

from __future__ import annotations

import contextlib
import ctypes
import enum
import logging
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from exo_rkllm.runtime import structs
from exo_rkllm.runtime.errors import CallFailed, LoadFailed, ModelBusy, ModelDestroyed
from exo_rkllm.runtime.options import LoadOptions, RunOutcome, SamplingOptions
from exo_rkllm.runtime.raw import RawLibrary
from exo_rkllm.runtime.receiver import HiddenStates, OnToken, Receiver
from rkllm_facts.abi import Features

_MOST_BATCHES = 255  # n_batch is a byte; the library writes one size for each
_LOAD_ADVICE = (
    "Usual causes: the model was made for another chip or a newer toolkit, "
    "its context limit is below the context asked for, the memory is taken, or the file is damaged."
)

logger = logging.getLogger(__name__)


class _State(enum.Enum):
    """IDLE ─call→ BUSY ─return→ IDLE; IDLE ─run→ RUNNING ─return→ IDLE; IDLE ─destroy→ DESTROYED."""

    IDLE = "idle"
    BUSY = "busy"
    RUNNING = "running"
    DESTROYED = "destroyed"


class NpuModel:
    """One handle of librkllmrt. One call at a time; abort() alone may come meanwhile, from any thread.

    Blocks: everything but abort(). Times out: nothing, whoever owns the process has to watch it. Can race: abort()
    with the end of a run; it does nothing then.
    """

    def __init__(self, raw: RawLibrary, features: Features, options: LoadOptions) -> None:
        """Loads the model. Raises LoadFailed, NotInThisVersion, ValueError for a setting that no version can take."""
        self.features = features
        self.options = options
        self._raw = raw
        self._types = raw.types
        self._lock = threading.Lock()
        self._state = _State.IDLE
        self._run_number = 0
        self._aborted = False
        self._abort_holds = False  # it was called after the first callback, so it cannot be lost
        self._receiver = Receiver(raw.types, self._abort_soon)
        self._kept: list[Any] = []  # the library may look at what it was given as long as the handle lives
        self._handle = self._load()

    @property
    def sampling(self) -> SamplingOptions:
        """What the model was loaded with, the library's own values included."""
        return self._sampling

    def run(
        self,
        prompt: Sequence[int] | str,
        on_token: OnToken,
        *,
        sampling: SamplingOptions | None = None,
        max_new_tokens: int | None = None,
    ) -> RunOutcome:
        """Answer a prompt of token ids, or a text, to which the library applies its chat template.

        Blocks until rkllm_run returns. `on_token(text, token_id)` is called for each token, on the library's thread;
        text is b"" where there is none, the id -1 where none is promised. What it raises ends the run and is raised
        here. `sampling` and `max_new_tokens` (from 1.3.0) hold for this run.

        Raises CallFailed if rkllm_run fails, unless abort() was called; NotInThisVersion, ModelBusy, ModelDestroyed;
        ValueError for a prompt that cannot be passed.
        """
        infer = structs.infer_param(self._types, self.features, "RKLLM_INFER_GENERATE")
        structs.limit_run(infer, self.features, max_new_tokens)
        structs.set_run_sampling(infer, self._types, self.features, self.sampling, sampling)
        code = self._run("run", structs.prompt_input(self._types, self.features, prompt), infer, on_token)
        if code != 0 and not self._aborted:
            raise CallFailed("rkllm_run", code)
        return self._receiver.outcome()

    def embed(self, ids: Sequence[int]) -> array[float]:
        """The hidden state at the last position of a prompt, as float32.

        The cache is cleared before, where the version can: what a run for hidden states does with positions that it
        finds in the cache is not documented. Raises as run(), and CallFailed if no hidden states came.
        """
        if self.features.clear_kv_cache_arguments:
            self.clear_cache()
        infer = structs.infer_param(self._types, self.features, "RKLLM_INFER_GET_LAST_HIDDEN_LAYER")
        hidden = HiddenStates(len(ids))
        code = self._run("embed", structs.prompt_input(self._types, self.features, ids), infer, _ignore, hidden)
        if code != 0 and not self._aborted:
            raise CallFailed("rkllm_run", code)
        if hidden.last is None:
            problem = f"No hidden states came for {len(ids)} tokens: {self.options.model_path} gives none."
            if self._aborted and not self._receiver.stopping:
                problem = "abort() ended the run before the hidden states came."
            raise CallFailed("rkllm_run", code, problem)
        return hidden.last

    def abort(self) -> None:
        """End the run that is under way, soon: it returns after a token more or, in prefill, after that. If none is
        under way nothing happens; one that starts later is not touched.

        rkllm_abort is called only while a run is known to go on: after its first callback, or if rkllm_is_running says
        so, and before its last one. Before the first callback it may be lost, so it is called again with the first
        token. Inside `on_token` it is left to another thread. Raises CallFailed if the library refuses.
        """
        if threading.get_ident() == self._receiver.thread:
            self._abort_soon()
        else:
            self._abort(self._run_number)

    def clear_cache(self) -> None:
        """Forget every position, those of a system prompt too. Raises NotInThisVersion before 1.2.0."""
        ranges = (None, None) if self.features.clear_kv_cache_arguments > 2 else ()
        with self._exclusive("clear_cache"):
            self._check("rkllm_clear_kv_cache", self._raw.clear_kv_cache(self._handle, 0, *ranges))

    def cache_size(self) -> int | None:
        """Positions held in the cache; None before 1.2.1, which cannot tell."""
        if not self.features.has_kv_cache_size:
            return None
        sizes = (ctypes.c_int32 * _MOST_BATCHES)()
        with self._exclusive("cache_size"):
            self._check("rkllm_get_kv_cache_size", self._raw.get_kv_cache_size(self._handle, sizes))
        return sizes[0]

    def switch_off_template(self) -> None:
        """Take text prompts as they are from here on, and empty the cache. 1.1.x has no call for it, so there this does
        nothing. No document says in words that three empty strings switch the template off; others do it so."""
        if self.features.has_chat_template:
            with self._exclusive("switch_off_template"):
                self._check("rkllm_set_chat_template", self._raw.set_chat_template(self._handle, b"", b"", b""))

    def destroy(self) -> None:
        """Free the model. Again: nothing. Raises ModelBusy during a run."""
        with self._lock:
            if self._state is _State.DESTROYED:
                return
            if self._state is not _State.IDLE:
                raise ModelBusy("destroy", self.options.model_path)
            self._state = _State.DESTROYED
        self._check("rkllm_destroy", self._raw.destroy(self._handle))
        self._kept.clear()

    def _load(self) -> ctypes.c_void_p:
        path = self.options.model_path
        if not path.is_file():
            raise LoadFailed(path, None, "there is no such file.")
        param = structs.load_param(self._raw.create_default_param(), self.features, self.options)
        self._sampling = structs.sampling_of(param, self.options.sampling)
        callback = structs.result_callback(self._types, self._receiver.take)
        argument = structs.init_callback(self._types, self.features, callback)
        self._kept += [param, callback, argument]
        handle = ctypes.c_void_p()
        code = self._raw.init(ctypes.byref(handle), ctypes.byref(param), argument)
        if code != 0:
            raise LoadFailed(path, code, f"rkllm_init returned {code}.", _LOAD_ADVICE)
        if not handle.value:
            raise LoadFailed(path, code, "rkllm_init returned 0, but gave no handle.", _LOAD_ADVICE)
        return handle

    def _run(self, what: str, prompt: Any, infer: Any, on_token: OnToken, hidden: HiddenStates | None = None) -> int:
        """What rkllm_run returned. Raises what the callback raised."""
        receiver = self._receiver
        with self._exclusive(what, _State.RUNNING, lambda: receiver.begin(on_token, hidden)):
            code: int = self._raw.run(self._handle, ctypes.byref(prompt), ctypes.byref(infer), None)
        if receiver.failure is not None:
            raise receiver.failure
        return code

    @contextlib.contextmanager
    def _exclusive(
        self, what: str, during: _State = _State.BUSY, begin: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """`begin` is called before anybody else can see the new state."""
        with self._lock:
            if self._state is _State.DESTROYED:
                raise ModelDestroyed(what, self.options.model_path)
            if self._state is not _State.IDLE:
                raise ModelBusy(what, self.options.model_path)
            self._state = during
            self._aborted = self._abort_holds = False
            if begin is not None:
                begin()
        try:
            yield
        finally:
            with self._lock:  # so an rkllm_abort that is under way has returned before anything else begins
                self._state = _State.IDLE
                self._run_number += 1
                self._receiver.end()

    def _abort_soon(self) -> None:
        """From another thread than the callback's: whether the library may be called inside a callback is n/d."""
        threading.Thread(target=self._abort_quietly, args=(self._run_number,), name="rkllm-abort", daemon=True).start()

    def _abort_quietly(self, run_number: int) -> None:
        try:
            self._abort(run_number)
        except CallFailed:
            logger.exception("A run of the model %s could not be ended", self.options.model_path)

    def _abort(self, run_number: int) -> None:
        receiver = self._receiver
        with self._lock:
            if self._state is not _State.RUNNING or self._run_number != run_number or self._abort_holds:
                return
            if receiver.finished or receiver.error:
                return
            holds = receiver.thread is not None
            if not holds:
                receiver.abort_at_next_token()
                if self._aborted or not self._raw.is_running(self._handle):
                    return
            self._aborted, self._abort_holds = True, holds
            code = self._raw.abort(self._handle)
            if code != 0 and self._raw.is_running(self._handle):
                raise CallFailed("rkllm_abort", code)

    @staticmethod
    def _check(function: str, code: int) -> None:
        if code != 0:
            raise CallFailed(function, code)


def _ignore(_text: bytes, _token_id: int) -> None:
    pass
