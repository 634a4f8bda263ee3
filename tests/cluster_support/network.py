"""A network of its own on one machine: a bridge, and hosts with addresses of their own. Needs root, iproute2, nftables.

    with Lab(tmp_path) as lab:
        proxy = lab.add_host("proxy")             # a network namespace; proxy.address is 10.x.y.10
        proxy.run("ip", "-br", "address")         # to its end, output kept
        proxy.popen("sleep", "1000", log=path)    # ended with the host
        proxy.cut_off(); proxy.restore()          # by a rule that drops everything but its own loopback
        proxy.remove()

The test process stays in the root namespace and reaches every host by its address: the lab's one link into that
namespace has `lab.address`, which the hosts can reach too. Hosts hear each other's multicast and have no other network.

At the end, also after a failure or Ctrl-C, every process in the namespaces is killed and everything is removed. What an
earlier run has left, because it was killed itself, is removed by the next lab.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, final

from support import environment, run, wait_until

_NAMESPACES = Path("/run/netns")
_PREFIX = "exo-test"
_NAMESPACE = re.compile(rf"{_PREFIX}-(?P<pid>\d+)-(?P<number>\d+)-.+")
_LINK = re.compile(r"exo-(?P<pid>\d+)-(?P<number>\d+)")
_FIRST_HOST = 10
_CUT = "table inet cut_off"
_CUT_RULES = f"""
{_CUT} {{
    chain inward {{ type filter hook input priority 0; iifname != "lo" drop; }}
    chain outward {{ type filter hook output priority 0; oifname != "lo" drop; }}
}}
"""

_numbers = itertools.count(1)
_open_labs: set[int] = set()


class LabFailed(Exception):
    """The network could not be made or changed. The message says which command failed, and why."""


@final
class Host:
    """A machine of the lab, with `eth0` and loopback; made by Lab.add_host."""

    def __init__(self, lab: Lab, name: str, address: str, namespace: str) -> None:
        self.lab = lab
        self.name = name
        self.address = address
        self.namespace = namespace
        self.prefix = ("nsenter", f"--net={_NAMESPACES / namespace}", "--")
        """Before a command: it becomes the command, so that a signal to its process reaches the command itself."""
        self._ends: list[Callable[[], object]] = []

    @property
    def folder(self) -> Path:
        """What its programs keep; made with the host, left there."""
        return self.lab.folder / self.name

    def run(self, *command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command that ends by itself; options as for support.run."""
        return run(*self.prefix, *command, **options)

    def popen(
        self,
        *command: str | Path,
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a command in a session of its own; it is killed with the host. What it prints goes to `log`."""
        with (log or Path(os.devnull)).open("ab") as out:
            process = subprocess.Popen(
                [*self.prefix, *map(str, command)],
                env=environment(env),
                cwd=cwd or self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.when_removed(lambda: end_group(process))
        return process

    def when_removed(self, end: Callable[[], object]) -> None:
        """Call this when the host goes, the latest first."""
        self._ends.append(end)

    def pids(self) -> list[int]:
        """The processes on this host."""
        return processes_in([self.namespace])

    def cut_off(self) -> None:
        """Drop every packet to and from the host, as a firewall does: nobody is told."""
        _checked(*self.prefix, "nft", "-f", "-", text=_CUT_RULES)

    def restore(self) -> None:
        """Undo `cut_off`."""
        _checked(*self.prefix, "nft", "delete", *_CUT.split())

    def remove(self) -> None:
        """End what runs on the host, and take it off the network. Does nothing the second time."""
        while self._ends:
            self._ends.pop()()
        self.lab.forget(self)


@final
class Lab:
    """See the top of the module. `folder` is where hosts and programs keep their files. Raises LabFailed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts: dict[str, Host] = {}
        self._number = next(_numbers)
        self._link = f"exo-{os.getpid()}-{self._number}"
        self._network = ipaddress.ip_network("10.0.0.0/24")
        self._addresses: Iterator[ipaddress.IPv4Address] = iter(())

    @property
    def address(self) -> str:
        """Of the test process on the lab's network."""
        return str(self._network[1])

    def __enter__(self) -> Lab:
        sweep()
        _open_labs.add(self._number)
        try:
            self._network = _free_network(self._number)
            self._addresses = itertools.islice(self._network.hosts(), _FIRST_HOST - 1, None)
            bridge = self._namespace("bridge")
            _ip(f"netns add {bridge}", f"link add {self._link} type veth peer name root netns {bridge}")
            _ip(
                "link add lan type bridge mcast_snooping 0",
                "link set lan up",
                "link set root master lan up",
                namespace=bridge,
            )
            _ip(f"address add {self.address}/24 dev {self._link}", f"link set {self._link} up")
        except BaseException:  # also Ctrl-C: nothing may be left over
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add_host(self, name: str) -> Host:
        """A further machine with the next free address. The name has to be new."""
        if name in self.hosts or name == "bridge":
            raise LabFailed(f"There is a host {name} already.")
        host = Host(self, name, str(next(self._addresses)), self._namespace(name))
        host.folder.mkdir(parents=True, exist_ok=True)
        port = f"port{host.address.rpartition('.')[2]}"
        bridge = self._namespace("bridge")
        _ip(
            f"netns add {host.namespace}",
            f"link add {port} netns {bridge} type veth peer name eth0 netns {host.namespace}",
        )
        self.hosts[name] = host
        _ip(f"link set {port} master lan up", namespace=bridge)
        _ip(
            "link set lo up",
            f"address add {host.address}/24 dev eth0",
            "link set eth0 up",
            "route add 224.0.0.0/4 dev eth0",
            namespace=host.namespace,
        )
        return host

    def forget(self, host: Host) -> None:
        """Remove the host's namespace with all that runs in it; Host.remove calls this."""
        if self.hosts.get(host.name) is host:
            del self.hosts[host.name]
            remove_namespaces([host.namespace])

    def close(self) -> None:
        """End and remove everything. A host that cannot be ended does not keep the rest from being removed."""
        with contextlib.ExitStack() as stack:
            stack.callback(_open_labs.discard, self._number)
            stack.callback(_remove_links, [self._link])
            stack.callback(lambda: remove_namespaces(_namespaces(os.getpid(), self._number)))
            for host in self.hosts.values():
                stack.callback(host.remove)

    def _namespace(self, name: str) -> str:
        return f"{_PREFIX}-{os.getpid()}-{self._number}-{name}"


def sweep() -> None:
    """Remove what labs have left whose process is gone, or was this one."""
    remove_namespaces([name for name in _namespaces() if _is_left(_NAMESPACE, name)])
    _remove_links([name for name in _links() if _is_left(_LINK, name)])


def remove_namespaces(names: Collection[str]) -> None:
    """Kill every process in these network namespaces, then remove them with their links."""
    if not names:
        return

    def is_empty() -> bool:
        pids = processes_in(names)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    wait_until(is_empty, timeout=20, what=f"no process in {', '.join(names)}")
    _ip(*(f"netns delete {name}" for name in names))


def processes_in(namespaces: Collection[str]) -> list[int]:
    """The processes whose network is one of these."""
    wanted = {_identity(_NAMESPACES / name) for name in namespaces} - {None}
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if _identity(folder / "ns/net") in wanted]


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads a group, with the group, and wait for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode; None for what is gone, as the network of a process that has ended."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _free_network(number: int) -> ipaddress.IPv4Network:
    """A network of 10.128.0.0/9 that this machine has no route into; the process's id decides where to look first."""
    taken = [
        ipaddress.ip_network(route["dst"])
        for route in json.loads(_checked("ip", "-json", "-4", "route", "show", "table", "all"))
        if route["dst"][0].isdigit()
    ]
    for step in range(1 << 15):
        place = (os.getpid() * 7 + number + step) % (1 << 15)
        network = ipaddress.IPv4Network((0x0A800000 + (place << 8), 24))
        if not any(network.overlaps(other) for other in taken):
            return network
    raise LabFailed("Every network of 10.128.0.0/9 is in use.")


