"""`exo cluster watch` with a real HAProxy: nodes that come and go under load, strangers, and HAProxy reloaded."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from cluster_support.load import Load, by_node, is_whole, node_of, questions
from cluster_support.network import Lab
from cluster_support.nodes import ClusterNode, all_ready, dummy_node
from cluster_support.programs import HaproxyProcess
from exo.cluster.pools import pool_name
from exo.cluster.render import render
from support import EXO, wait_until

pytestmark = pytest.mark.system

PORT = 8080
POOL = pool_name(["dummy"])


class Cluster:
    """Listed nodes behind HAProxy, which `watch` keeps in step with what is announced on the lab's network."""

    def __init__(self, lab: Lab, listed: int = 2) -> None:
        self.lab = lab
        self.host = lab.add_host("proxy")
        self.secret = self.host.folder / "secret"
        self.secret.write_text("a secret of this cluster that is long enough\n")
        self.secret.chmod(0o600)
        self.socket = self.host.folder / "admin.sock"
        self.inventory = self.host.folder / "cluster.toml"
        self.nodes = {f"n{number}": self.node(f"n{number}") for number in range(1, listed + 1)}
        all_ready(self.nodes.values())
        self.write()
        for file in render("haproxy", self.inventory):
            file.write(self.host.folder)
        self.haproxy = HaproxyProcess(self.host, self.host.folder / "haproxy.cfg", ports=(PORT,))
        self.watch = self.start_watch()
        self.wait_for_log("keeping HAProxy in step")

    @property
    def log(self) -> str:
        return (self.host.folder / "watch.log").read_text()

    def node(self, name: str, *, secret: bool = True, **options: Any) -> ClusterNode:
        """Started, not ready yet."""
        env = {"EXO_CLUSTER_SECRET_FILE": str(self.secret)} if secret else {}
        return dummy_node(self.lab, name, env=env, **options)

    def write(self, *, without: str = "") -> None:
        tables = "".join(
            f'[[nodes]]\nname = "{name}"\naddress = "{node.address}"\nmodels = ["dummy"]\n'
            for name, node in self.nodes.items()
            if name != without
        )
        self.inventory.write_text(
            f'secret_file = "secret"\n{tables}[proxy]\naddress = "{self.host.address}"\nport = {PORT}\n'
            f'slow_start = 1\nadmin_socket = "{self.socket}"\n'
        )

    def start_watch(self) -> subprocess.Popen[bytes]:
        return self.host.popen(EXO, "cluster", "watch", "-i", self.inventory, log=self.host.folder / "watch.log")

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.host.run(EXO, "cluster", *words, "-i", self.inventory)

    def servers(self) -> dict[str, tuple[str, str]]:
        """Address and port of each server of the pool."""
        lines = self.haproxy.ask(self.socket, f"show servers state {POOL}").splitlines()
        rows = [line.split() for line in lines[2:] if line]
        return {row[3]: (row[4], row[18]) for row in rows}

    def wait_for_servers(self, *names: str, timeout: float = 60) -> None:
        wait_until(lambda: set(self.servers()) == set(names), timeout=timeout, what=f"{names}, {self.servers()}")

    def wait_for_log(self, pattern: str) -> None:
        wait_until(lambda: re.search(pattern, self.log) is not None, timeout=60, what=f"{pattern} in {self.log}")


@pytest.fixture
def cluster(lab: Lab) -> Cluster:
    return Cluster(lab)


def served(load: Load) -> Counter[str]:
    return by_node(load.finished)


def serves(load: Load, name: str, more: int = 5) -> Callable[[], bool]:
    before = served(load)[name]
    return lambda: served(load)[name] >= before + more


def test_nodes_join_and_leave_under_load_and_no_request_fails(cluster: Cluster) -> None:
    with Load(cluster.haproxy.url, questions(), at_once=6) as load:
        wait_until(serves(load, "n2"), timeout=30, what="load")
        joining = cluster.node("n3")
        wait_until(serves(load, "n3"), timeout=60, what="n3 to have work")
        assert cluster.servers()["n3"] == (joining.address, "52415")
        another = cluster.node("n4", slots=2)
        wait_until(serves(load, "n4"), timeout=60, what="n4 to have work")
        assert joining.stop() == 0  # it says goodbye
        cluster.wait_for_servers("n1", "n2", "n4")
        joining.start()
        wait_until(serves(load, "n3"), timeout=60, what="n3 to have work again")
        assert another.stop() == 0
        cluster.wait_for_servers("n1", "n2", "n3")
        chats = load.stop()
    assert [(chat.status, chat.problem) for chat in chats if not is_whole(chat)] == []
    assert set(by_node(chats)) == {"n1", "n2", "n3", "n4"}
    assert "refuses" not in cluster.log, cluster.log


