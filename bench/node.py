"""A real node for a measurement: started on a free port, watched, ended."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

BUILTIN_MODEL = "smollm2-135m-instruct"
_KEPT = ("EXO_HOME", "EXO_MODELS_DIR")
_STOP_TIMEOUT = 20.0


class BenchFailed(Exception):
    """A measurement could not be made; the message says why."""


@dataclass
class Node:
    """A running node.

    `spawned` is the moment before its process was made, on the clock of time.monotonic; it answered /healthcheck
    `healthy_after` seconds later.
    """

    process: psutil.Popen
    host: str
    port: int
    spawned: float
    healthy_after: float = 0.0

    def wait_for(self, path: str, *, timeout: float = 60.0, pause: float = 0.002) -> float:
        """Ask until the answer is 200; return the seconds since the process was made."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if self.status(path) == http.client.OK:
                return time.monotonic() - self.spawned
            if self.process.poll() is not None:
                break
            time.sleep(pause)
        raise BenchFailed(f"{path} was not 200 within {timeout:g} seconds.")

    def status(self, path: str) -> int:
        """The status of a GET, 0 if nobody listens."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except ConnectionError:
            return 0
        finally:
            connection.close()

    def cpu(self) -> float:
        """CPU seconds that the node's own process has used so far, in user and kernel mode."""
        times = self.process.cpu_times()
        return times.user + times.system

    def pss(self) -> int:
        """Proportional set size of the node's own process, in bytes."""
        return pss(self.process)

    def workers(self) -> list[psutil.Process]:
        return self.process.children(recursive=True)


def pss(process: psutil.Process) -> int:
    """Memory of a process where shared pages count by their share; USS where the system does not tell (macOS)."""
    memory = process.memory_full_info()
    return int(getattr(memory, "pss", memory.uss))


@contextlib.contextmanager
def running_node(
    *flags: str, env: Mapping[str, str] | None = None, command: Sequence[str | Path] = ()
) -> Iterator[Node]:
    """`exo` with these flags on a free port of loopback; the block begins as soon as it answers /healthcheck.

    `command` is another one that serves, such as `rkllama serve`.
    """
    with tempfile.TemporaryFile("w+") as log:
        spawned = time.monotonic()
        process = psutil.Popen(
            [*map(str, command or (exo_command(),)), "--port", "0", "--disable-tui", *flags],
            env=_environment(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            host, port = _address(process.stdout)
            node = Node(process, host, port, spawned)
            node.healthy_after = node.wait_for("/healthcheck")
            yield node
        except BaseException:  # also Ctrl-C: the log tells why
            log.seek(0)
            sys.stderr.write("".join(log.readlines()[-20:]))
            raise
        finally:
            _stop(process)


def exo_command() -> Path:
    """The command `exo` of the environment that runs this script."""
    return _command("exo")


def rkllama_command() -> Path:
    return _command("rkllama")


def _command(name: str) -> Path:
    command = Path(sys.executable).parent / name
    if not command.exists():
        raise BenchFailed(f"There is no {command}: install the packages into the environment of the benchmarks.")
    return command


def pull_builtin_model() -> None:
    """Make sure that the built-in model is in the store."""
    command = [str(exo_command()), "pull", BUILTIN_MODEL]
    done = subprocess.run(command, env=_environment({}), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchFailed(f"`exo pull {BUILTIN_MODEL}` failed: {done.stderr.strip()}")


def _environment(further: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without settings of a node, which would change what is measured."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EXO_") or name in _KEPT}
    return {**kept, **further}


def _address(stdout: IO[str]) -> tuple[str, int]:
    """Host and port from the greeting, whose first line ends with the node's URL."""
    line = stdout.readline()
    host, _, port = line.rstrip().rpartition("/")[2].rpartition(":")
    if not port.isdigit():
        raise BenchFailed(f"The node did not tell its address; it said {line!r}.")
    return host, int(port)


def _stop(process: psutil.Popen) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
