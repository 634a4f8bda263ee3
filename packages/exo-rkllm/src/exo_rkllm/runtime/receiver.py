"""The receiving end of the library's result callback."""

from __future__ import annotations

import ctypes
import threading
from array import array
from collections.abc import Callable
from typing import Any

from exo_rkllm.runtime.ctypes_types import Types
from exo_rkllm.runtime.options import Perf, RunOutcome

OnToken = Callable[[bytes, int], None]

GO_ON = 0
NO_TOKEN = -1
"""The id that goes with a callback that promises none."""

_NOWHERE = -1
_NO_STATE = -1
_PATIENCE = 16
"""Tokens that a run for hidden states may bring before the first of them. One was seen (issue 278)."""


class HiddenStates:
    """Collects the last row of the hidden states of a prompt of `wanted` tokens, in as many pieces as they come."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.rows = 0
        self.last: array[float] | None = None

    @property
    def complete(self) -> bool:
        return self.rows >= self.wanted

    def add(self, layer: Any) -> bool:
        """Copy from an RKLLMResultLastHiddenLayer, which is valid in the callback only. False if it is empty."""
        width, rows = layer.embd_size, layer.num_tokens
        if width <= 0 or rows <= 0 or not layer.hidden_states:
            return False
        if not self.complete:
            last = array("f")
            start = ctypes.addressof(layer.hidden_states.contents)
            last.frombytes(ctypes.string_at(start + (rows - 1) * width * last.itemsize, width * last.itemsize))
            self.last = last
            self.rows += rows
        return True


class Receiver:
    """Takes the callbacks of one model, run after run, on whatever thread the library calls from.

    `take` runs for every token, so it makes no object that it can do without: the struct is looked at through one view,
    which moves only when the library passes another address. In states other than NORMAL nothing is read that the state
    does not promise, and the pointer may be NULL. Between runs whatever comes is dropped.
    """

    def __init__(self, types: Types, abort_soon: Callable[[], None]) -> None:
        """`abort_soon` is called on the thread of the callback, where the library must not be called: it has to leave
        that to another thread and return at once."""
        self._result = types.structs["RKLLMResult"]
        self._has_perf = types.layout.locate("RKLLMResult", "perf") is not None
        self._states = types.layout.enums["LLMCallState"].values
        self._hidden_state = self._states.get("RKLLM_RUN_GET_LAST_HIDDEN_LAYER", self._states["RKLLM_RUN_NORMAL"])
        self._abort_soon = abort_soon
        self._address: int | None = _NOWHERE
        self._view: Any = None
        self.end()

    def begin(self, on_token: OnToken, hidden: HiddenStates | None = None) -> None:
        """The next callbacks belong to a new run: to `on_token`, and to `hidden` if the run is for hidden states.

        `thread` is the one that the callbacks come on, None until the first has come. `stopping`: a run for hidden
        states was ended from here.
        """
        self._on_token = self._forward = on_token
        self._hidden = hidden
        self._fast_state = self._states["RKLLM_RUN_NORMAL"] if hidden is None else _NO_STATE
        self._address = _NOWHERE
        self.stopping = False
        self.thread: int | None = None
        self.tokens = 0
        self.finished = False
        self.error = False
        self.perf: Perf | None = None
        self.failure: BaseException | None = None

    def end(self) -> None:
        """What comes from here on belongs to no run."""
        self._forward = self._on_token = _drop
        self._hidden = None
        self._fast_state = _NO_STATE
        self.thread = None

    def take(self, result: int | None, _userdata: int | None, state: int) -> int:
        """One callback: the address of an RKLLMResult or None, and an LLMCallState."""
        try:
            if state == self._fast_state:
                if result != self._address:
                    self._look_at(result)
                self.tokens += 1
                view = self._view
                self._forward(view.text or b"", view.token_id)
            else:
                self._take_other(result, state)
        except BaseException as failure:  # noqa: BLE001  # nothing can be raised through C; the run raises it later
            self._fail(failure)
        return GO_ON

    def outcome(self) -> RunOutcome:
        return RunOutcome(self.finished, self.error, self.tokens, self.perf)

    def abort_at_next_token(self) -> None:
        """Call `abort_soon` when the next token proves that the run is under way."""
        self._forward = self._announce

    def _announce(self, text: bytes, token_id: int) -> None:
        self._forward = self._on_token
        self._abort_soon()
        self._forward(text, token_id)

    def _look_at(self, result: int | None) -> None:
        self.thread = threading.get_ident()
        self._view = self._result(token_id=NO_TOKEN) if result is None else self._result.from_address(result)
        self._address = result

    def _take_other(self, result: int | None, state: int) -> None:
        self.thread = threading.get_ident()
        if state == self._states["RKLLM_RUN_WAITING"]:
            self.tokens += 1
            self._forward(b"", NO_TOKEN)
        elif state == self._states["RKLLM_RUN_FINISH"]:
            self.finished = True
            if self._has_perf and result is not None:
                self.perf = _perf(self._result.from_address(result).perf)
        elif state == self._states["RKLLM_RUN_ERROR"]:
            self.error = True
        elif self._hidden is not None:
            self._take_hidden(self._hidden, result, state)

    def _take_hidden(self, hidden: HiddenStates, result: int | None, state: int) -> None:
        """A token of a run for hidden states, or the states themselves. Such a run has nothing to do once they are
        complete; should the library go on to generate an answer, it is stopped."""
        self._forward(b"", NO_TOKEN)
        was_complete = hidden.complete
        brought = (
            state == self._hidden_state
            and result is not None
            and hidden.add(self._result.from_address(result).last_hidden_layer)
        )
        if not brought:
            self.tokens += 1
        generates = hidden.rows > 0 or self.tokens > _PATIENCE
        if not self.stopping and (was_complete or (generates and not brought)):
            self.stopping = True
            self._abort_soon()

    def _fail(self, failure: BaseException) -> None:
        self.failure = failure
        self._forward = self._on_token = _drop
        self._abort_soon()


def _drop(_text: bytes, _token_id: int) -> None:
    pass


def _perf(stat: Any) -> Perf:
    return Perf(
        prefill_ms=stat.prefill_time_ms,
        prefill_tokens=stat.prefill_tokens,
        generate_ms=stat.generate_time_ms,
        generate_tokens=stat.generate_tokens,
        memory_mb=stat.memory_usage_mb,
    )
