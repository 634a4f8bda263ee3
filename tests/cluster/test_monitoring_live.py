"""Prometheus scrapes real nodes and HAProxy: each alert fires when its cause is there, and every expression has data.

The configuration is the rendered one with a short interval. The rules have their real expressions; the lengths of time
in them are a hundredth, and a first token is slow from one second on.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx2
import pytest
from board_tree import THERMAL, put, running_rk3588
from promql import metrics_of

from cluster_support.load import Load, is_whole, questions, run
from cluster_support.network import Lab
from cluster_support.nodes import ClusterNode, all_ready, npu_node
from cluster_support.programs import HaproxyProcess, PrometheusProcess
from cluster_support.rules import ANSWERED
from exo.cluster.monitoring import ALERTING_FILE, RECORDING_FILE, Thresholds, alerting_rules, recording_rules
from exo.cluster.monitoring.alerting import alerting_groups
from exo.cluster.monitoring.content import ROWS
from exo.cluster.monitoring.dashboard import FIRING
from exo.cluster.monitoring.panels import Panel, Target
from exo.cluster.monitoring.recording import RECORDING_GROUPS
from exo.cluster.render import render
from support import wait_until

pytestmark = pytest.mark.system

PACE = 1 / 100
SLOW = Thresholds(first_token_seconds=1)
PREFILL_MS, DECODE_MS = 4, 10
LONG_PROMPT = "word " * 60
"""More than a second of prefill, while the other prompts take a tenth."""
PORT, METRICS_PORT, PROMETHEUS_PORT = 8080, 8404, 9090
PATIENCE = 60.0
SHARED, OWN = "shared", "own"
ALERTS = {rule.alert for rules in alerting_groups(SLOW).values() for rule in rules}
PANELS = {f"{row.title}: {panel.title}": panel for row in ROWS for panel in row.panels}


class Monitored:
    """Three nodes, two of which serve one model and the third another one; HAProxy and Prometheus on one host."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.proxy = lab.add_host("proxy")
        self.url = f"http://{self.proxy.address}:{PORT}"
        options: dict[str, Any] = {"prefill_ms": PREFILL_MS, "decode_ms": DECODE_MS, "env": {"RKLLM_PAD_LIMIT": "64"}}
        self.nodes = {
            name: npu_node(lab, name, models=(model,), **options)
            for name, model in (("n1", SHARED), ("n2", SHARED), ("n3", OWN))
        }
        all_ready(self.nodes.values())
        for node in self.nodes.values():
            running_rk3588(node.board.root)
            self.throttle(node, 0)
        self._render()
        self.haproxy = self.start_haproxy()
        self.prometheus = PrometheusProcess(self.proxy, self.proxy.folder / "prometheus.yml", port=PROMETHEUS_PORT)

    def _render(self) -> None:
        models = {"n1": SHARED, "n2": SHARED, "n3": OWN}
        tables = "".join(
            f'[[nodes]]\nname = "{name}"\naddress = "{node.address}"\nmodels = ["{models[name]}"]\n'
            f'labels = {{ rack = "left" }}\n'
            for name, node in self.nodes.items()
        )
        inventory = self.proxy.folder / "cluster.toml"
        inventory.write_text(
            f"{tables}[proxy]\nport = {PORT}\nmetrics_port = {METRICS_PORT}\nslow_start = 1\n"
            f'admin_socket = "{self.proxy.folder}/admin.sock"\n'
        )
        for kind in ("haproxy", "prometheus"):
            for file in render(kind, inventory):
                file.write(self.proxy.folder)
        config = self.proxy.folder / "prometheus.yml"
        config.write_text(config.read_text(encoding="utf-8").replace("_interval: 15s", "_interval: 500ms"))
        (self.proxy.folder / RECORDING_FILE).write_text(recording_rules(pace=PACE))
        (self.proxy.folder / ALERTING_FILE).write_text(alerting_rules(SLOW, pace=PACE))

    def start_haproxy(self) -> HaproxyProcess:
        self.haproxy = HaproxyProcess(self.proxy, self.proxy.folder / "haproxy.cfg", ports=(PORT, METRICS_PORT))
        return self.haproxy

    def throttle(self, node: ClusterNode, state: int) -> None:
        """What the kernel's cooling device of the big cores says."""
        put(node.board.root, f"{THERMAL}/cooling_device1/cur_state", f"{state}\n")

    def alerts(self, name: str) -> list[dict[str, Any]]:
        """Those that fire."""
        found = self.prometheus.alerts()
        return [one for one in found if one["state"] == "firing" and one["labels"]["alertname"] == name]

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(condition, timeout=PATIENCE, what=what)

    def wait_for_alert(self, name: str, **labels: str) -> None:
        """Wait until an alert with these labels fires; what it tells has to be complete."""

        def fires() -> bool:
            return any(labels.items() <= one["labels"].items() for one in self.alerts(name))

        self.wait_for(fires, f"{name} with {labels}")
        for one in self.alerts(name):
            told = " ".join(one["annotations"].values())
            assert not re.search(r"<no value>|<error|\{\{|%!", told), told

    def wait_for_quiet(self) -> None:
        """Every node is ready and scraped, HAProxy has them all, and no alert fires or is about to."""
        everything_up = f'sum(up) == {len(self.nodes) + 1} and sum(haproxy_server_status{{state="UP"}}) == 6'
        self.wait_for(lambda: bool(self.prometheus.query(everything_up)), "everything up")
        self.wait_for(lambda: not self.prometheus.alerts(), "no alert")


