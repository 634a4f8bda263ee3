"""The node's side of a worker: the process is spawned, watched, restarted, and one run at a time is given to it."""

from __future__ import annotations

import asyncio
import enum
import json
import logging
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exo.inference import describe_exit, restart_delay
from exo.types import EngineUnavailable, ExoError, ModelLoadError, RunFailed, RunTimedOut, WorkerDied
from exo_rkllm.supervisor.npu_process import NpuProcess
from exo_rkllm.worker.frames import (
    FLAG_TEXT,
    RUN_HEAD,
    RUN_ID,
    TOKEN_BODY,
    Done,
    Kind,
    Loaded,
    LoadOrder,
    Refused,
    ids_to_bytes,
)

_EXIT_WAIT = 1.0
_STOP_GRACE = 3.0
_RESTART_WAIT = 120.0
_LATE = 1.0
_LOOK_AGAIN = 0.1
_WORDS_WAIT = 0.05
_LIBRARY_PROBLEMS = frozenset({"LibraryNotFound", "LibraryNotLoadable", "SymbolMissing", "VersionUnknown"})

logger = logging.getLogger(__name__)


class State(enum.Enum):
    """DEAD ─spawn→ STARTING ─connected→ LOADING ─loaded→ READY ⇄ RUNNING ─left→ ABORTING ─done→ READY; any ─exit→ DEAD.

    After a first load that fails it stays DEAD; later it is started again from there.
    """

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    RUNNING = "running"
    ABORTING = "aborting"
    DEAD = "dead"


@dataclass(frozen=True)
class Timeouts:
    """In seconds. A run without a sign of life for `silence` is ended; until its first token `per_prompt_token` times
    the length of the prompt is added. `load` bounds a load."""

    silence: float
    per_prompt_token: float
    load: float


