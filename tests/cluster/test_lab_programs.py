"""HAProxy, nginx and Prometheus on hosts of the lab."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest

from cluster_support.load import by_node, is_whole, questions, run
from cluster_support.network import Host, Lab
from cluster_support.nodes import ClusterNode, all_ready, dummy_node
from cluster_support.programs import HaproxyProcess, NginxProcess, Program, ProgramFailed, PrometheusProcess
from support import wait_until

pytestmark = pytest.mark.system

HAPROXY = """
global
    stats socket {socket} mode 600 level admin
defaults
    mode http
    timeout connect 3s
    timeout client 60s
    timeout server 60s
    timeout queue 60s
frontend exo
    bind :8080
    http-response set-header x-version {version}
    default_backend pool
backend pool
    balance leastconn
    option httpchk GET /ready
{servers}
"""
NGINX = """
user www-data;
{directives}
events {{ }}
http {{
    access_log off;
    upstream pool {{ {servers} }}
    server {{
        listen 8080;
        add_header x-version {version} always;
        location / {{ proxy_pass http://pool; proxy_http_version 1.1; proxy_buffering off; }}
    }}
}}
"""
PROMETHEUS = """
global: {{scrape_interval: 200ms, evaluation_interval: 200ms}}
rule_files: [rules.yml]
scrape_configs: [{{job_name: exo, static_configs: [{{targets: [{targets}], labels: {{version: {version}}}}}]}}]
"""
RULES = """
groups: [{name: exo, rules: [{alert: NodeDown, expr: up == 0}]}]
"""


class Proxied:
    """Two nodes, and the host of what is in front of them."""

    def __init__(self, host: Host, nodes: list[ClusterNode], folder: Path) -> None:
        self.host = host
        self.nodes = nodes
        self.folder = folder
        self.socket = folder / "admin.sock"

    def haproxy(self, version: str) -> Path:
        servers = "".join(f"    server {node.name} {node.address}:{node.port} maxconn 1 check\n" for node in self.nodes)
        return self._write("haproxy.cfg", HAPROXY.format(socket=self.socket, servers=servers, version=version))

    def nginx(self, version: str, directives: str = "") -> Path:
        servers = " ".join(f"server {node.address}:{node.port};" for node in self.nodes)
        return self._write("nginx.conf", NGINX.format(servers=servers, version=version, directives=directives))

    def prometheus(self, version: str) -> Path:
        self._write("rules.yml", RULES)
        targets = ", ".join(f"'{node.address}:{node.port}'" for node in self.nodes)
        return self._write("prometheus.yml", PROMETHEUS.format(targets=targets, version=version))

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path


@pytest.fixture(scope="module")
def nodes(shared_lab: Lab) -> list[ClusterNode]:
    found = [dummy_node(shared_lab, name, rate=200) for name in ("n1", "n2")]
    all_ready(found)
    return found


@pytest.fixture
def proxied(shared_lab: Lab, nodes: list[ClusterNode], tmp_path: Path) -> Iterator[Proxied]:
    host = shared_lab.add_host("front")
    yield Proxied(host, nodes, tmp_path)
    host.remove()


def version(program: Program) -> str:
    return httpx2.get(f"{program.url}/ready", trust_env=False).headers["x-version"]


def check_the_load(program: Program) -> None:
    chats = run(program.url, questions(40), at_once=40)
    assert all(map(is_whole, chats)), {chat.problem for chat in chats}
    assert set(by_node(chats)) == {"n1", "n2"}
    assert program.cpu() > 0


def test_haproxy_serves_reloads_and_ends(proxied: Proxied) -> None:
    haproxy = HaproxyProcess(proxied.host, proxied.haproxy("one"), ports=(8080,))
    check_the_load(haproxy)
    assert version(haproxy) == "one"
    proxied.haproxy("two")
    haproxy.reload()
    wait_until(lambda: version(haproxy) == "two", timeout=10, what="the new file")
    assert haproxy.ask(proxied.socket, "show servers conn pool").count("pool/n") == 2
    proxied.haproxy("three\n    nonsense")
    with pytest.raises(ProgramFailed, match="unknown keyword 'nonsense'"):
        haproxy.reload()
    assert version(haproxy) == "two"
    haproxy.kill()
    wait_until(lambda: proxied.host.pids() == [], timeout=10, what="an end of its processes")


def test_nginx_serves_reloads_and_ends(proxied: Proxied) -> None:
    nginx = NginxProcess(proxied.host, proxied.nginx("one"), ports=(8080,))
    check_the_load(nginx)
    assert version(nginx) == "one"
    proxied.nginx("two")
    nginx.reload()
    wait_until(lambda: version(nginx) == "two", timeout=10, what="the new file")
    proxied.nginx("three; nonsense")
    with pytest.raises(ProgramFailed, match=r"\[emerg\]"):
        nginx.reload()
    assert version(nginx) == "two"
    nginx.kill()
    wait_until(lambda: proxied.host.pids() == [], timeout=10, what="an end of its processes")


def test_nginx_stays_in_the_foreground_whatever_its_file_says(proxied: Proxied) -> None:
    config = proxied.nginx("one", f"pid {proxied.folder}/own.pid;")
    nginx = NginxProcess(proxied.host, config, ports=(8080,))
    assert int((proxied.folder / "own.pid").read_text()) == nginx.pid
    assert nginx.stop() == 0
    wait_until(lambda: proxied.host.pids() == [], timeout=10, what="an end of its processes")


def test_a_program_with_a_wrong_file_says_what_is_wrong(proxied: Proxied) -> None:
    with pytest.raises(ProgramFailed, match="unknown keyword 'nonsense'"):
        HaproxyProcess(proxied.host, proxied.haproxy("one\n    nonsense"), ports=(8080,))
    with pytest.raises(ProgramFailed, match="nonsense"):
        NginxProcess(proxied.host, proxied.nginx("one", "nonsense;"), ports=(8080,))


def test_a_program_ends_with_its_host(proxied: Proxied) -> None:
    haproxy = HaproxyProcess(proxied.host, proxied.haproxy("one"), ports=(8080,))
    assert len(proxied.host.pids()) == 2
    (worker,) = psutil.Process(haproxy.pid).children()
    proxied.host.remove()
    assert not haproxy.is_running
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def test_prometheus_scrapes_and_fires_and_reloads(proxied: Proxied) -> None:
    prometheus = PrometheusProcess(proxied.host, proxied.prometheus("one"))
    wait_until(lambda: prometheus.value("sum(up)") == 2, timeout=30, what="two nodes that are up")
    assert {series["metric"]["version"] for series in prometheus.query("up")} == {"one"}
    assert set(prometheus.targets()) == {f"{node.url}/metrics" for node in proxied.nodes}
    assert [rule["health"] for rule in prometheus.rules()] == ["ok"]
    assert (prometheus.value("2 * 3"), prometheus.value("absent_metric")) == (6, None)
    assert prometheus.firing() == set()
    proxied.nodes[0].host.cut_off()
    wait_until(lambda: prometheus.firing() == {"NodeDown"}, timeout=30, what="an alert")
    assert [alert["labels"]["instance"] for alert in prometheus.alerts()] == [f"{proxied.nodes[0].address}:52415"]
    proxied.nodes[0].host.restore()
    wait_until(lambda: prometheus.firing() == set(), timeout=30, what="no alert")
    proxied.prometheus("two")
    prometheus.reload()
    wait_until(lambda: prometheus.value('sum(up{version="two"})') == 2, timeout=30, what="the new file")
    with pytest.raises(ProgramFailed, match="parse error"):
        prometheus.query("up{")
    (proxied.folder / "prometheus.yml").write_text("nonsense")
    with pytest.raises(ProgramFailed, match="refuses the new configuration"):
        prometheus.reload()
    assert prometheus.stop() == 0