@pytest.fixture(scope="module")
def everything(shared_lab: Lab) -> Monitored:
    return Monitored(shared_lab)


@pytest.fixture
def system(everything: Monitored) -> Monitored:
    """As it is when all is well."""
    everything.wait_for_quiet()
    return everything


@contextlib.contextmanager
def faults(*nodes: ClusterNode, fault: str) -> Iterator[None]:
    for node in nodes:
        node.board.set_faults(fault)
    try:
        yield
    finally:
        for node in nodes:
            node.board.set_faults()


def failing_chat(node: ClusterNode, fault: str, code: str) -> None:
    with faults(node, fault=fault):
        answer = node.process.chat("Hello")
    assert answer.json()["error"]["code"] == code, answer.text


def test_targets_have_the_labels_of_the_inventory(system: Monitored) -> None:
    targets = [target["labels"] for target in system.prometheus.targets().values()]
    nodes = [labels for labels in targets if labels["job"] == "exo"]
    assert {(labels["node"], labels["rack"]) for labels in nodes} == {(name, "left") for name in system.nodes}
    assert [labels["job"] for labels in targets if labels["job"] != "exo"] == ["haproxy"]


def test_no_alert_fires_while_all_is_well(system: Monitored) -> None:
    before = system.prometheus.value('count_over_time(up{job="haproxy"}[1h])')
    assert before is not None
    longer_than_any_rule = before + 15 * 60 * PACE * 2 + 10
    with Load(system.url, questions(model=SHARED), at_once=2) as load:
        scraped = 'count_over_time(up{job="haproxy"}[1h]) '
        system.wait_for(lambda: bool(system.prometheus.query(f"{scraped}> {longer_than_any_rule}")), "enough scrapes")
        assert not system.prometheus.alerts()
        chats = load.stop()
    assert chats
    assert all(map(is_whole, chats))
    assert {rule["health"] for rule in system.prometheus.rules()} == {"ok"}
    assert {rule["name"] for rule in system.prometheus.rules() if rule["type"] == "alerting"} == ALERTS


def test_a_killed_node_is_down_until_it_is_back(system: Monitored) -> None:
    node = system.nodes["n2"]
    node.kill()
    system.wait_for_alert("ExoNodeDown", node="n2", rack="left", severity="critical")
    assert not system.alerts("ExoPoolEmpty"), "the other node of the pool goes on"
    node.start()
    system.wait_for(lambda: not system.alerts("ExoNodeDown"), "the node is back")


