"""The alerting rules, and their thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from exo.cluster.monitoring.names import NODE_JOB, POOLS, PROXY_JOB

Severity = Literal["critical", "warning"]


@dataclass(frozen=True)
class Thresholds:
    """What is still well. An alert needs more than this for as long as its `lasting` says."""

    waiting_per_slot: float = 2
    """Waiting requests for each slot: with 2 a new one waits for two answers."""
    failed_ratio: float = 0.05
    """Share of requests that end with a status of 500 or more."""
    first_token_seconds: float = 30
    """For 95 of 100 requests. It is a bound of the histogram's buckets, so nothing is interpolated there."""
    worker_restarts: float = 2
    """Restarts of the worker of a model in 15 minutes."""
    pad_loops: float = 0
    """Runs ended for endless padding in 15 minutes."""
    throttled_ratio: float = 0.5
    """Share of the last 5 minutes that the kernel held a device below full speed."""


@dataclass(frozen=True)
class AlertingRule:
    """`when` is what the expression finds, `lasting` how long it has to hold. `description` says what to do."""

    alert: str
    when: str
    expression: str
    lasting: str
    severity: Severity
    summary: str
    description: str


def alerting_groups(limits: Thresholds) -> dict[str, tuple[AlertingRule, ...]]:
    return {
        "exo-nodes": _of_nodes(),
        "exo-requests": _of_requests(limits),
        "exo-npu": _of_the_npu(limits),
        "exo-proxy": _of_the_proxy(limits),
    }


def _of_nodes() -> tuple[AlertingRule, ...]:
    return (
        AlertingRule(
            alert="ExoNodeDown",
            when="a node does not answer Prometheus",
            expression=f'up{{job="{NODE_JOB}"}} == 0',
            lasting="1m",
            severity="critical",
            summary="Node {{ $labels.node }} does not answer",
            description="Prometheus gets no metrics from {{ $labels.instance }}. Look at the board's power and network "
            "and at `systemctl status` of its service there. Where nodes want keys, look whether Prometheus has one: "
            "its page of targets names the error. The other nodes go on.",
        ),
    )


def _of_requests(limits: Thresholds) -> tuple[AlertingRule, ...]:
    waiting = "avg_over_time(cluster:exo_requests_waiting:sum[5m])"
    return (
        AlertingRule(
            alert="ExoQueueGrowing",
            when=f"more than {limits.waiting_per_slot:g} requests wait for each slot, and they do not get fewer",
            expression=f"{waiting} > {limits.waiting_per_slot:g} * cluster:exo_slots:sum\n"
            f"and {waiting} >= 0.9 * avg_over_time(cluster:exo_requests_waiting:sum[5m] offset 5m)",
            lasting="5m",
            severity="warning",
            summary="{{ $value | humanize }} requests wait, and they do not get fewer",
            description="More requests come than the nodes can answer. Look whether nodes are missing or throttled, "
            "and who sends so much (exo_key_requests_total). Then add nodes, limit the keys, or shorten the queue so "
            "that clients are refused early.",
        ),
        AlertingRule(
            alert="ExoRequestsFailing",
            when=f"more than {limits.failed_ratio:.0%} of a node's requests end with a status of 500 or more",
            expression=f"node:exo_requests_failed:ratio_rate5m > {limits.failed_ratio:g}",
            lasting="5m",
            severity="warning",
            summary="{{ $value | humanizePercentage }} of the requests to {{ $labels.node }} fail",
            description="exo_errors_total tells which error it is, and docs/TROUBLESHOOTING.md what to do about it. "
            "Take the node out with `exo cluster drain {{ $labels.node }}` while you look at its log.",
        ),
        AlertingRule(
            alert="ExoFirstTokenSlow",
            when=f"more than 5 of 100 requests to a node wait over {limits.first_token_seconds:g} s for a token",
            expression=f"node:exo_first_token_latency_seconds:p95_rate5m > {limits.first_token_seconds:g}",
            lasting="10m",
            severity="warning",
            summary="The first token of {{ $labels.node }} takes {{ $value | humanizeDuration }}",
            description="Five of 100 requests wait longer than that. Look whether they wait for a slot "
            "(exo_queue_wait_seconds), whether models are loaded again and again (rkllm_model_load_duration_seconds), "
            "whether prompts have become longer (exo_prompt_tokens_total), and whether the board is "
            "throttled.",
        ),
    )


