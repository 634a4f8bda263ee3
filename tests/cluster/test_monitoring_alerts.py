"""Every alert at its real pace, on made-up series, by `promtool test rules`: when it fires, and when it does not.

A time is minutes and seconds, as Prometheus writes them. Series have a sample every 15 seconds: `1x8` is nine of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from exo.cluster.monitoring import Thresholds, rule_files
from exo.cluster.monitoring.alerting import alerting_groups
from support import run

pytestmark = pytest.mark.system

ALERTS = {rule.alert: rule for rules in alerting_groups(Thresholds()).values() for rule in rules}
POOL = "pool_qwen_1f3a9c"


@dataclass(frozen=True)
class Case:
    """When an alert fires on these series and when it does not.

    `labels` are those that tell its alerts apart. With `every` of 17s windows never begin and end with a sample.
    """

    alert: str
    what: str
    series: Mapping[str, str]
    firing: tuple[str, ...] = ()
    quiet: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    every: str = "15s"

    def __str__(self) -> str:
        return f"{self.alert}: {self.what}"


def up(job: str, values: str) -> dict[str, str]:
    return {f'up{{job="{job}",instance="192.0.2.1:1",node="n1"}}': values}


def requests(status: int, values: str) -> dict[str, str]:
    return {f'exo_requests_total{{node="n1",model="m",status="{status}"}}': values}


def responses(proxy: str, code: str, values: str) -> dict[str, str]:
    return {f'haproxy_frontend_http_responses_total{{proxy="{proxy}",code="{code}",instance="p"}}': values}


def first_tokens(*, within_30: str, within_60: str) -> dict[str, str]:
    name = 'exo_first_token_latency_seconds_bucket{node="n1",'
    return {f'{name}le="30"}}': within_30, f'{name}le="60"}}': within_60, f'{name}le="+Inf"}}': within_60}


def waiting(*, node: str = "0x150", backend: str = "0x150", server: str = "0x150") -> dict[str, str]:
    """Queues of a cluster with two slots."""
    return {
        'exo_slots{node="n1"}': "1x150",
        'exo_slots{node="n2"}': "1x150",
        'exo_requests_queued{node="n1"}': node,
        f'haproxy_backend_current_queue{{proxy="{POOL}"}}': backend,
        f'haproxy_server_current_queue{{proxy="{POOL}",server="n1"}}': server,
    }


def status(state: str, proxy: str = POOL) -> dict[str, str]:
    return {f'haproxy_server_status{{proxy="{proxy}",server="n1",state="{state}"}}': "0x4 1x120"}


NODE = {"job": "exo", "instance": "192.0.2.1:1", "node": "n1"}
PROXY = {**NODE, "job": "haproxy"}
OF_MODEL = {"node": "n1", "model": "m"}
RESTARTS = 'rkllm_worker_restarts_total{node="n1",model="m"}'
PAD_LOOPS = 'rkllm_pad_loops_stopped_total{node="n1",model="m"}'
THROTTLED = 'rkllm_throttled{node="n1",device="npu"}'
ACTIVE = "haproxy_backend_active_servers"

CASES = [
    Case("ExoNodeDown", "goes down at 2:15", up("exo", "1x8 0x8"), ("3m15s", "4m"), ("2m", "3m"), NODE),
    Case("ExoNodeDown", "is back soon", up("exo", "1x8 0x3 1x20"), quiet=("2m45s", "3m15s", "5m")),
    Case("ExoNodeDown", "another job", up("haproxy", "0x20"), quiet=("4m",)),
    Case("ExoProxyDown", "goes down at 2:15", up("haproxy", "1x8 0x8"), ("3m15s", "4m"), ("2m", "3m"), PROXY),
    Case("ExoProxyDown", "another job", up("exo", "0x20"), quiet=("4m",)),
    Case("ExoQueueGrowing", "is long and stays so", waiting(backend="10x150"), ("11m", "20m"), ("4m", "9m")),
    Case("ExoQueueGrowing", "grows", waiting(node="0+1x150"), ("20m",), ("5m",)),
    Case("ExoQueueGrowing", "all queues together", waiting(node="2x150", backend="2x150", server="1x150"), ("11m",)),
    Case("ExoQueueGrowing", "two for each slot", waiting(node="2x150", server="2x150"), quiet=("11m", "20m")),
    Case("ExoQueueGrowing", "gets shorter", waiting(backend="120-1x100"), quiet=("6m", "11m", "20m")),
    Case(
        "ExoRequestsFailing",
        "one of ten",
        {**requests(200, "0+9x60"), **requests(503, "0+1x60")},
        ("6m", "10m"),
        ("4m45s",),
        {"node": "n1"},
    ),
    Case(
        "ExoRequestsFailing",
        "three of 100",
        {**requests(200, "0+97x60"), **requests(500, "0+3x60")},
        quiet=("6m", "10m"),
    ),
    Case(
        "ExoRequestsFailing",
        "refused and left ones are not the node's fault",
        {**requests(200, "0+1x60"), **requests(429, "0+9x60"), **requests(499, "0+9x60")},
        quiet=("6m", "10m"),
    ),
    Case("ExoRequestsFailing", "nothing to do", requests(500, "7x60"), quiet=("6m", "10m")),
    Case(
        "ExoProxyRequestsFailing",
        "one of ten",
        {**responses("exo", "2xx", "0+9x60"), **responses("exo", "5xx", "0+1x60")},
        ("6m", "10m"),
        ("4m45s",),
        {"instance": "p"},
    ),
    Case(
        "ExoProxyRequestsFailing",
        "its own page",
        {**responses("exo", "2xx", "0+1x60"), **responses("metrics", "5xx", "0+9x60")},
        quiet=("6m", "10m"),
    ),
    Case(
        "ExoFirstTokenSlow",
        "one of ten",
        first_tokens(within_30="0+9x80", within_60="0+10x80"),
        ("11m", "18m"),
        ("9m30s",),
        {"node": "n1"},
    ),
    Case(
        "ExoFirstTokenSlow",
        "four of 100",
        first_tokens(within_30="0+96x80", within_60="0+100x80"),
        quiet=("11m", "18m"),
    ),
    Case(
        "ExoFirstTokenSlow",
        "one slow request and no other",
        first_tokens(within_30="0x100", within_60="0x4 1x95"),
        quiet=("3m", "6m", "11m", "12m", "20m"),
    ),
    Case("ExoWorkerRestarting", "three", {RESTARTS: "0x4 1x4 2x4 3x120"}, ("5m", "14m"), ("3m", "25m"), OF_MODEL),
    Case("ExoWorkerRestarting", "two", {RESTARTS: "0x4 1x4 2x120"}, quiet=("5m", "10m", "16m", "20m")),
    Case("ExoWorkerRestarting", "two after others", {RESTARTS: "5x60 6x4 7x60"}, quiet=("20m", "25m"), every="17s"),
    Case("ExoWorkerRestarting", "long ago", {RESTARTS: "9x120"}, quiet=("5m", "20m")),
    Case("ExoPadLoop", "one", {PAD_LOOPS: "0x4 1x120"}, ("3m", "14m"), ("1m", "2m", "20m"), OF_MODEL),
    Case("ExoPadLoop", "long ago", {PAD_LOOPS: "5x120"}, quiet=("5m", "20m")),
    Case(
        "ExoThrottled",
        "from 5:15 on",
        {THROTTLED: "0x20 1x60"},
        ("13m30s", "20m"),
        ("6m", "12m"),
        {"node": "n1", "device": "npu"},
    ),
    Case(
        "ExoThrottled", "most of the time", {THROTTLED: "1 1 0 " * 30}, ("8m",), labels={"node": "n1", "device": "npu"}
    ),
    Case("ExoThrottled", "now and then", {THROTTLED: "0 1 0 " * 30}, quiet=("8m", "15m", "20m")),
    Case(
        "ExoPoolEmpty", "at 1:15", {f'{ACTIVE}{{proxy="{POOL}"}}': "1x4 0x20"}, ("3m",), ("1m", "2m"), {"proxy": POOL}
    ),
    Case(
        "ExoPoolEmpty",
        "backends without a queue",
        {f'{ACTIVE}{{proxy="{name}"}}': "0x20" for name in (f"{POOL}_get", f"{POOL}_responses", "stats")},
        quiet=("3m", "5m"),
    ),
    Case(
        "ExoNodeWithoutTraffic",
        "not ready",
        {**status("NOLB"), **up("exo", "1x120")},
        ("17m",),
        ("15m",),
        {"node": "n1"},
    ),
    Case("ExoNodeWithoutTraffic", "down for HAProxy", status("DOWN"), ("17m",), labels={"node": "n1"}),
    Case("ExoNodeWithoutTraffic", "down for both", {**status("DOWN"), **up("exo", "0x120")}, quiet=("17m", "20m")),
    Case("ExoNodeWithoutTraffic", "drained by hand", {**status("DRAIN"), **up("exo", "1x120")}, quiet=("17m", "20m")),
    Case("ExoNodeWithoutTraffic", "listings", {**status("DOWN", f"{POOL}_get")}, quiet=("17m", "20m")),
]


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("rules")
    for name, text in rule_files().items():
        (folder / name).write_text(text, encoding="utf-8")
    return [str(folder / name) for name in rule_files()]


def samples(case: Case) -> list[dict[str, object]]:
    labels = {"alertname": case.alert, "alertstate": "firing", "severity": ALERTS[case.alert].severity, **case.labels}
    series = f"ALERTS{{{','.join(f'{name}={json.dumps(value)}' for name, value in labels.items())}}}"
    return [{"labels": series, "value": 1}]


def outcome(case: Case, rules: list[str], folder: Path) -> str:
    """What promtool says; empty if the case is as told."""
    expression = f'ALERTS{{alertname="{case.alert}",alertstate="firing"}}'
    checks = [{"expr": expression, "eval_time": time, "exp_samples": samples(case)} for time in case.firing]
    checks += [{"expr": expression, "eval_time": time, "exp_samples": []} for time in case.quiet]
    inputs = [{"series": series, "values": values} for series, values in case.series.items()]
    test = {"interval": case.every, "input_series": inputs, "promql_expr_test": checks}
    file = folder / "test.yml"
    file.write_text(json.dumps({"rule_files": rules, "evaluation_interval": "15s", "tests": [test]}))
    done = run("promtool", "test", "rules", file)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_every_alert_has_a_case_of_each_kind() -> None:
    assert {case.alert for case in CASES if case.firing} == set(ALERTS)
    assert {case.alert for case in CASES if not case.firing} == set(ALERTS)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_alert_fires_when_it_should_and_not_otherwise(case: Case, rules: list[str], tmp_path: Path) -> None:
    assert outcome(case, rules, tmp_path) == ""


def test_a_wrong_expectation_is_noticed(rules: list[str], tmp_path: Path) -> None:
    assert "FAILED" in outcome(Case("ExoNodeDown", "", up("exo", "0x20"), quiet=("4m",)), rules, tmp_path)
    assert "FAILED" in outcome(Case("ExoNodeDown", "", up("exo", "1x20"), firing=("4m",)), rules, tmp_path)
