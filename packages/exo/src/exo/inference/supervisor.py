"""A worker process that is kept running: spawned, watched, restarted, ended."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import enum
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path

from exo.types import ModelLoadError, WorkerDied

READY_LINE = b"ready\n"
FREE_RESTARTS = 2
MAX_BACKOFF = 30.0
_STOP_GRACE = 3.0
_EXIT_WAIT = 2.0
_KEPT_LINES = 40
_SHOWN = 80

logger = logging.getLogger(__name__)


class WorkerState(enum.Enum):
    """STOPPED ─start→ STARTING ─ready line→ READY ─exit→ RESTARTING ─ready line→ READY; any ─stop→ STOPPED.

    A first start that fails goes back to STOPPED; a restart that fails stays in RESTARTING and backs off.
    """

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"


def restart_delay(failures: int) -> float:
    """Seconds to wait before a restart, after so many failures without a success between: 0, 0, 1, 2, 4 … 30."""
    if failures <= FREE_RESTARTS:
        return 0.0
    return min(MAX_BACKOFF, 2.0 ** min(failures - FREE_RESTARTS - 1, 10))


def describe_exit(returncode: int) -> str:
    """How a process ended, in words: `was ended by SIGKILL` or `exited with code 3`."""
    if returncode >= 0:
        return f"exited with code {returncode}"
    try:
        return f"was ended by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was ended by signal {-returncode}"


class WorkerProcess:
    """Supervises one worker process. One owner: the event loop that called `start`.

    The worker reads its configuration as one line from stdin, writes `ready` to stdout once it can work, and ends when
    stdin is closed, so that it never outlives the node. What it writes to stderr is logged at debug level.
    Blocks: `start` and `ready`. Times out: a start after `start_timeout` seconds. Can race: an exit during `stop`.
    """

    def __init__(
        self,
        label: str,
        command: Callable[[], tuple[Sequence[str], bytes]],
        *,
        env: Mapping[str, str],
        folder: Path,
        start_timeout: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.label = label
        self.state = WorkerState.STOPPED
        self.restarts = 0
        self._command = command
        self._env = dict(env)
        self._folder = folder  # `python -m` looks there first: whatever lies where the node was started stays out
        self._start_timeout = start_timeout
        self._sleep = sleep
        self._process: asyncio.subprocess.Process | None = None
        self._lines: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        self._failures = 0
        self._last_exit = ""
        self._cannot_start = ""
        self._changed = asyncio.Condition()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def is_ready(self) -> bool:
        return self.state is WorkerState.READY

    @property
    def pid(self) -> int | None:
        """The process id while one runs."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    async def start(self) -> None:
        """Spawn the worker and wait until it is ready. Raises ModelLoadError with what the worker said last."""
        await self._become(WorkerState.STARTING)
        try:
            process = await self._spawn()
        except BaseException:  # also a cancellation: the state has to be true
            await self._become(WorkerState.STOPPED)
            raise
        await self._become(WorkerState.READY)
        self._keeper = asyncio.create_task(self._keep_running(process), name=f"keep {self.label}")

    async def ready(self, timeout: float) -> None:
        """Return once the worker can work: at once, or after a restart.

        Raises ModelLoadError if the last restart failed, WorkerDied after `timeout` seconds.
        """
        if self.is_ready:
            return
        with _raises_worker_died(f"{self.label} {self._last_exit}, and did not come back within {timeout:g} seconds."):
            await asyncio.wait_for(self._wait_until_settled(), timeout)
        if self._cannot_start:
            raise ModelLoadError(f"{self.label} cannot be started again: {self._cannot_start}")
        if not self.is_ready:
            raise WorkerDied(f"{self.label} is {self.state.value}. Send the request again.")

    @property
    def problem(self) -> str:
        """Why the last restart failed; empty while none has."""
        return self._cannot_start

    def kill(self) -> None:
        """End the process at once; it is started again."""
        process = self._process
        if process is not None and process.returncode is None:
            process.kill()

    def succeeded(self) -> None:
        """A request has ended well: the next failure restarts without delay."""
        self._failures = 0

    async def has_exited(self) -> bool:
        """After a broken connection: whether the process ends within a moment. Then a restart is under way."""
        process = self._process
        if process is None or not self.is_ready:
            return True
        try:
            await asyncio.wait_for(process.wait(), _EXIT_WAIT)
        except asyncio.TimeoutError:
            return False
        async with self._changed:
            await self._changed.wait_for(lambda: not self.is_ready or self._process is not process)
        return True

    async def exit_reason(self, restarts: int) -> str:
        """After a broken connection: how the process ended, or that it still runs.

        `restarts` is what it was when the connection was made: the process may have been replaced since.
        """
        if self.restarts == restarts and not await self.has_exited():
            return "closed the connection"
        return self._last_exit or "was stopped"

    async def stop(self) -> None:
        """End the worker and wait until it is gone."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        process, self._process = self._process, None
        if process is not None:
            await _end(process)
        await self._become(WorkerState.STOPPED)

    async def _keep_running(self, process: asyncio.subprocess.Process) -> None:
        while True:
            returncode = await process.wait()
            self._last_exit = describe_exit(returncode)
            while True:
                self._failures += 1
                await self._become(WorkerState.RESTARTING)
                delay = restart_delay(self._failures)
                logger.error("%s %s; restarting%s", self.label, self._last_exit, f" in {delay:g} s" if delay else "")
                await self._sleep(delay)
                self.restarts += 1
                try:
                    process = await self._spawn()
                except ModelLoadError as error:
                    self._cannot_start = self._last_exit = error.message.removeprefix(self.label).strip()
                else:
                    break
            self._cannot_start = ""
            await self._become(WorkerState.READY)

    async def _spawn(self) -> asyncio.subprocess.Process:
        self._lines.clear()
        try:
            command, first_line = self._command()
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._env,
                cwd=self._folder,
                start_new_session=True,  # a Ctrl-C in the terminal is the node's to handle
            )
        except OSError as error:
            raise ModelLoadError(f"{self.label} could not be started: {error.strerror or error}.") from error
        self._process = process
        stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
        assert stdin is not None and stdout is not None and stderr is not None  # noqa: PT018, S101 - all were asked for
        log = asyncio.create_task(self._log_lines(stderr), name=f"log of {self.label}")
        try:
            stdin.write(first_line + b"\n")
            answer = await asyncio.wait_for(stdout.readline(), self._start_timeout)
        except ValueError:  # a line over the reader's limit
            answer = b"an endless line"
        except asyncio.TimeoutError:
            await _end(process)
            raise ModelLoadError(f"{self.label} was not ready within {self._start_timeout:g} seconds.") from None
        except BaseException:  # also a cancellation: no process may be left over
            await _end(process)
            raise
        if answer != READY_LINE:
            await _end(process)
            await log
            if answer:
                said = answer[:_SHOWN].decode(errors="replace").strip()
                raise ModelLoadError(f"{self.label} said {said!r} in place of ready.")
            raise ModelLoadError(f"{self.label} {describe_exit(process.returncode or 0)}: {self._last_words()}")
        return process

    async def _log_lines(self, stream: asyncio.StreamReader) -> None:
        async for line in _lines(stream):
            self._lines.append(line)
            logger.debug("%s: %s", self.label, line)

    def _last_words(self) -> str:
        """The first lines that look like errors (the cause comes before its consequences), else the last line."""
        errors = [line for line in self._lines if "rror" in line or "ailed" in line]
        return " / ".join(errors[:3]) or (self._lines[-1] if self._lines else "it said nothing")

    async def _wait_until_settled(self) -> None:
        async with self._changed:
            settled = (WorkerState.READY, WorkerState.STOPPED)
            await self._changed.wait_for(lambda: self.state in settled or bool(self._cannot_start))

    async def _become(self, state: WorkerState) -> None:
        self.state = state
        async with self._changed:
            self._changed.notify_all()


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # a line over the reader's limit; the reader has dropped it
            continue
        if not line:
            return
        yield line.decode(errors="replace").rstrip()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Close stdin, wait a moment, then kill."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), _STOP_GRACE)
    except asyncio.TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextlib.contextmanager
def _raises_worker_died(message: str) -> Iterator[None]:
    try:
        yield
    except asyncio.TimeoutError:
        raise WorkerDied(message) from None
