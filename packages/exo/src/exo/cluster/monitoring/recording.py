"""The recording rules: what the alerts and the dashboard's summary need at hand.

A name is `level:what:how`, after Prometheus' convention: the level is what the series are told apart by.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RecordingRule:
    """`meaning` is a sentence's worth, for the file and for docs/METRICS.md."""

    record: str
    meaning: str
    expression: str


def _p95_by_node(histogram: str) -> str:
    return f"histogram_quantile(0.95, sum by (le, node) (rate({histogram}_bucket[5m])))"


NODES = (
    RecordingRule(
        "node:exo_requests_failed:ratio_rate5m",
        "share of a node's requests that ended with a status of 500 or more",
        '(\n  sum by (node) (rate(exo_requests_total{status=~"5.."}[5m]))\n'
        "  or 0 * sum by (node) (rate(exo_requests_total[5m]))\n)\n"
        "/ sum by (node) (rate(exo_requests_total[5m]))",
    ),
    RecordingRule(
        "node:exo_request_duration_seconds:p95_rate5m",
        "from arrival at a node to the end of the answer; 95 of 100 requests are faster",
        _p95_by_node("exo_request_duration_seconds"),
    ),
    RecordingRule(
        "node:exo_first_token_latency_seconds:p95_rate5m",
        "from arrival at a node to the first token; 95 of 100 requests are faster",
        _p95_by_node("exo_first_token_latency_seconds"),
    ),
    RecordingRule(
        "node:exo_tokens_generated:rate5m",
        "tokens a second that a node has generated",
        "sum by (node) (rate(exo_tokens_generated_total[5m]))",
    ),
    RecordingRule(
        "node:exo_slots_busy:ratio",
        "share of a node's slots that are taken",
        "sum by (node) (exo_requests_in_progress - exo_requests_queued) / sum by (node) (exo_slots)",
    ),
)

MODELS = (
    RecordingRule(
        "model:exo_prompt_tokens_cached:ratio_rate5m",
        "share of a model's prompt tokens that came from the KV cache",
        "sum by (model) (rate(exo_prompt_tokens_cached_total[5m]))\n"
        "/ sum by (model) (rate(exo_prompt_tokens_total[5m]))",
    ),
)

CLUSTER = (
    RecordingRule("cluster:exo_slots:sum", "slots of the nodes that answer", "sum(exo_slots)"),
    RecordingRule(
        "cluster:exo_requests_waiting:sum",
        "requests that wait, at nodes and in HAProxy's queues, those for a single server included",
        "sum(exo_requests_queued)\n"
        "+ (sum(haproxy_backend_current_queue) or vector(0))\n"
        "+ (sum(haproxy_server_current_queue) or vector(0))",
    ),
)

RECORDING_GROUPS = {"exo-nodes": NODES, "exo-models": MODELS, "exo-cluster": CLUSTER}
