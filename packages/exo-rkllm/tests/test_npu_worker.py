"""The worker process and its supervisor, on the simulated runtime: real processes, really killed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from npu_board import ABIS, NEWEST, SimBoard

from exo.types import EngineUnavailable, ModelLoadError, RunFailed, RunTimedOut, WorkerDied
from exo_rkllm.supervisor.npu_worker import NpuRun, NpuWorker, State, Timeouts
from exo_rkllm.worker.frames import LoadOrder

pytestmark = pytest.mark.slow

PROMPT = [300, 301, 302, 303, 304]
LONG = 10_000


@pytest.fixture
def board(tmp_path: Path) -> SimBoard:
    return SimBoard(tmp_path)


def order(board: SimBoard, path: Path, **changes: Any) -> LoadOrder:
    plain: LoadOrder = {
        "library": board.env["RKLLM_LIB"],
        "abi": None,
        "model": str(path),
        "max_context": 2048,
        "max_new_tokens": 2048,
        "sampling": {},
        "cpus": [],
        "housekeeping": [],
        "domain": 0,
        "template": True,
    }
    return {**plain, **changes}  # type: ignore[typeddict-item]  # the changes of a test are right


def make(board: SimBoard, path: Path, *, silence: float = 20.0, per_token: float = 0.0, **changes: Any) -> NpuWorker:
    timeouts = Timeouts(silence=silence, per_prompt_token=per_token, load=20.0)
    return NpuWorker("the worker", order(board, path, **changes), env=board.env, timeouts=timeouts)


@asynccontextmanager
async def loaded(board: SimBoard, path: Path, **options: Any) -> AsyncIterator[NpuWorker]:
    worker = make(board, path, **options)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()


async def begin(worker: NpuWorker, *, cap: int = LONG, prompt: list[int] | str | None = None) -> NpuRun:
    asked = PROMPT if prompt is None else prompt
    return await worker.begin(asked, cap=cap, prompt_tokens=len(asked), sampling={})


async def tokens(run: NpuRun, into: list[tuple[int, bytes]] | None = None) -> list[tuple[int, bytes]]:
    found = [] if into is None else into
    try:
        async for batch in run:
            found += batch
        return found
    finally:
        await run.leave()


async def until(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("abi", ABIS)
async def test_a_run(abi: str, tmp_path: Path) -> None:
    board = SimBoard(tmp_path, abi)
    async with loaded(board, board.add_model()) as worker:
        assert worker.loaded is not None
        assert (worker.loaded["version"], worker.loaded["layout"]) == (abi, abi)
        assert worker.state is State.READY
        run = await begin(worker)
        assert worker.state.value == "running"
        found = await tokens(run)
        assert run.done is not None
        assert run.done.tokens == len(found) == board.runs()[0]["generated"]
        assert board.runs()[0]["tokens"] == PROMPT
        assert not run.done.aborted
        assert worker.state.value == "ready"
        assert run.done.prefilled == (None if abi.startswith(("1.1", "1.2.0", "1.2.1b1")) else len(PROMPT))
    assert worker.state.value == "dead"
    assert worker.pid is None


@pytest.mark.parametrize("abi", ABIS)
async def test_the_cap_is_exact(abi: str, tmp_path: Path) -> None:
    board = SimBoard(tmp_path, abi)
    async with loaded(board, board.add_model(answer=(50, 50), decode_ms=1)) as worker:
        whole = await tokens(await begin(worker))
        assert len(whole) == 50
        for cap in (1, 7, 49, 50):
            assert await tokens(await begin(worker, cap=cap)) == whole[:cap]
    ends = [run["end"] for run in board.runs()]
    assert ends[1:3] == (["cap"] * 2 if abi == "1.3.0" else ["aborted"] * 2)


async def test_the_runtime_is_freed_at_the_end(board: SimBoard) -> None:
    async with loaded(board, board.add_model()) as worker:
        await tokens(await begin(worker))
    assert board.calls("rkllm_destroy")


async def test_leaving_a_run_aborts_it_and_the_next_one_waits_for_its_end(board: SimBoard) -> None:
    async with loaded(board, board.add_model(answer=(LONG, LONG), decode_ms=5)) as worker:
        run = await begin(worker)
        await anext(run)
        run.abort()
        assert worker.state.value == "aborting"
        assert len(await tokens(await begin(worker, cap=3))) == 3
    first, second = board.runs()
    assert first["aborted"]
    assert first["generated"] < 20
    assert second["t"] >= first["t"]


async def test_a_run_that_is_left_before_it_began_never_reaches_the_runtime(board: SimBoard) -> None:
    async with loaded(board, board.add_model()) as worker:
        os.kill(worker.pid or 0, signal.SIGSTOP)
        await until(lambda: Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        run = await begin(worker)
        run.abort()
        os.kill(worker.pid or 0, signal.SIGCONT)
        assert await tokens(run) == []
        assert run.done is not None
        assert run.done.aborted
        assert len(await tokens(await begin(worker, cap=2))) == 2
    assert len(board.runs()) == 1


async def test_leaving_in_prefill_aborts_at_once(board: SimBoard) -> None:
    async with loaded(board, board.add_model(prefill_ms=100)) as worker:
        run = await begin(worker)
        await until(lambda: bool(board.runs()))
        run.abort()
        await until(lambda: bool(board.calls("rkllm_abort")))
        assert board.calls("rkllm_abort")[0]["running"]
        await until(lambda: worker.state is State.READY)
        assert board.runs()[0]["aborted"]


async def test_two_runs_take_turns(board: SimBoard) -> None:
    async with loaded(board, board.add_model()) as worker:
        alone = await tokens(await begin(worker))

        async def run() -> list[tuple[int, bytes]]:
            return await tokens(await begin(worker))

        assert list(await asyncio.gather(run(), run(), run())) == [alone] * 3


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("segv_at=3", "was ended by SIGSEGV during this request"),
        ("kill_at=3", "was ended by SIGKILL during this request"),
        ("exit_at=3", "exited with code 1 during this request"),
        ("segv_at=0", "was ended by SIGSEGV during this request"),
    ],
)
async def test_a_death_is_told_and_the_next_run_goes_well(board: SimBoard, fault: str, words: str) -> None:
    async with loaded(board, board.add_model()) as worker:
        whole = await tokens(await begin(worker))
        board.set_faults(fault)
        run = await begin(worker)
        got: list[tuple[int, bytes]] = []
        with pytest.raises(WorkerDied, match=words):
            await tokens(run, got)
        assert got == whole[: 2 if fault.endswith("3") else 0], "every token from before the death arrives"
        board.set_faults()
        assert await tokens(await begin(worker)) == whole
        assert worker.restarts == 1


@pytest.mark.parametrize("fault", ["error_at=3", "run_fails"])
async def test_an_error_of_the_runtime_is_a_failed_run(board: SimBoard, fault: str) -> None:
    async with loaded(board, board.add_model()) as worker:
        board.set_faults(fault)
        with pytest.raises(RunFailed, match="the worker: rkllm_run"):
            await tokens(await begin(worker))
        board.set_faults()
        assert await tokens(await begin(worker))
        assert worker.restarts == 0


async def test_a_hang_is_ended_by_the_watchdog(board: SimBoard) -> None:
    async with loaded(board, board.add_model(), silence=0.5) as worker:
        board.set_faults("hang_at=3")
        run, started = await begin(worker), time.monotonic()
        with pytest.raises(RunTimedOut, match=r"no sign of life for 0\.5 seconds and was ended"):
            await tokens(run)
        assert 0.4 < time.monotonic() - started < 5
        board.set_faults()
        assert await tokens(await begin(worker))


async def test_a_run_that_hangs_while_it_is_aborted_is_ended_too(board: SimBoard) -> None:
    async with loaded(board, board.add_model(), silence=0.5) as worker:
        board.set_faults("hang_at=3")
        run, got = await begin(worker), 0
        while got < 2:
            got += len(await anext(run))
        await asyncio.sleep(0.05)  # nothing tells from outside that the runtime hangs by now
        run.abort()
        board.set_faults()
        assert await tokens(await begin(worker))
        assert worker.restarts == 1


async def test_a_long_prefill_gets_its_allowance(board: SimBoard) -> None:
    async with loaded(board, board.add_model(prefill_ms=200), silence=0.3, per_token=0.4) as worker:
        assert await tokens(await begin(worker))


async def test_a_slow_abort_is_waited_for(board: SimBoard) -> None:
    async with loaded(board, board.add_model(answer=(LONG, LONG), decode_ms=2)) as worker:
        board.set_faults("abort_ignored_ms=300")
        run = await begin(worker)
        await anext(run)
        run.abort()
        board.set_faults()
        assert len(await tokens(await begin(worker, cap=2))) == 2
    assert worker.restarts == 0


@pytest.mark.parametrize("ending", ["finish", "nothing", "error"])
async def test_whatever_an_aborted_run_ends_with_is_no_error(board: SimBoard, ending: str) -> None:
    async with loaded(board, board.add_model(answer=(LONG, LONG), decode_ms=2)) as worker:
        board.set_faults(f"abort_ends={ending}")
        run = await begin(worker)
        await anext(run)
        run.abort()
        assert await tokens(await begin(worker, cap=2))
        assert worker.restarts == 0


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("load_fails", "was not loaded: rkllm_init returned -1"),
        ("null_handle", "rkllm_init returned 0, but gave no handle"),
        ("model_newer", "The runtime said: E rkllm"),
        ("wrong_platform", "The runtime said: E rkllm"),
        ("context_over_limit", "The runtime said: E rkllm"),
        ("cpu_mask", "The runtime said: E rkllm"),
    ],
)
async def test_a_failed_load_tells_why_and_leaves_nothing(board: SimBoard, fault: str, words: str) -> None:
    worker = make(board, board.add_model())
    board.set_faults(fault)
    with pytest.raises(ModelLoadError, match=words):
        await worker.start()
    assert worker.state is State.DEAD
    assert psutil.Process().children() == []


async def test_a_library_that_cannot_be_used_makes_the_engine_unavailable(board: SimBoard, tmp_path: Path) -> None:
    text = tmp_path / "librkllmrt.so"
    text.write_text("not a library")
    with pytest.raises(EngineUnavailable, match=r"librkllmrt\.so"):
        await make(board, board.add_model(), library=str(text)).start()


async def test_a_restart_that_fails_is_told_and_tried_again(board: SimBoard) -> None:
    async with loaded(board, board.add_model()) as worker:
        board.set_faults("load_fails")
        os.kill(worker.pid or 0, signal.SIGKILL)
        await until(lambda: worker.problem != "")
        with pytest.raises(ModelLoadError, match=r"cannot be started again: .*rkllm_init returned -1"):
            await begin(worker)
        board.set_faults()
        await until(lambda: worker.state is State.READY)
        assert await tokens(await begin(worker))
        assert worker.problem == ""


async def test_stop_during_a_run_ends_it(board: SimBoard) -> None:
    worker = make(board, board.add_model(answer=(LONG, LONG), decode_ms=5))
    await worker.start()
    run = await begin(worker)
    await anext(run)
    await worker.stop()
    with pytest.raises(WorkerDied, match="was stopped"):
        await tokens(run)
    with pytest.raises(WorkerDied, match="was stopped"):
        await begin(worker)
    assert psutil.Process().children() == []


@pytest.mark.parametrize("abi", ABIS)
async def test_embeddings(abi: str, tmp_path: Path) -> None:
    board = SimBoard(tmp_path, abi)
    async with loaded(board, board.add_model(embd=32)) as worker:
        first, again, other = [await worker.embed(ids) for ids in (PROMPT, PROMPT, PROMPT[:-1])]
        assert len(first) == 32
        assert first == again
        assert first != other
        assert await tokens(await begin(worker))


async def test_text_prompts(board: SimBoard) -> None:
    async with loaded(board, board.add_model(), template=False) as worker:
        assert await tokens(await begin(worker, prompt="Hello"))
    assert board.runs()[0]["text"] == "Hello"
    assert board.calls("rkllm_set_chat_template")


async def test_nothing_leaks_over_many_runs_and_deaths(board: SimBoard) -> None:
    async with loaded(board, board.add_model()) as worker:
        await tokens(await begin(worker))
        before = psutil.Process().num_fds()
        for _ in range(3):
            board.set_faults("kill_at=2")
            with pytest.raises(WorkerDied):
                await tokens(await begin(worker))
            board.set_faults()
            await tokens(await begin(worker))
        assert psutil.Process().num_fds() <= before
        assert [child.pid for child in psutil.Process().children()] == [worker.pid]


async def test_a_start_that_is_cancelled_anywhere_leaves_nothing(board: SimBoard) -> None:
    path, before = board.add_model(), psutil.Process().num_fds()
    for steps in range(0, 40, 3):
        worker = make(board, path)
        starting = asyncio.ensure_future(worker.start())
        for _ in range(steps):
            await asyncio.sleep(0.002)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await worker.stop()
    assert psutil.Process().children() == []
    assert psutil.Process().num_fds() <= before + 3, "the event loop keeps a few for itself"


async def test_a_worker_does_not_outlive_its_node(board: SimBoard) -> None:
    """The node's end of the socket closes, as it does when the node is killed."""
    worker = make(board, board.add_model(answer=(LONG, LONG), decode_ms=5))
    await worker.start()
    first = worker.pid
    run = await begin(worker)
    await anext(run)
    assert worker._process is not None
    worker._process._link.close()
    with pytest.raises(WorkerDied, match="exited with code 0"):
        await tokens(run)
    await until(lambda: worker.state is State.READY)
    assert worker.pid != first
    await worker.stop()


def test_the_newest_abi_is_what_the_tests_use() -> None:
    assert NEWEST == "1.3.0"


async def test_a_restart_that_fails_in_an_unexpected_way_is_tried_again(
    board: SimBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with loaded(board, board.add_model()) as worker:

        def no_sockets() -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(socket, "socketpair", no_sockets)
        os.kill(worker.pid or 0, signal.SIGKILL)
        await until(lambda: "Too many open files" in worker.problem)
        monkeypatch.undo()
        await until(lambda: worker.state is State.READY)
        assert await tokens(await begin(worker))


async def test_a_node_that_stood_still_does_not_take_the_worker_for_dead(board: SimBoard) -> None:
    async with loaded(board, board.add_model(answer=(8, 8), decode_ms=100), silence=0.4) as worker:
        run = await begin(worker)
        await anext(run)
        time.sleep(0.6)  # noqa: ASYNC251 - nothing else runs meanwhile, as if the node had been stopped
        assert len(await tokens(run)) == 7
        assert worker.restarts == 0