class NpuRun:
    """One run on a worker: iterate over the tokens, in the batches in which they come; then `done` tells how it went.

    Always `leave` it: a run that is left before its end is aborted.
    """

    def __init__(self, number: int, prompt_tokens: int, abort: Callable[[NpuRun], None]) -> None:
        self.number = number
        self.prompt_tokens = prompt_tokens
        self.started = False  # a token has come
        self.last_sign = 0.0
        self.done: Done | None = None
        self.embedding: array[float] | None = None
        self._tokens: list[tuple[int, bytes]] = []
        self._error: ExoError | None = None
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._abort = abort

    def __aiter__(self) -> NpuRun:
        return self

    async def __anext__(self) -> list[tuple[int, bytes]]:
        """The tokens that have come since, each with its id and its text. Raises the error that ended the run."""
        if not self._tokens and not self._ended:
            await self._next_sign()
        if self._tokens:
            batch, self._tokens = self._tokens, []
            return batch
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def sign(self, timeout: float) -> bool:
        """Whether a token or the end comes within `timeout` seconds. Raises the error that ended it without a token."""
        if not self._tokens and not self._ended:
            await asyncio.wait({self._next_sign()}, timeout=timeout)
        if self._error is not None and not self._tokens:
            raise self._error
        return bool(self._tokens) or self._ended

    def abort(self) -> None:
        """Ask for the end of the run, if it still goes on."""
        self._abort(self)

    async def leave(self) -> None:
        """Abort the run at once if it still goes on, and wait until the runtime has ended it."""
        self.abort()
        while not self._ended:
            self._tokens = []
            await self._next_sign()

    # --- for the worker ---

    def add(self, token_id: int, text: bytes) -> None:
        self._tokens.append((token_id, text))
        self.started = True
        self._wake()

    def end(self, error: ExoError | None = None) -> None:
        self._ended = True
        self._error = self._error or error
        self._wake()

    def _next_sign(self) -> asyncio.Future[None]:
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class NpuWorker:
    """Supervises the worker process of one model. One owner: the event loop that called `start`.

    Blocks: `start` for a load; `begin` while another run goes on or is being aborted, and during a restart. Times out:
    a load, and a run without a sign of life; both end the process. Can race: a process that dies while a run is given
    to it, which ends that run as WorkerDied; a run that ends by itself while it is being aborted, which is no matter.
    """

    def __init__(
        self,
        label: str,
        order: LoadOrder,
        *,
        env: Mapping[str, str],
        timeouts: Timeouts,
        on_restart: Callable[[], None] = lambda: None,
    ) -> None:
        self.label = label
        self.state = State.DEAD
        self.loaded: Loaded | None = None
        self.cached: int | None = None
        """Positions in the KV cache after the last run, None where the runtime does not tell."""
        self.context_limit: int | None = None
        """The greatest context of the model, once a load has shown it."""
        self.restarts = 0
        self.problem = ""
        self._order = order
        self._env = dict(env)
        self._timeouts = timeouts
        self._on_restart = on_restart
        self._process: NpuProcess | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._failures = 0
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._run: NpuRun | None = None
        self._runs = 0
        self._watchdog: asyncio.TimerHandle | None = None
        self._suspected = False
        self._killed_for: ExoError | None = None
        self._last_exit = ""

    @property
    def pid(self) -> int | None:
        """The process id while one runs."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Spawn the process and load the model. Raises ModelLoadError, EngineUnavailable."""
        await self._spawn_and_load()
        self._keeper = asyncio.create_task(self._keep_running(), name=f"keep {self.label}")

    async def stop(self) -> None:
        """End the process and wait until it is gone; a run that goes on ends as WorkerDied."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        process, self._process = self._process, None
        if process is not None:
            await process.end(_STOP_GRACE)
        self._end_run(WorkerDied(f"{self.label} was stopped."))
        self._become(State.DEAD)

    async def begin(
        self, prompt: Sequence[int] | str, *, cap: int, prompt_tokens: int, sampling: Mapping[str, float]
    ) -> NpuRun:
        """Start a run of at most `cap` tokens. Raises ModelLoadError, WorkerDied if the process cannot be had back.

        `prompt_tokens` is the length of the prompt, estimated where it is text.
        """
        options = json.dumps(dict(sampling)).encode() if sampling else b""
        body, flags = (prompt.encode(), FLAG_TEXT) if isinstance(prompt, str) else (ids_to_bytes(prompt), 0)
        return await self._begin(
            Kind.RUN, lambda run: RUN_HEAD.pack(run, cap, flags, len(options)) + options + body, prompt_tokens
        )

    async def embed(self, ids: Sequence[int]) -> array[float]:
        """The hidden state of the last position, float32. Raises as `begin`, and RunFailed."""
        run = await self._begin(Kind.EMBED, lambda number: RUN_ID.pack(number) + ids_to_bytes(ids), len(ids))
        try:
            async for _ in run:
                pass
        finally:
            await run.leave()
        if run.embedding is None:
            raise RunFailed(f"{self.label} gave no hidden states. Use a model that was made for embeddings.")
        return run.embedding

    async def _begin(self, kind: Kind, body: Callable[[int], bytes], prompt_tokens: int) -> NpuRun:
        await self._turn.acquire()
        try:
            process = await self._until_ready()
        except BaseException:  # also a cancellation: nobody else would give the turn back
            self._turn.release()
            raise
        self._runs += 1
        run = self._run = NpuRun(self._runs, prompt_tokens, self._abort)
        process.forget()
        process.send(kind, body(run.number))
        run.last_sign = asyncio.get_running_loop().time()
        self._become(State.RUNNING)
        self._watch()
        return run

    async def _until_ready(self) -> NpuProcess:
        """At once, or after a restart."""
        deadline = asyncio.get_running_loop().time() + _RESTART_WAIT
        while self.state is not State.READY or self._process is None:
            if self.problem:
                raise ModelLoadError(f"{self.label} cannot be started again: {self.problem}")
            if self._keeper is None:
                raise WorkerDied(f"{self.label} was stopped. Send the request again.")
            left = deadline - asyncio.get_running_loop().time()
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), max(0.0, left))
            except asyncio.TimeoutError:
                raise WorkerDied(f"{self.label} {self._last_exit}, and is not back yet. Try again later.") from None
        return self._process

    def _abort(self, run: NpuRun) -> None:
        if run is not self._run or self.state is not State.RUNNING or self._process is None:
            return
        self._become(State.ABORTING)
        run.last_sign = asyncio.get_running_loop().time()
        self._process.send(Kind.ABORT, RUN_ID.pack(run.number))

    def _end_run(self, error: ExoError | None = None) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        if self._watchdog is not None:
            self._watchdog.cancel()
        run.end(error)
        self._turn.release()

    # --- what the worker says ---

    def _on_frame(self, kind: int, body: bytes) -> None:
        run = self._run
        if kind == Kind.CACHE:
            (self.cached,) = RUN_ID.unpack(body)
            return
        if run is None or RUN_ID.unpack_from(body)[0] != run.number:
            return
        run.last_sign = asyncio.get_running_loop().time()
        if kind == Kind.TOKEN:
            is_first = not run.started
            run.add(TOKEN_BODY.unpack_from(body)[1], body[TOKEN_BODY.size :])
            if is_first:
                self._watch()  # the allowance for the prompt is over
            return
        if kind == Kind.FAILED:  # what the runtime printed about it comes by another way
            refused: Refused = json.loads(body[RUN_ID.size :])
            asyncio.get_running_loop().call_later(_WORDS_WAIT, self._fail, run, refused)
            return
        if kind == Kind.DONE:
            run.done = Done.from_body(body)
        elif kind == Kind.EMBEDDING:
            run.embedding = array("f", body[RUN_ID.size :])
        self._failures = 0
        self._become(State.READY)
        self._end_run()

    def _fail(self, run: NpuRun, refused: Refused) -> None:
        if run is self._run:
            self._become(State.READY)
            self._end_run(RunFailed(f"{self.label}: {refused['message']}{self._said() or refused['advice']}"))

    # --- the process ---

    async def _keep_running(self) -> None:
        """Wait for the process to end, tell the run in hand, and start it again."""
        while self._process is not None:
            self._last_exit = describe_exit(await self._process.exited())
            self._become(State.DEAD)
            self._end_run(self._killed_for or WorkerDied(f"{self.label} {self._last_exit} during this request."))
            self._killed_for = None
            while not await self._restart():
                pass

    async def _restart(self) -> bool:
        self._failures += 1
        delay = restart_delay(self._failures)
        logger.error("%s %s; restarting%s", self.label, self._last_exit, f" in {delay:g} s" if delay else "")
        await asyncio.sleep(delay)
        self.restarts += 1
        self._on_restart()
        try:
            await self._spawn_and_load()
        except Exception as error:  # whatever it was, the worker is tried again
            if not isinstance(error, ExoError):
                logger.exception("%s cannot be started", self.label)
            self.problem = error.message if isinstance(error, ExoError) else repr(error)
            self._last_exit = "could not load its model"
            self._become(State.DEAD)
            return False
        self.problem = ""
        return True

    async def _spawn_and_load(self) -> None:
        self._become(State.STARTING)
        process = self._process = None
        try:
            process = self._process = await NpuProcess.spawn(self.label, self._env)
            self._become(State.LOADING)
            self.loaded = await self._load(process)
        except BaseException:  # also a cancellation: no process may be left over
            self._process = None
            if process is not None:
                await process.end(0.0)
            self._become(State.DEAD)
            raise
        for warning in self._doubts(process, self.loaded):
            logger.warning("%s: %s", self.label, warning)
        process.on_frame(self._on_frame)
        self._become(State.READY)

    async def _load(self, process: NpuProcess) -> Loaded:
        answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        process.on_frame(lambda kind, body: None if answer.done() else answer.set_result((kind, body)))
        process.send(Kind.LOAD, json.dumps(self._order).encode())
        either: set[asyncio.Future[Any]] = {answer, process.closed}
        ended, _ = await asyncio.wait(either, timeout=self._timeouts.load, return_when=asyncio.FIRST_COMPLETED)
        if not ended:
            raise ModelLoadError(f"{self.label} was not loaded within {self._timeouts.load:g} seconds.")
        if not answer.done():
            code = await process.end(_EXIT_WAIT)
            raise ModelLoadError(f"{self.label} {describe_exit(code)} while loading.{process.said()}")
        kind, body = answer.result()
        if kind == Kind.LOADED:
            loaded: Loaded = json.loads(body)
            return loaded
        await process.end(_EXIT_WAIT)
        self.context_limit = process.context_limit_said()
        refused: Refused = json.loads(body)
        kind_of_error = EngineUnavailable if refused["kind"] in _LIBRARY_PROBLEMS else ModelLoadError
        raise kind_of_error(f"{self.label}: {refused['message']}{process.said() or refused['advice']}")

    def _doubts(self, process: NpuProcess, loaded: Loaded) -> list[str]:
        """The worker's warnings, and one if the runtime calls itself by another version than its file does."""
        said = process.version_said()
        if said is None or loaded["version"] is None or said == loaded["version"]:
            return loaded["warnings"]
        return [*loaded["warnings"], f"its file says version {loaded['version']}, the runtime itself says {said}."]

    def _said(self) -> str:
        return "" if self._process is None else self._process.said()

    def _become(self, state: State) -> None:
        self.state = state
        self._changed.set()

    # --- the watchdog ---

    def _watch(self) -> None:
        """Look again when the run in hand would have been silent for too long."""
        run, loop = self._run, asyncio.get_running_loop()
        if self._watchdog is not None:
            self._watchdog.cancel()
        if run is None:
            return
        limit = self._timeouts.silence
        if not run.started:
            limit += run.prompt_tokens * self._timeouts.per_prompt_token
        end = run.last_sign + limit
        if loop.time() < end:
            self._suspected = False
            self._watchdog = loop.call_at(end, self._watch)
            return
        if not self._suspected:
            if loop.time() > end + _LATE:  # the node itself stood still: the silence is not the worker's
                run.last_sign = loop.time()
            self._suspected = True  # signs of life may be waiting to be read
            self._watchdog = loop.call_later(_LOOK_AGAIN, self._watch)
            return
        self._killed_for = RunTimedOut(
            f"{self.label} gave no sign of life for {limit:g} seconds and was ended. Send the request again; "
            "if it needs longer, raise RKLLM_RUN_TIMEOUT."
        )
        if self._process is not None:
            self._process.kill()
