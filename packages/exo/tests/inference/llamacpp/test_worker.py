"""The worker program, with a stand-in for the native package."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from exo.inference.llamacpp.worker import WorkerConfig

CONFIG: WorkerConfig = {
    "model": "m.gguf",
    "socket": "s",
    "slots": 2,
    "context": 512,
    "threads": 3,
    "cache_mib": 5,
    "pooling": None,
}
NATIVE = """
    import os
    from types import SimpleNamespace

    def CommonParams():
        params = SimpleNamespace(model=SimpleNamespace(), cpuparams=SimpleNamespace(n_threads=-1))
        params.cpuparams_batch = SimpleNamespace(n_threads=-1)
        return params

    llama_pooling_type = SimpleNamespace(LLAMA_POOLING_TYPE_MEAN="mean of all")

    class Server:
        def __init__(self, params):
            os.write(1, b"native noise on stdout\\n")
            if params.model.path == "broken":
                raise RuntimeError("error: broken model")
            given = [params.model.path, params.hostnames, params.port, params.ui, params.n_parallel, params.n_ctx]
            given += [params.cache_ram_mib, params.cpuparams.n_threads, params.cpuparams_batch.n_threads]
            given += [params.embedding, getattr(params, "pooling_type", None), getattr(params, "n_ubatch", None)]
            os.write(2, repr(given).encode() + b"\\n")
"""

KEEPER = """
    import subprocess, sys
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
    child.stdin.write(sys.stdin.buffer.readline())
    child.stdin.flush()
    child.wait()
"""
"""A parent that starts the worker and passes its configuration on."""


class Worker:
    """Starts workers; `before` puts a parent in front of one."""

    def __init__(self, folder: Path) -> None:
        (folder / "xllamacpp.py").write_text(textwrap.dedent(NATIVE))
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, config: WorkerConfig = CONFIG, *, before: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*before, sys.executable, "-m", "exo.inference.llamacpp.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(self.folder), *sys.path])},
        )
        self.processes.append(process)
        assert process.stdin is not None
        process.stdin.write(json.dumps(config).encode() + b"\n")
        process.stdin.flush()
        return process


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    made = Worker(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def test_ready_is_all_that_is_said_on_stdout_and_the_end_of_stdin_is_the_end(worker: Worker) -> None:
    process = worker.start()
    assert first_line(process) == b"ready\n"
    assert process.poll() is None
    rest, noise = process.communicate(timeout=10)
    assert (process.returncode, rest) == (0, b"")
    lines = noise.decode().splitlines()
    assert lines == ["native noise on stdout", "['m.gguf', ['s'], 0, False, 2, 1024, 5, 3, 3, True, None, None]"]


def test_threads_are_left_to_llama_cpp(worker: Worker) -> None:
    process = worker.start({**CONFIG, "threads": 0})
    assert first_line(process) == b"ready\n"
    assert process.communicate(timeout=10)[1].decode().endswith("5, -1, -1, True, None, None]\n")


def test_a_model_that_pools_takes_a_text_as_a_whole(worker: Worker) -> None:
    process = worker.start({**CONFIG, "pooling": "mean"})
    assert first_line(process) == b"ready\n"
    assert process.communicate(timeout=10)[1].decode().endswith("True, 'mean of all', 512]\n")


def test_a_model_that_cannot_be_loaded_is_told_on_stderr(worker: Worker) -> None:
    said, noise = worker.start({**CONFIG, "model": "broken"}).communicate(timeout=10)
    assert said == b""
    assert noise.decode().splitlines()[-1] == "error: broken model"
    assert worker.processes[0].returncode == 1


def test_a_worker_does_not_outlive_a_killed_parent(worker: Worker) -> None:
    parent = worker.start(before=(sys.executable, "-c", textwrap.dedent(KEEPER)))
    assert first_line(parent) == b"ready\n"
    (child,) = psutil.Process(parent.pid).children()
    os.kill(parent.pid, signal.SIGKILL)
    wait_until_ended(child)


def wait_until_ended(process: psutil.Process) -> None:
    """Its parent is gone, so nobody may be there to reap it: a zombie has ended too."""
    end = time.monotonic() + 10
    with contextlib.suppress(psutil.NoSuchProcess):
        while process.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < end, "the worker outlived its parent"
            time.sleep(0.005)
