"""The lab: its hosts reach each other and nothing else, and nothing of it is left over."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster_support.network import Host, Lab, LabFailed, processes_in, sweep
from support import REPOSITORY, environment, run_well, wait_until

pytestmark = pytest.mark.system

TELL_PEER = """
import socket
server = socket.create_server(("0.0.0.0", 4000))
while True:
    connection, (address, _) = server.accept()
    connection.sendall(address.encode())
    connection.close()
"""
ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], 4000), timeout=1) as connection:
    print(connection.recv(99).decode())
"""
HEAR = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
    listener.bind(("224.0.0.251", 5353))
    group = socket.inet_aton("224.0.0.251") + socket.inet_aton("0.0.0.0")
    listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    print("listening", flush=True)
    while True:
        print(*listener.recvfrom(99), flush=True)
"""
SAY = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as speaker:
    speaker.sendto(sys.argv[1].encode(), ("224.0.0.251", 5353))
"""
RUN_A_LAB = """
import pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests in the background has it ignored
from cluster_support.network import Lab
with Lab(pathlib.Path(sys.argv[1])) as lab:
    lab.add_host("a").popen("sleep", "1000")
    print("up", flush=True)
    time.sleep(1000)
"""


def namespaces(pid: int) -> list[str]:
    return [path.name for path in Path("/run/netns").glob(f"exo-test-{pid}-*")]


def links(pid: int) -> list[str]:
    return [name for _, name in socket.if_nameindex() if name.startswith(f"exo-{pid}-")]


def python(host: Host, script: str, *arguments: str) -> str:
    done = host.run(sys.executable, "-c", script, *arguments)
    return (done.stdout + done.stderr).strip()


def serve(host: Host) -> None:
    """Have the host tell everybody on port 4000 who they are."""
    host.popen(sys.executable, "-c", TELL_PEER)
    wait_until(lambda: python(host, ASK, "127.0.0.1") == "127.0.0.1", timeout=10, what="a server")


def reach(address: str, timeout: float = 5) -> str:
    with socket.create_connection((address, 4000), timeout=timeout) as connection:
        return connection.recv(99).decode()


@pytest.fixture
def other_run(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has a lab open."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN_A_LAB, str(tmp_path)],
        env=environment({"PYTHONPATH": str(REPOSITORY / "tests")}),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
        process.kill()


def test_hosts_and_the_test_reach_each_other_by_addresses_of_their_own(lab: Lab) -> None:
    one, other = lab.add_host("one"), lab.add_host("other")
    serve(one)
    assert python(other, ASK, one.address) == other.address
    assert reach(one.address) == lab.address
    assert len({one.address, other.address, lab.address}) == 3


def test_a_host_reaches_no_other_network(lab: Lab) -> None:
    host = lab.add_host("one")
    assert "unreachable" in python(host, ASK, "192.0.2.1")


def test_multicast_passes_between_hosts_that_are_not_cut_off(lab: Lab, tmp_path: Path) -> None:
    hearing, saying, mute = map(lab.add_host, ("hearing", "saying", "mute"))
    log = tmp_path / "heard"
    hearing.popen(sys.executable, "-c", HEAR, log=log)
    wait_until(lambda: "listening" in log.read_text(), timeout=10, what="a listener")
    mute.cut_off()
    python(mute, SAY, "dropped")
    mute.restore()
    assert python(saying, SAY, "first") == python(mute, SAY, "second") == ""
    wait_until(lambda: "second" in log.read_text(), timeout=10, what="a packet")
    _, first, second = log.read_text().splitlines()
    assert "first" in first
    assert saying.address in first
    assert mute.address in second


def test_a_host_that_is_cut_off_is_silent_until_it_is_restored(lab: Lab) -> None:
    host = lab.add_host("one")
    serve(host)
    with socket.create_connection((host.address, 4000)) as before:
        assert before.recv(99)
        host.cut_off()
        with pytest.raises(TimeoutError):
            reach(host.address, timeout=1)
        assert "timed out" in python(host, ASK, lab.address)
        assert python(host, ASK, "127.0.0.1") == "127.0.0.1"
        host.restore()
    assert reach(host.address) == lab.address


def test_a_removed_host_leaves_room_for_one_of_the_same_name(lab: Lab) -> None:
    host = lab.add_host("one")
    sleeper = host.popen("sleep", "1000")
    wait_until(lambda: host.pids() == [sleeper.pid], timeout=10, what="it to be on the host")
    with pytest.raises(LabFailed, match="a host one already"):
        lab.add_host("one")
    host.remove()
    assert sleeper.returncode == -signal.SIGKILL
    assert not Path("/run/netns", host.namespace).exists()
    serve(lab.add_host("one"))


def test_nothing_is_left_after_a_failure(tmp_path: Path) -> None:
    pids: list[int] = []

    def fail(lab: Lab) -> None:
        host = lab.add_host("one")
        host.popen("sh", "-c", "setsid sleep 1000 & setsid sh -c 'kill -STOP $$' & sleep 1000")
        wait_until(lambda: len(host.pids()) == 4, timeout=10, what="processes that lead sessions of their own")
        pids.extend(host.pids())
        raise ValueError("as in a test")

    with pytest.raises(ValueError, match="as in a test"), Lab(tmp_path) as lab:
        fail(lab)
    assert len(pids) == 4
    assert (namespaces(os.getpid()), links(os.getpid())) == ([], [])
    assert not any(is_alive(pid) for pid in pids)


def test_nothing_is_left_of_a_lab_that_could_not_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.ExitStack() as stack:
        taken = Lab(tmp_path)
        stack.enter_context(taken)
        before = namespaces(os.getpid())
        lab = Lab(tmp_path)
        monkeypatch.setattr(lab, "_link", taken._link)
        with pytest.raises(LabFailed, match="File exists"), lab:
            pass
        assert namespaces(os.getpid()) == before


def test_labs_of_two_processes_do_not_meet(lab: Lab, other_run: subprocess.Popen[str]) -> None:
    sweep()
    others = namespaces(other_run.pid)
    assert len(others) == 2
    assert len(processes_in(others)) == 1
    assert links(other_run.pid)
    addresses = {name: entry[0].address for name, entry in psutil.net_if_addrs().items() if name.startswith("exo-")}
    assert len({address.rpartition(".")[0] for address in addresses.values()}) == len(addresses)


def test_ctrl_c_removes_everything(other_run: subprocess.Popen[str]) -> None:
    inside = processes_in(namespaces(other_run.pid))
    other_run.send_signal(signal.SIGINT)
    other_run.wait(20)
    assert (namespaces(other_run.pid), links(other_run.pid)) == ([], [])
    assert not any(is_alive(pid) for pid in inside)


def test_the_next_lab_removes_what_a_killed_run_has_left(other_run: subprocess.Popen[str], tmp_path: Path) -> None:
    inside = processes_in(namespaces(other_run.pid))
    other_run.kill()
    other_run.wait()
    assert all(is_alive(pid) for pid in inside)
    assert namespaces(other_run.pid)
    with Lab(tmp_path / "next"):
        assert (namespaces(other_run.pid), links(other_run.pid)) == ([], [])
        assert not any(is_alive(pid) for pid in inside)


def test_what_an_earlier_process_of_the_same_number_has_left_goes_too(lab: Lab) -> None:
    lab.add_host("one")
    ours = set(namespaces(os.getpid()))
    run_well("ip", "netns", "add", f"exo-test-{os.getpid()}-999999-left")
    sweep()
    assert set(namespaces(os.getpid())) == ours


def is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
