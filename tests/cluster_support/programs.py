"""Debian's own haproxy, nginx and prometheus on a host of the lab, in the foreground, with a given configuration.

    haproxy = HaproxyProcess(proxy, Path("haproxy.cfg"), ports=(8080,))  # returns when they listen
    haproxy.ask(socket_path, "show stat")                            # its runtime API; the path stands in the file
    haproxy.reload()                                                 # reads the file again; streams go on
    nginx = NginxProcess(proxy, Path("nginx.conf"), ports=(8080,))   # reload() too
    prometheus = PrometheusProcess(watcher, Path("prometheus.yml"))  # on watcher.address, port 9090
    prometheus.query("up"); prometheus.alerts(); prometheus.targets(); prometheus.reload()

`program.log` is what it has printed, `program.url` where it is reached (its first port). They end with their host, or
by `stop` (SIGTERM) and `kill` (SIGKILL). Raises ProgramFailed if one ends too early or does not come up.
"""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import psutil

from cluster_support.network import Host, end_group

_POLL = 0.02
_START = 30.0
_LISTENS = "0A"
_PROMETHEUS_PORT = 9090


class ProgramFailed(Exception):
    """A program ended, or did not do in time what was asked for. The message ends with its log."""


class Program:
    """A command in the foreground of a host; ended with all its processes when the host goes."""

    def __init__(self, host: Host, *command: str | Path, ports: Sequence[int], cwd: Path | None = None) -> None:
        self.host = host
        self.ports = tuple(ports)
        self._log = host.folder / f"{command[0]}-{time.monotonic_ns()}.log"
        self._process = host.popen(*command, log=self._log, cwd=cwd)
        self._wait(self._is_up, f"listening on {', '.join(map(str, self.ports))}")

    @property
    def url(self) -> str:
        return f"http://{self.host.address}:{self.ports[0]}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """What it has printed, to stdout and to stderr."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def stop(self, timeout: float = 30) -> int:
        """SIGTERM; returns the exit code."""
        self._process.terminate()
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ProgramFailed(f"It did not end within {timeout:g} seconds after SIGTERM.\n{self.log}") from None

    def kill(self) -> None:
        """SIGKILL to it and its workers."""
        end_group(self._process)

    def cpu(self) -> float:
        """CPU seconds of it and of its living workers."""
        return sum(sum(process.cpu_times()[:2]) for process in self._family())

    def _is_up(self) -> bool:
        return set(self.ports) <= _listening(self.pid)

    def _family(self) -> list[psutil.Process]:
        process = psutil.Process(self.pid)
        return [process, *process.children(recursive=True)]

    def _workers(self) -> set[int]:
        return {process.pid for process in self._family()} - {self.pid}

    def _renew_workers(self, number: signal.Signals, *, refusal: str) -> None:
        """Send the signal after which other workers serve; `refusal` is what the log says of a file that is wrong."""
        workers, refused = self._workers(), self.log.count(refusal)
        self._process.send_signal(number)

        def are_new() -> bool:
            if self.log.count(refusal) > refused:
                raise ProgramFailed(f"It refuses the new configuration.\n{self.log}")
            return bool(self._workers() - workers)

        self._wait(are_new, "served by new workers")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _START
        while not condition():
            if not self.is_running:
                raise ProgramFailed(f"It ended with code {self._process.returncode}.\n{self.log}")
            if time.monotonic() > deadline:
                raise ProgramFailed(f"It was not {what} within {_START:g} seconds.\n{self.log}")
            time.sleep(_POLL)