def test_a_conversation_goes_on_elsewhere_when_its_node_leaves(cluster: Cluster) -> None:
    joining = cluster.node("n3", tokens=40)
    cluster.wait_for_servers("n1", "n2", "n3")
    bodies = list(questions(40))
    with Load(cluster.haproxy.url, bodies, at_once=6) as load:
        first = load.wait()
    assert by_node(first)["n3"] > 0, cluster.log
    with Load(cluster.haproxy.url, bodies * 3, at_once=6) as load:
        wait_until(serves(load, "n3", 1), timeout=30, what="n3 to have work")
        joining.stop()
        again = load.wait()
    assert all(map(is_whole, again))
    cluster.wait_for_servers("n1", "n2")
    assert "n3" not in {node_of(chat) for chat in again[-20:]}


def test_what_a_node_that_hangs_runs_is_broken_off(cluster: Cluster) -> None:
    """Long before the time of an answer is over: its connections are alive, as the kernel answers for it."""
    slow = cluster.node("n3", tokens=600)
    cluster.wait_for_servers("n1", "n2", "n3")
    with Load(cluster.haproxy.url, questions(), at_once=6) as load:
        wait_until(lambda: served(load)["n1"] > 3 and slow_runs(slow), timeout=60, what="n3 to have work")
        slow.hang()
        cluster.wait_for_log("n3 in .* hangs; what it ran is broken off: 1")
        wait_until(lambda: any(not is_whole(chat) for chat in load.finished), timeout=10, what="the stream to break")
        slow.kill()
        chats = load.stop()
    (broken,) = [chat for chat in chats if not is_whole(chat)]
    assert (node_of(broken), broken.finish) == ("n3", None)


def slow_runs(node: ClusterNode) -> bool:
    return bool(node.http.get("/ready").json()["running"])


def test_a_stranger_gets_no_request(cluster: Cluster) -> None:
    strangers = [cluster.node("stranger", secret=False)]
    wrong = cluster.lab.folder / "other-secret"
    wrong.write_text("another secret that is long enough for a cluster")
    wrong.chmod(0o600)
    strangers.append(dummy_node(cluster.lab, "wrong", env={"EXO_CLUSTER_SECRET_FILE": str(wrong)}))
    # the right secret, and the name of a listed node
    double = {"EXO_NODE_NAME": "n1", "EXO_CLUSTER_SECRET_FILE": str(cluster.secret)}
    strangers.append(dummy_node(cluster.lab, "double", env=double))
    cluster.node("n3")
    with Load(cluster.haproxy.url, questions(), at_once=6) as load:
        for name in ("stranger", "wrong", "n1"):
            cluster.wait_for_log(f"unknown: {name} at ")
        wait_until(serves(load, "n3"), timeout=60, what="n3 to have work")
        chats = load.stop()
    assert all(map(is_whole, chats))
    assert set(by_node(chats)) == {"n1", "n2", "n3"}
    for stranger in strangers:
        assert stranger.http.get("/metrics").text.count("exo_requests_total{") == 0
    found = json.loads(cluster.command("discover", "--json").stdout)
    standings = {(one["name"], one["addresses"][0]): (one["standing"], one["reason"]) for one in found}
    assert standings["n1", cluster.nodes["n1"].address] == ("listed", "")
    assert standings["n1", strangers[2].address] == ("unknown", "its name is taken, by the inventory")
    assert standings["stranger", strangers[0].address] == ("unknown", "it has no cluster secret")
    assert {standing for (name, _), (standing, _) in standings.items() if name == "n3"} == {"verified"}
    assert re.search(r"^n3 .* dummy +1 +dummy +verified$", cluster.command("discover").stdout, re.MULTILINE)


