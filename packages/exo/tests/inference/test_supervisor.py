from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import psutil
import pytest

from exo.inference import supervisor
from exo.inference.supervisor import WorkerProcess, WorkerState, describe_exit, restart_delay
from exo.types import ModelLoadError, WorkerDied

Until = Callable[[Callable[[], bool]], Awaitable[None]]

READY = "import os, sys, time; config = sys.stdin.readline(); os.write(1, b'ready\\n'); "
GOOD = READY + "sys.stdin.read()"
CRASHES = READY + "sys.exit(3)"
NEVER_READY = "import sys; sys.stdin.read()"
FAILS = "import sys; sys.exit('error: the weights are broken')"


class Workers:
    """Makes workers whose n-th child runs the n-th program (the last one again and again); records the delays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[WorkerProcess] = []
        self.pids: set[int] = set()
        self.delays: list[float] = []
        self.sleeps = 1_000_000
        """After so many delays the next one lasts for ever."""

    async def sleep(self, seconds: float) -> None:
        self.delays.append(seconds)
        self.note_pids()
        if len(self.delays) >= self.sleeps:
            await asyncio.Event().wait()

    def note_pids(self) -> None:
        self.pids.update(worker.pid for worker in self.made if worker.pid is not None)

    def make(
        self, *programs: str | Exception, start_timeout: float = 10.0, first_line: bytes = b"{}", **env: str
    ) -> WorkerProcess:
        left = list(programs)

        def command() -> tuple[Sequence[str], bytes]:
            program = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(program, Exception):
                raise program
            return (sys.executable, "-I", "-S", "-c", program), first_line

        worker = WorkerProcess(
            "the worker",
            command,
            env=env,
            folder=self.folder,
            start_timeout=start_timeout,
            sleep=self.sleep,
        )
        self.made.append(worker)
        return worker


@pytest.fixture
async def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Until) -> AsyncIterator[Workers]:
    """Afterwards no process, no zombie and no task may be left."""
    monkeypatch.setattr(supervisor, "_STOP_GRACE", 1.0)
    made = Workers(tmp_path)
    yield made
    made.note_pids()
    await asyncio.gather(*(worker.stop() for worker in made.made), return_exceptions=True)
    left = [pid for pid in made.pids if psutil.pid_exists(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: asyncio.all_tasks() == {this_task()})
    assert left == [], "a child outlived its supervisor, or is a zombie"
    assert [worker.state for worker in made.made] == [WorkerState.STOPPED] * len(made.made)


def this_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task


def pid_of(worker: WorkerProcess) -> int | None:
    return worker.pid


def kill(worker: WorkerProcess) -> int:
    assert worker.pid is not None
    pid = worker.pid
    os.kill(pid, signal.SIGKILL)
    return pid


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 0), (1, 0), (2, 0), (3, 1), (4, 2), (5, 4), (6, 8), (7, 16), (8, 30), (10_000, 30)]
)
def test_restarts_are_held_back_from_the_third_failure(failures: int, seconds: float) -> None:
    assert restart_delay(failures) == seconds


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (-9, "was ended by SIGKILL"),
        (-11, "was ended by SIGSEGV"),
        (-120, "was ended by signal 120"),
    ],
)
def test_exits_in_words(returncode: int, words: str) -> None:
    assert describe_exit(returncode) == words


async def test_a_started_worker_is_ready_and_ends_with_its_stdin(workers: Workers) -> None:
    worker = workers.make(GOOD)
    assert (worker.state, worker.pid) == (WorkerState.STOPPED, None)
    await worker.start()
    assert worker.is_ready
    assert worker.pid is not None
    process = psutil.Process(worker.pid)
    assert os.getsid(worker.pid) == worker.pid, "a Ctrl-C in the terminal must not reach it"
    await worker.ready(0)
    await worker.stop()
    assert not process.is_running()
    assert (worker.state, worker.restarts) == (WorkerState.STOPPED, 0)
    assert pid_of(worker) is None


async def test_a_worker_has_its_configuration_environment_and_folder(workers: Workers) -> None:
    worker = workers.make(
        "import os, sys; sys.exit(f'error {sys.stdin.readline()!r} {os.environ[\"NAME\"]} {os.getcwd()}')",
        first_line=b'{"model": 1}',
        NAME="value",
    )
    with pytest.raises(ModelLoadError) as caught:
        await worker.start()
    assert caught.value.message.endswith(f"error '{{\"model\": 1}}\\n' value {workers.folder.resolve()}")


async def test_a_stopped_worker_can_be_started_again(workers: Workers) -> None:
    worker = workers.make(GOOD)
    await worker.stop()
    for _ in range(2):
        await worker.start()
        workers.note_pids()
        await worker.stop()
        await worker.stop()
    assert len(workers.pids) == 2


# starts that fail


async def test_a_worker_that_is_never_ready(workers: Workers) -> None:
    worker = workers.make(NEVER_READY, start_timeout=0.1)
    with pytest.raises(ModelLoadError, match=r"the worker was not ready within 0\.1 seconds"):
        await worker.start()
    assert worker.state is WorkerState.STOPPED


@pytest.mark.parametrize(
    "program",
    [
        "import os, sys; os.write(1, b'hello\\n'); sys.stdin.read()",
        "import os, sys; os.close(1); sys.stdin.read()",
        "import os, sys; os.write(1, b'x' * 100_000); sys.stdin.read()",
    ],
    ids=["other line", "closed stdout", "endless line"],
)
async def test_a_worker_that_says_something_else_and_stays(workers: Workers, program: str) -> None:
    worker = workers.make(program, start_timeout=0.2)
    starting = asyncio.create_task(worker.start())
    try:
        with pytest.raises(ModelLoadError):
            await asyncio.wait_for(asyncio.shield(starting), 3)
    finally:
        workers.note_pids()
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (FAILS, "the worker exited with code 1: error: the weights are broken"),
        ("import sys; sys.exit(4)", "the worker exited with code 4: it said nothing"),
        ("import sys; print('starting', file=sys.stderr); sys.exit(4)", "code 4: starting"),
        ("import os; os.kill(os.getpid(), 9)", "the worker was ended by SIGKILL: it said nothing"),
        ("import os; os.write(1, b'hello\\n')", "the worker said 'hello' in place of ready"),
        ("raise RuntimeError('no \\N{SNOWMAN}')", "RuntimeError: no"),
        (
            "import sys; print('x' * 200_000, file=sys.stderr); sys.exit('it failed Failed')",
            "it failed Failed",
        ),
        (
            "import sys; [print(f'Error {n}', file=sys.stderr) for n in range(9)]; print('end', file=sys.stderr)",
            "code 0: Error 0 / Error 1 / Error 2",
        ),
        ("import os; os.write(2, b'error: \\xff\\n')", "error: \N{REPLACEMENT CHARACTER}"),
    ],
    ids=["words", "silent", "no error", "killed", "other line", "traceback", "long line", "many lines", "bytes"],
)
async def test_what_a_worker_said_last_is_told(workers: Workers, program: str, words: str) -> None:
    worker = workers.make(program)
    with pytest.raises(ModelLoadError) as caught:
        await worker.start()
    assert words in caught.value.message
    assert worker.state is WorkerState.STOPPED


async def test_a_worker_that_failed_to_start_has_no_process_id(workers: Workers) -> None:
    worker = workers.make(FAILS)
    with pytest.raises(ModelLoadError):
        await worker.start()
    assert worker.pid is None


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), FileNotFoundError(2, "No such file")])
async def test_a_worker_that_cannot_be_spawned(workers: Workers, error: OSError) -> None:
    worker = workers.make(error)
    with pytest.raises(ModelLoadError, match=error.strerror):
        await worker.start()
    assert worker.state is WorkerState.STOPPED


async def test_a_start_that_is_cancelled_leaves_no_child(workers: Workers, until: Until) -> None:
    worker = workers.make(NEVER_READY)
    starting = asyncio.create_task(worker.start())
    await until(lambda: worker.pid is not None)
    assert worker.pid is not None
    process = psutil.Process(worker.pid)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert worker.state is WorkerState.STOPPED
    assert not process.is_running()


async def test_what_a_worker_writes_to_stderr_is_logged(
    workers: Workers, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    worker = workers.make("import os; os.write(2, b'loading\\n'); " + GOOD)
    await worker.start()
    await until(lambda: "the worker: loading" in caplog.text)


# restarts


async def test_a_killed_worker_comes_back_at_once(
    workers: Workers, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    worker = workers.make(GOOD)
    await worker.start()
    pid = kill(worker)
    await until(lambda: worker.restarts == 1 and worker.is_ready)
    assert worker.pid not in (pid, None)
    assert not psutil.pid_exists(pid), "it is a zombie"
    assert workers.delays == [0.0]
    assert "the worker was ended by SIGKILL; restarting" in caplog.text


async def test_crashes_are_held_back_more_and_more(workers: Workers, until: Until) -> None:
    workers.sleeps = 8
    worker = workers.make(CRASHES)
    await worker.start()
    await until(lambda: len(workers.delays) == 8)
    assert workers.delays == [0, 0, 1, 2, 4, 8, 16, 30]
    assert worker.state is WorkerState.RESTARTING


async def test_a_success_makes_the_next_restart_immediate(workers: Workers, until: Until) -> None:
    workers.sleeps = 9
    worker = workers.make(*[CRASHES] * 4, GOOD)
    await worker.start()
    await until(lambda: worker.restarts == 4 and worker.is_ready)
    assert workers.delays == [0, 0, 1, 2]
    worker.succeeded()
    for restarts in (5, 6, 7):
        kill(worker)
        await until(lambda: worker.restarts == restarts and worker.is_ready)  # noqa: B023 - called at once
    assert workers.delays[4:] == [0, 0, 1]


async def test_restarts_that_fail_are_tried_again(
    workers: Workers, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    worker = workers.make(CRASHES, FAILS, FAILS, NEVER_READY, GOOD, start_timeout=0.3)
    await worker.start()
    await until(lambda: worker.restarts == 4 and worker.is_ready)
    assert workers.delays == [0, 0, 1, 2]
    assert "the weights are broken; restarting" in caplog.text


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), FileNotFoundError(2, "No such file")])
async def test_a_restart_that_cannot_be_spawned_is_tried_again(workers: Workers, until: Until, error: OSError) -> None:
    """The machine may be short of files or memory for a moment."""
    worker = workers.make(CRASHES, error, GOOD)
    await worker.start()
    await until(lambda: len(workers.delays) >= 1)
    keeper = worker._keeper
    assert keeper is not None
    await until(lambda: keeper.done() or worker.is_ready)
    keeper_ended = keeper.done()
    if keeper_ended:
        worker._keeper = None  # so that the fixture can stop the worker
    assert not keeper_ended, keeper.exception()
    assert worker.restarts == 2


async def test_a_worker_between_two_lives_has_no_process_id(workers: Workers, until: Until) -> None:
    workers.sleeps = 1
    worker = workers.make(GOOD)
    await worker.start()
    kill(worker)
    await until(lambda: len(workers.delays) == 1)
    assert worker.pid is None


async def test_ready_waits_for_the_restart(workers: Workers, until: Until) -> None:
    worker = workers.make(GOOD)
    await worker.start()
    kill(worker)
    await until(lambda: not worker.is_ready)
    await worker.ready(10)
    assert worker.is_ready


async def test_ready_gives_up_with_the_reason(workers: Workers, until: Until) -> None:
    workers.sleeps = 1
    worker = workers.make(GOOD)
    await worker.start()
    kill(worker)
    await until(lambda: not worker.is_ready)
    with pytest.raises(WorkerDied, match=r"the worker was ended by SIGKILL, and did not come back within 0\.01 sec"):
        await worker.ready(0.01)


async def test_ready_ends_when_the_worker_is_stopped(workers: Workers, until: Until) -> None:
    workers.sleeps = 1
    worker = workers.make(GOOD)
    await worker.start()
    kill(worker)
    await until(lambda: not worker.is_ready)
    waiting = asyncio.create_task(worker.ready(60))
    await asyncio.sleep(0)
    await worker.stop()
    with pytest.raises(WorkerDied, match="the worker is stopped"):
        await asyncio.wait_for(waiting, 5)


async def test_the_reason_of_an_exit(workers: Workers, monkeypatch: pytest.MonkeyPatch, until: Until) -> None:
    monkeypatch.setattr(supervisor, "_EXIT_WAIT", 0.01)
    workers.sleeps = 1
    worker = workers.make(GOOD)
    assert await worker.exit_reason(0) == "was stopped"
    await worker.start()
    assert await worker.exit_reason(0) == "closed the connection"
    monkeypatch.setattr(supervisor, "_EXIT_WAIT", 10.0)
    kill(worker)
    assert await worker.exit_reason(0) == "was ended by SIGKILL"
    await until(lambda: len(workers.delays) == 1)
    assert await worker.exit_reason(0) == "was ended by SIGKILL"


# stops


async def test_a_worker_that_ignores_the_end_of_its_stdin_is_killed(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_STOP_GRACE", 0.05)
    worker = workers.make(READY + "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)")
    await worker.start()
    workers.note_pids()
    await asyncio.wait_for(worker.stop(), 5)
    assert worker.state is WorkerState.STOPPED


async def test_stop_during_the_delay_before_a_restart(workers: Workers, until: Until) -> None:
    workers.sleeps = 1
    worker = workers.make(GOOD)
    await worker.start()
    kill(worker)
    await until(lambda: len(workers.delays) == 1)
    await asyncio.wait_for(worker.stop(), 5)
    assert worker.restarts == 0


async def test_stop_during_a_restart(workers: Workers, until: Until) -> None:
    worker = workers.make(GOOD, NEVER_READY)
    await worker.start()
    pid = kill(worker)
    await until(lambda: worker.restarts == 1 and worker.pid not in (pid, None))
    workers.note_pids()
    await asyncio.wait_for(worker.stop(), 5)
    assert worker.state is WorkerState.STOPPED


async def test_stop_right_after_a_crash(workers: Workers) -> None:
    worker = workers.make(GOOD)
    await worker.start()
    kill(worker)
    await asyncio.wait_for(worker.stop(), 5)
    assert worker.restarts == 0


async def test_stop_ends_a_worker_although_its_restarts_have_failed_unexpectedly(
    workers: Workers, until: Until
) -> None:
    worker = workers.make(CRASHES, ZeroDivisionError("bug"))
    await worker.start()
    await until(lambda: len(workers.delays) >= 1)
    with contextlib.suppress(ZeroDivisionError):
        await worker.stop()
    assert worker.state is WorkerState.STOPPED