class HaproxyProcess(Program):
    """HAProxy as a master with a worker, as Debian's service runs it."""

    def __init__(self, host: Host, config: Path, *, ports: Sequence[int]) -> None:
        super().__init__(host, "haproxy", "-W", "-f", config, ports=ports)

    def reload(self) -> None:
        """Read the file again. The old worker ends what it has begun, and may take a request a moment longer."""
        self._renew_workers(signal.SIGUSR2, refusal="Loading failure!")

    def ask(self, admin_socket: Path, command: str, timeout: float = 10) -> str:
        """One command of the runtime API, and its answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(str(admin_socket))
            connection.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()


class NginxProcess(Program):
    """nginx with its master in the foreground, whatever the file says about a daemon."""

    def __init__(self, host: Host, config: Path, *, ports: Sequence[int]) -> None:
        written = config.read_text(encoding="utf-8")
        own = {"daemon": "off", "pid": host.folder / "nginx.pid"}
        added = "".join(f"{name} {value}; " for name, value in own.items() if not _is_set(written, name))
        command = ("nginx", "-p", host.folder, "-c", config.absolute(), "-e", "stderr")
        super().__init__(host, *command, *(("-g", added) if added else ()), ports=ports)

    def reload(self) -> None:
        """Read the file again. The old workers end what they have begun, and may take a request a moment longer."""
        self._renew_workers(signal.SIGHUP, refusal="[emerg]")


class PrometheusProcess(Program):
    """Prometheus with a database of its own. `http` is a client of its API."""

    def __init__(self, host: Host, config: Path, *arguments: str, port: int = _PROMETHEUS_PORT) -> None:
        self.http = httpx2.Client(trust_env=False, timeout=30, base_url=f"http://{host.address}:{port}")
        host.when_removed(self.http.close)
        super().__init__(
            host,
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={host.folder / 'prometheus'}",
            f"--web.listen-address={host.address}:{port}",
            "--log.level=warn",
            *arguments,
            ports=(port,),
        )

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What an expression gives now: `{"metric": {label: value}, "value": [time, "number"]}` for each series.

        Raises ProgramFailed with Prometheus's own words if it cannot be computed.
        """
        data = self._get("query", {"query": expression})
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        result: list[dict[str, Any]] = data["result"]
        return result

    def value(self, expression: str) -> float | None:
        """The number of an expression that gives one series, None if it gives none."""
        found = self.query(expression)
        assert len(found) < 2, f"{expression} gives {len(found)} series"
        return float(found[0]["value"][1]) if found else None

    def alerts(self) -> list[dict[str, Any]]:
        """Pending and firing ones: `labels` with alertname, `annotations`, `state`."""
        alerts: list[dict[str, Any]] = self._get("alerts")["alerts"]
        return alerts

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {str(alert["labels"]["alertname"]) for alert in self.alerts() if alert["state"] == "firing"}

    def targets(self) -> dict[str, dict[str, Any]]:
        """What is scraped, by its URL: `health` (up, down, unknown), `lastError`, `labels`."""
        return {str(target["scrapeUrl"]): target for target in self._get("targets")["activeTargets"]}

    def rules(self) -> list[dict[str, Any]]:
        """Every rule of every group: `name`, `query`, `health` (ok, err, unknown), `type` (alerting, recording)."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def reload(self) -> None:
        """Read the files again. Raises ProgramFailed if they are wrong."""
        before = self.value_of_itself("prometheus_config_last_reload_success_timestamp_seconds")
        self._process.send_signal(signal.SIGHUP)

        def is_reloaded() -> bool:
            if self.value_of_itself("prometheus_config_last_reload_successful") == 0:
                raise ProgramFailed(f"It refuses the new configuration.\n{self.log}")
            return self.value_of_itself("prometheus_config_last_reload_success_timestamp_seconds") != before

        self._wait(is_reloaded, "reloaded")

    def value_of_itself(self, metric: str) -> float:
        """A metric without labels from its own /metrics, whether it scrapes that or not."""
        found = re.search(rf"^{metric} (\S+)$", self.http.get("/metrics").text, re.MULTILINE)
        assert found is not None, metric
        return float(found[1])

    def _is_up(self) -> bool:
        with contextlib.suppress(httpx2.TransportError):
            return self.http.get("/-/ready").status_code == httpx2.codes.OK
        return False

    def _get(self, path: str, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
        answer = self.http.get(f"/api/v1/{path}", params=parameters).json()
        if answer["status"] != "success":
            raise ProgramFailed(f"Prometheus: {answer['error']}")
        data: dict[str, Any] = answer["data"]
        return data


def _is_set(config: str, directive: str) -> bool:
    """Whether nginx's file has this directive of its outermost level, of which one may stand there only once."""
    return re.search(rf"^\s*{directive}\s[^;]*;", config, re.MULTILINE) is not None


def _listening(pid: int) -> set[int]:
    """The TCP ports that are listened on in the network of this process; empty when it is gone."""
    found = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if state == _LISTENS:
                    found.add(int(local.rpartition(":")[2], 16))
    return found