def test_a_reloaded_haproxy_gets_the_nodes_again(cluster: Cluster) -> None:
    cluster.node("n3")
    cluster.wait_for_servers("n1", "n2", "n3")
    with Load(cluster.haproxy.url, questions(), at_once=6) as load:
        wait_until(serves(load, "n3"), timeout=60, what="n3 to have work")
        cluster.haproxy.reload()
        cluster.wait_for_servers("n1", "n2", "n3")
        wait_until(serves(load, "n3"), timeout=60, what="n3 to have work again")
        chats = load.stop()
    assert [(chat.status, chat.problem) for chat in chats if not is_whole(chat)] == []
    cluster.haproxy.kill()
    cluster.wait_for_log("It is tried again and again")
    cluster.haproxy = HaproxyProcess(cluster.host, cluster.host.folder / "haproxy.cfg", ports=(PORT,))
    cluster.wait_for_servers("n1", "n2", "n3")
    cluster.wait_for_log("HAProxy answers")


def test_the_inventory_is_followed_and_a_broken_edit_changes_nothing(cluster: Cluster) -> None:
    before = cluster.inventory.read_text()
    cluster.inventory.write_text(before.replace("port = ", "prot = "))
    cluster.wait_for_log("there is no such key, did you mean port.* The inventory stays as it was")
    cluster.inventory.write_text(before.replace('name = "n2"\n', 'name = "n2"\nweight = 7\nslots = 3\n'))
    cluster.wait_for_log("n2 in pool_dummy_[0-9a-f]+ has 3 slots now, before it had 1")
    state = cluster.haproxy.ask(cluster.socket, f"show servers state {POOL}").splitlines()
    assert [line.split()[7] for line in state[2:] if line] == ["100", "7"]
    # no longer listed, but it can prove itself: it stays
    cluster.write(without="n2")
    cluster.wait_for_log("has changed; its nodes: 1")
    cluster.wait_for_log("n2 in .* has the weight 100 now")
    assert set(cluster.servers()) == {"n1", "n2"}
    cluster.nodes["n2"].stop()
    cluster.wait_for_servers("n1")
    cluster.nodes["n2"].start()
    cluster.wait_for_servers("n1", "n2")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_haproxy_stays_as_it_is(cluster: Cluster, number: signal.Signals) -> None:
    node = cluster.node("n3")
    cluster.wait_for_servers("n1", "n2", "n3")
    cluster.watch.send_signal(number)
    assert cluster.watch.wait(20) == 0
    assert "Traceback" not in cluster.log
    assert set(cluster.servers()) == {"n1", "n2", "n3"}
    node.kill()
    node.start()
    assert cluster.command("watch", "--once").returncode == 0
    assert set(cluster.servers()) == {"n1", "n2", "n3"}
    node.stop()
    assert cluster.command("watch", "--once").returncode == 0
    assert set(cluster.servers()) == {"n1", "n2"}


def test_status_and_drain(cluster: Cluster) -> None:
    shown = cluster.command("status")
    assert shown.returncode == 0, shown
    assert re.search(r"^n1 +yes +dummy +0/\d+ +- +- +-$", shown.stdout, re.MULTILINE), shown.stdout
    with Load(cluster.haproxy.url, questions(), at_once=4) as load:
        wait_until(serves(load, "n2"), timeout=30, what="load")
        drained = cluster.command("drain", "n1", "--wait")
        assert (drained.returncode, drained.stdout.splitlines()[-1]) == (0, "n1 has no request left."), drained
        wait_until(serves(load, "n2"), timeout=30, what="n2 to go on")
        shown = cluster.command("status")
        assert shown.returncode == 1
        assert re.search(r"^n1 +no: draining", shown.stdout, re.MULTILINE)
        assert re.search(r"^n2 +yes +dummy +\d+/\d+ +\d+\.\d", shown.stdout, re.MULTILINE)
        assert cluster.command("drain", "N1", "--undo").stdout == "n1 takes requests again.\n"
        wait_until(serves(load, "n1"), timeout=30, what="n1 to have work again")
        chats = load.stop()
    assert [(chat.status, chat.problem) for chat in chats if not is_whole(chat)] == []
    cluster.nodes["n1"].kill()
    assert "n1 at" in cluster.command("status").stdout