def test_the_only_node_of_a_model_leaves_its_pool_empty(system: Monitored) -> None:
    node = system.nodes["n3"]
    node.kill()
    system.wait_for_alert("ExoPoolEmpty", severity="critical")
    (alert,) = system.alerts("ExoPoolEmpty")
    assert alert["labels"]["proxy"].startswith(f"pool_{OWN}_")
    node.start()


def test_a_drained_node_gets_no_traffic(system: Monitored) -> None:
    node = system.nodes["n1"]
    assert node.http.post("/v1/drain", json={"drain": True}).status_code == httpx2.codes.OK
    system.wait_for_alert("ExoNodeWithoutTraffic", node="n1")
    assert not system.alerts("ExoNodeDown")
    assert node.http.post("/v1/drain", json={"drain": False}).status_code == httpx2.codes.OK


def test_haproxy_is_down(system: Monitored) -> None:
    system.haproxy.kill()
    system.wait_for_alert("ExoProxyDown", job="haproxy")
    system.start_haproxy()


def test_more_requests_than_slots_make_the_queue_grow(system: Monitored) -> None:
    with Load(system.url, questions(model=SHARED), at_once=20) as load:
        system.wait_for_alert("ExoQueueGrowing")
        assert system.prometheus.query("sum(haproxy_backend_current_queue) > 0"), "HAProxy has the queue"
        load.stop()


def test_the_queues_of_single_servers_count_as_well(system: Monitored) -> None:
    """Where a conversation has a node, HAProxy queues its requests at that server."""
    body = next(questions(model=SHARED))
    run(system.url, [body], at_once=1)
    body["messages"] += ANSWERED
    with Load(system.url, [body] * 60, at_once=20) as load:
        system.wait_for_alert("ExoQueueGrowing")
        assert system.prometheus.query("sum(haproxy_server_current_queue) > 0")
        load.wait()


def test_failing_requests_are_seen_at_the_node_and_at_the_proxy(system: Monitored) -> None:
    with faults(*system.nodes.values(), fault="run_fails"):
        with Load(system.url, questions(model=OWN), at_once=1) as load:
            system.wait_for_alert("ExoRequestsFailing", node="n3")
            system.wait_for_alert("ExoProxyRequestsFailing")
            load.stop()
    assert {one["labels"]["node"] for one in system.alerts("ExoRequestsFailing")} <= {"n3"}


def test_long_prompts_make_the_first_token_slow(system: Monitored) -> None:
    node = system.nodes["n1"]
    bodies = (  # the number comes first, so that the prefix cache does not help
        {"model": SHARED, "messages": [{"role": "user", "content": f"{number} {LONG_PROMPT}"}]}
        for number in itertools.count()
    )
    with Load(node.url, bodies, at_once=1) as load:
        system.wait_for_alert("ExoFirstTokenSlow", node="n1")
        load.stop()


def test_the_first_endless_padding_is_seen(system: Monitored) -> None:
    failing_chat(system.nodes["n2"], "pad_endless_at=2", "engine_endless_padding")
    system.wait_for_alert("ExoPadLoop", node="n2", model=SHARED)


def test_a_worker_that_dies_again_and_again(system: Monitored) -> None:
    node = system.nodes["n1"]
    for _ in range(3):
        failing_chat(node, "segv_at=2", "engine_worker_died")
        assert node.process.chat("Hello").status_code == httpx2.codes.OK
    system.wait_for_alert("ExoWorkerRestarting", node="n1", model=SHARED)


def test_a_throttled_board(system: Monitored) -> None:
    node = system.nodes["n3"]
    system.throttle(node, 1)
    try:
        system.wait_for_alert("ExoThrottled", node="n3", device="cpufreq-cpu4")
        assert {one["labels"]["node"] for one in system.alerts("ExoThrottled")} == {"n3"}
        assert len(system.prometheus.query(FIRING)) == 1, "the graphs show it"
    finally:
        system.throttle(node, 0)


