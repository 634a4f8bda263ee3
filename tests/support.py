"""Nodes as real processes, for the end-to-end tests."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, final

import httpx2

REPOSITORY = Path(__file__).resolve().parent.parent
EXO = Path(sys.executable).with_name("exo")
RKLLAMA = Path(sys.executable).with_name("rkllama")
BUILTIN_MODEL = "smollm2-135m-instruct"

_FIRST_LINE = re.compile(
    r"^(?:exo serves the engine (?P<engine>\S+)|rkllama serves the models of .+) on (?P<url>http://\S+)$", re.MULTILINE
)
_FOREIGN_SETTINGS = ("EXO_", "RKLLM_", "RKLLAMA_", "PYTHONPATH")
_POLL = 0.02


class NodeFailed(Exception):
    """A node ended, or did not become ready in time. The message ends with its log."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of this process without the settings of whoever runs the tests, and `extra`."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_SETTINGS)}
    return {**own, **(extra or {})}


def run(
    *command: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself; whatever its exit code, its output is kept. `env` as for `environment`."""
    return subprocess.run(
        [str(part) for part in command],
        env=environment(env),
        cwd=cwd,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def run_well(*command: str | Path, **options: Any) -> str:
    """As `run`, but the exit code has to be 0. Returns what the command printed to stdout."""
    done = run(*command, **options)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def own_environment(folder: Path, suffix: str = "") -> Path:
    """The interpreter of an environment that has what requirements{suffix}.txt of `folder` names, and nothing of exo.

    Versions are those of constraints{suffix}.txt. The environment is kept for the next time.
    """
    requirements, constraints = folder / f"requirements{suffix}.txt", folder / f"constraints{suffix}.txt"
    home = REPOSITORY / f".venv-{folder.name}{suffix}"
    stamp, wanted = home / ".installed", requirements.read_text() + constraints.read_text() + sys.version
    python = home / "bin/python"
    if not stamp.exists() or stamp.read_text() != wanted:
        run_well(sys.executable, "-m", "venv", "--clear", home)
        pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", constraints)
        run_well(*pip, "--requirement", requirements, timeout=600)
        stamp.write_text(wanted)
    return python


def unpinned(folder: Path, suffix: str = "") -> set[str]:
    """What requirements{suffix}.txt of `folder` names and constraints{suffix}.txt gives no version of."""
    required, pinned = _lines(folder / f"requirements{suffix}.txt"), _lines(folder / f"constraints{suffix}.txt")
    return {re.split(r"[\[;<>=]", line)[0] for line in required} - {line.partition("==")[0] for line in pinned}


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


def fenced_blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a Markdown page that are marked as `language`, without their fences."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def wait_until(condition: Callable[[], bool], *, timeout: float, what: str) -> None:
    """Poll until `condition` holds; fails after `timeout` seconds with `what` was waited for."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} seconds: {what}"
        time.sleep(_POLL)


@final
class Node:
    """The command `exo` as a process of its own, on a free port of loopback; a context manager that always ends it.

    `folder` is where the node starts, keeps its log, and by default its EXO_HOME. `command` is the `exo` of another
    environment, or another command that serves, such as `rkllama serve`. `address` is another host and port to listen
    on, `prefix` a command that becomes the one behind it, such as `nsenter`. With `ready=False` the node is handed over
    as soon as its address is known. Raises NodeFailed.
    """

    def __init__(
        self,
        *arguments: str,
        folder: Path,
        env: Mapping[str, str] | None = None,
        command: Sequence[str | Path] = (EXO,),
        address: tuple[str, int] | None = None,
        prefix: Sequence[str] = (),
        ready: bool = True,
        timeout: float = 120,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.engine = ""
        self.url = f"http://{address[0]}:{address[1]}" if address else ""
        listen = ("--host", address[0], "--port", str(address[1])) if address else ("--port", "0")
        self._log = folder / f"node-{time.monotonic_ns()}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*prefix, *map(str, command), *listen, *arguments],
                env=environment({"EXO_HOME": str(folder / "home"), **(env or {})}),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.http = httpx2.Client(trust_env=False, timeout=timeout, base_url=self.url)
        try:
            if address is None:
                self._wait_for_address(timeout)
            if ready:
                self.wait_until_ready(timeout)
        except BaseException:  # also Ctrl-C and time-outs of pytest: no node may be left over
            self.end()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        """What the node has printed so far, to stdout and to stderr."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while the node runs."""
        return self._process.poll()

    def is_ready(self) -> bool:
        """Whether /ready answers 200 now. Raises NodeFailed if the node has ended."""
        self._check_running()
        with contextlib.suppress(httpx2.TransportError):
            return self.http.get("/ready").status_code == httpx2.codes.OK
        return False

    def wait_until_ready(self, timeout: float = 120) -> None:
        """Wait until /ready answers 200. Raises NodeFailed if the node ends, or takes longer than `timeout` seconds."""
        self._wait_for_address(timeout)
        self._wait(self.is_ready, timeout, "ready")

    def chat(self, text: str, **fields: Any) -> httpx2.Response:
        """POST /v1/chat/completions with one user message and further fields of the body."""
        body = {"messages": [{"role": "user", "content": text}], **fields}
        return self.http.post("/v1/chat/completions", json=body)

    def stop(self, timeout: float = 30) -> int:
        """SIGTERM; returns the exit code. Raises NodeFailed if the node is still there after `timeout` seconds."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise NodeFailed(f"The node did not end within {timeout:g} seconds after SIGTERM.\n{self.log}") from None

    def kill(self) -> None:
        """SIGKILL to the node alone."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Kill what is left of the node and of its workers, and close the connections to it."""
        self.http.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Node:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _wait_for_address(self, timeout: float) -> None:
        self._wait(lambda: _FIRST_LINE.search(self.log) is not None, timeout, "listening")
        found = _FIRST_LINE.search(self.log)
        assert found is not None
        self.engine, self.url = found["engine"] or "rkllm", found["url"]
        self.http.base_url = httpx2.URL(self.url)

    def _wait(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            self._check_running()
            if time.monotonic() > deadline:
                raise NodeFailed(f"The node was not {what} within {timeout:g} seconds.\n{self.log}")
            time.sleep(_POLL)

    def _check_running(self) -> None:
        if not self.is_running:
            raise NodeFailed(f"The node ended with code {self._process.returncode}.\n{self.log}")


class StartNode(Protocol):
    """The fixture `start_node`: arguments as for `Node`, of which `folder` may be left out. The test's end ends it."""

    def __call__(self, *arguments: str, **options: Any) -> Node: ...