def _of_the_npu(limits: Thresholds) -> tuple[AlertingRule, ...]:
    """`increase` extrapolates to the ends of its window, so that 2 come out as 2.03."""
    return (
        AlertingRule(
            alert="ExoWorkerRestarting",
            when=f"the worker of a model was started again more than {limits.worker_restarts:g} times in 15 minutes",
            expression=f"round(increase(rkllm_worker_restarts_total[15m])) > {limits.worker_restarts:g}",
            lasting="1m",
            severity="warning",
            summary="The worker of {{ $labels.model }} on {{ $labels.node }} dies again and again",
            description="Each death costs the request in hand. The node's log has the signal or exit code of each. "
            "Look at the kernel's log of the board (`dmesg`, `journalctl -k`) for the NPU driver and for the "
            "out-of-memory killer, and whether driver and runtime fit each other.",
        ),
        AlertingRule(
            alert="ExoPadLoop",
            when="a run was ended because only padding came",
            expression=f"round(increase(rkllm_pad_loops_stopped_total[15m])) > {limits.pad_loops:g}",
            lasting="1m",
            severity="warning",
            summary="{{ $labels.model }} on {{ $labels.node }} generates padding without end",
            description="The run was ended and the client has an error. If it stays at one, a prompt has led the model "
            "there. If it goes on, convert the model again, with a toolkit that fits the runtime; RKLLM_PAD_LIMIT "
            "says after how many tokens a run is ended.",
        ),
        AlertingRule(
            alert="ExoThrottled",
            when=f"a device was held below full speed for more than {limits.throttled_ratio:.0%} of 5 minutes",
            expression=f"avg_over_time(rkllm_throttled[5m]) > {limits.throttled_ratio:g}",
            lasting="5m",
            severity="warning",
            summary="{{ $labels.device }} of {{ $labels.node }} is held below full speed",
            description="The kernel slows the board down because it is hot: fewer tokens a second. Look at "
            "rkllm_temperature_celsius, at its fan and heat sink, and at the air around it. In HAProxy a lower weight "
            "for the node gives it less to do.",
        ),
    )


def _of_the_proxy(limits: Thresholds) -> tuple[AlertingRule, ...]:
    return (
        AlertingRule(
            alert="ExoProxyDown",
            when="HAProxy does not answer Prometheus",
            expression=f'up{{job="{PROXY_JOB}"}} == 0',
            lasting="1m",
            severity="critical",
            summary="HAProxy at {{ $labels.instance }} does not answer",
            description="Clients that go through it get no answer. Look at `systemctl status haproxy` and at its log, "
            "and check its configuration with `haproxy -c -f`. Nodes can still be asked directly.",
        ),
        AlertingRule(
            alert="ExoPoolEmpty",
            when="a pool of HAProxy has no node that takes requests",
            expression=f"haproxy_backend_active_servers{{{POOLS}}} == 0",
            lasting="1m",
            severity="critical",
            summary="{{ $labels.proxy }} of HAProxy has no node that takes requests",
            description="Requests for the models of these nodes wait, and fail after the queue's time limit. "
            "`exo cluster status` says what each node is short of. Undo a drain, or start the nodes.",
        ),
        AlertingRule(
            alert="ExoNodeWithoutTraffic",
            when="HAProxy finds a node down or not ready that Prometheus can reach",
            expression="max by (node) (label_replace(\n"
            f'  haproxy_server_status{{{POOLS},state=~"DOWN|NOLB"}},\n'
            '  "node", "$1", "server", "(.+)"\n)) == 1\n'
            f'unless on (node) up{{job="{NODE_JOB}"}} == 0',
            lasting="15m",
            severity="warning",
            summary="HAProxy sends nothing to {{ $labels.node }}, although Prometheus does not miss it",
            description="Ask the node's /ready for the reason. A model may not load, the node may be drained, or "
            "HAProxy cannot reach it where Prometheus can. Silence this alert while a node is drained for long.",
        ),
        AlertingRule(
            alert="ExoProxyRequestsFailing",
            when=f"more than {limits.failed_ratio:.0%} of the answers to clients have a status of 500 or more",
            expression='sum by (instance) (rate(haproxy_frontend_http_responses_total{proxy="exo",code="5xx"}[5m]))\n'
            '/ sum by (instance) (rate(haproxy_frontend_http_responses_total{proxy="exo"}[5m]))\n'
            f"> {limits.failed_ratio:g}",
            lasting="5m",
            severity="warning",
            summary="{{ $value | humanizePercentage }} of the clients' requests fail",
            description="This is what clients see, HAProxy's own refusals included: no node for the model in time, or "
            "a node that broke off. If ExoRequestsFailing fires too, begin with that node; if not, look at the queues "
            "and at the servers that HAProxy has.",
        ),
    )