def concrete(expression: str) -> str:
    """With everything chosen at the top of the dashboard, and a window of its smallest zoom."""
    chosen = expression.replace("$node", ".*").replace("$model", ".*")
    return chosen.replace("$__rate_interval", "1m")


def legend_of(target: Target, labels: Mapping[str, str]) -> str:
    """As Grafana writes it."""
    return re.sub(r"\{\{(\w+)\}\}", lambda name: labels.get(name[1], ""), target.legend)


def drawn(prometheus: PrometheusProcess, panel: Panel) -> dict[str, float]:
    """What a panel shows: legend and value."""
    found: dict[str, float] = {}
    for target in panel.targets:
        series = prometheus.query(concrete(target.expression))
        assert series, f"no data: {target.expression}"
        for one in series:
            legend = legend_of(target, one["metric"])
            assert legend not in found, f"two series are called {legend}: {target.expression}"
            found[legend] = float(one["value"][1])
    return found


@pytest.fixture(scope="module")
def eventful(everything: Monitored) -> Iterator[Monitored]:
    """All is well now, but much has happened: errors, restarts, a model that was loaded again. Requests go on."""
    everything.wait_for_quiet()
    for node in everything.nodes.values():
        failing_chat(node, "segv_at=2", "engine_worker_died")
        failing_chat(node, "pad_endless_at=2", "engine_endless_padding")
        (model,) = node.http.get("/v1/models").json()["data"]
        unloaded = node.http.post("/api/generate", json={"model": model["id"], "keep_alive": 0})
        assert unloaded.status_code == httpx2.codes.OK, unloaded.text
    with contextlib.ExitStack() as stack:
        loads = [
            stack.enter_context(Load(everything.url, questions(model=model), at_once=3)) for model in (SHARED, OWN)
        ]
        everything.wait_for(lambda: all(len(load.finished) > 10 for load in loads), "some traffic")
        yield everything
        for load in loads:
            load.stop()


@pytest.mark.parametrize("name", PANELS)
def test_every_panel_has_data(eventful: Monitored, name: str) -> None:
    panel = PANELS[name]
    eventful.wait_for(lambda: all(math.isfinite(value) for value in drawn(eventful.prometheus, panel).values()), name)
    if panel.highest is not None:
        assert all(0 <= value <= panel.highest for value in drawn(eventful.prometheus, panel).values())


@pytest.mark.parametrize("name", [rule.record for rules in RECORDING_GROUPS.values() for rule in rules])
def test_every_recorded_series_has_data(eventful: Monitored, name: str) -> None:
    level = name.partition(":")[0]
    levels: dict[str, set[str | None]] = {"node": {*eventful.nodes}, "model": {SHARED, OWN}, "cluster": {None}}
    expected = levels[level]
    eventful.wait_for(
        lambda: {one["metric"].get(level) for one in eventful.prometheus.query(name)} >= expected,
        f"{name} of {expected}",
    )


def test_every_metric_of_haproxy_is_one_of_its_exporter(eventful: Monitored) -> None:
    expressions = [target.expression for panel in PANELS.values() for target in panel.targets]
    expressions += [rule.expression for rules in RECORDING_GROUPS.values() for rule in rules]
    expressions += [rule.expression for rules in alerting_groups(SLOW).values() for rule in rules]
    named = {metric for one in expressions for metric in metrics_of(one) if metric.startswith("haproxy_")}
    assert len(named) > 5
    for metric in named:
        assert eventful.prometheus.query(metric), metric


def test_the_choices_of_the_dashboard_have_values(eventful: Monitored) -> None:
    labels = {"node": 'up{job="exo"}', "model": "exo_model_info"}
    found = {
        label: {one["metric"][label] for one in eventful.prometheus.query(series)} for label, series in labels.items()
    }
    assert found == {"node": set(eventful.nodes), "model": {SHARED, OWN}}