def _is_left(pattern: re.Pattern[str], name: str) -> bool:
    found = pattern.fullmatch(name)
    if found is None:
        return False
    pid = int(found["pid"])
    return int(found["number"]) not in _open_labs if pid == os.getpid() else not Path(f"/proc/{pid}").exists()


def _namespaces(pid: int | None = None, number: int | None = None) -> list[str]:
    """The namespaces of all labs, or of one."""
    names = [path.name for path in _NAMESPACES.glob(f"{_PREFIX}-*")]
    return names if pid is None else [name for name in names if name.startswith(f"{_PREFIX}-{pid}-{number}-")]


def _links() -> list[str]:
    return [str(link["ifname"]) for link in json.loads(_checked("ip", "-json", "link", "show"))]


def _remove_links(names: Collection[str]) -> None:
    """Those of the root namespace; one goes by itself, a moment later, when its other end's namespace goes."""
    for name in names:
        subprocess.run(["ip", "link", "delete", name], stderr=subprocess.DEVNULL, check=False)


def _ip(*commands: str, namespace: str | None = None) -> None:
    """Run commands of `ip`, in one process."""
    inside = ("-netns", namespace) if namespace else ()
    _checked("ip", *inside, "-batch", "-", text="\n".join(commands))


def _checked(*command: str, text: str = "") -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise LabFailed(f"{error.filename} is missing; tools/install-system-packages installs it.") from None
    if done.returncode != 0:
        raise LabFailed(f"{' '.join(command)} ended with {done.returncode}:\n{text}\n{done.stderr}")
    return done.stdout
