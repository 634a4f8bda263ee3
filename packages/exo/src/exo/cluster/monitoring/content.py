"""What the Grafana dashboard shows, from top to bottom."""

from __future__ import annotations

from exo.cluster.monitoring.names import NODE_JOB, POOLS
from exo.cluster.monitoring.panels import Graph, Row, Stat, Step, Target, Timeline

_OF_NODE = '{node=~"$node"}'
_OF_MODEL = '{node=~"$node",model=~"$model"}'
_WINDOW = "[$__rate_interval]"


def _rate(counter: str, by: str, selector: str = _OF_NODE) -> str:
    return f"sum by ({by}) (rate({counter}{selector}{_WINDOW}))"


def _quantiles(histogram: str) -> tuple[Target, ...]:
    buckets = f"sum by (le) (rate({histogram}_bucket{_OF_NODE}{_WINDOW}))"
    return tuple(Target(f"histogram_quantile({of}, {buckets})", f"p{of * 100:g}") for of in (0.5, 0.95, 0.99))


def _alarming(orange: float, red: float) -> tuple[Step, ...]:
    return (Step(None, "green"), Step(orange, "orange"), Step(red, "red"))


NOW = Row(
    "Now",
    (
        Stat(
            "Nodes up",
            "Nodes that answer Prometheus.",
            "none",
            (Target(f'sum(up{{job="{NODE_JOB}",node=~"$node"}})', "nodes"),),
            steps=(Step(None, "red"), Step(1, "green")),
        ),
        Stat(
            "Requests in progress",
            "Accepted by a node and not finished, those in its queue included.",
            "none",
            (Target(f"sum(exo_requests_in_progress{_OF_NODE})", "requests"),),
        ),
        Stat(
            "Requests waiting",
            "At all nodes and in HAProxy, each of its queues included.",
            "none",
            (Target("cluster:exo_requests_waiting:sum", "requests"),),
        ),
        Stat(
            "Tokens per second",
            "Generated, mean of five minutes.",
            "suffix: tok/s",
            (Target(f"sum(node:exo_tokens_generated:rate5m{_OF_NODE})", "tokens"),),
        ),
        Stat(
            "First token, slowest node",
            "95 of 100 requests are faster, over five minutes.",
            "s",
            (Target(f"max(node:exo_first_token_latency_seconds:p95_rate5m{_OF_NODE})", "p95"),),
            steps=_alarming(10, 30),
        ),
        Stat(
            "Failing requests, worst node",
            "Share with a status of 500 or more, over five minutes.",
            "percentunit",
            (Target(f"max(node:exo_requests_failed:ratio_rate5m{_OF_NODE})", "failing"),),
            steps=_alarming(0.01, 0.05),
        ),
    ),
)

REQUESTS = Row(
    "Requests",
    (
        Graph(
            "Request rate",
            "Requests to models that a node has ended, whatever their status.",
            "reqps",
            (Target(_rate("exo_requests_total", "node", _OF_MODEL), "{{node}}"),),
            is_stacked=True,
        ),
        Graph(
            "Active requests",
            "Accepted and not finished, beside the number of requests that can run at the same time.",
            "short",
            (
                Target(f"sum by (node) (exo_requests_in_progress{_OF_NODE})", "{{node}}"),
                Target(f"sum(exo_slots{_OF_NODE})", "slots of all"),
            ),
        ),
        Graph(
            "Requests by model",
            "Without a name: requests that named no model that is served.",
            "reqps",
            (Target(_rate("exo_requests_total", "model", _OF_MODEL), "{{model}}"),),
            is_stacked=True,
        ),
        Graph(
            "Latency",
            "From arrival at the node to the end of the answer. HAProxy's queue is not in it.",
            "s",
            _quantiles("exo_request_duration_seconds"),
        ),
        Graph(
            "Latency by node",
            "95 of 100 requests are faster, over five minutes.",
            "s",
            (Target(f"node:exo_request_duration_seconds:p95_rate5m{_OF_NODE}", "{{node}}"),),
        ),
        Graph(
            "Errors by type",
            "Codes as in docs/TROUBLESHOOTING.md; without a name of a model: requests that named none that is served.",
            "reqps",
            (Target(_rate("exo_errors_total", "type", _OF_MODEL), "{{type}}"),),
            is_stacked=True,
        ),
    ),
)

TOKENS = Row(
    "Tokens",
    (
        Graph(
            "Tokens per second",
            "Generated, by node.",
            "suffix: tok/s",
            (Target(_rate("exo_tokens_generated_total", "node", _OF_MODEL), "{{node}}"),),
            is_stacked=True,
        ),
        Graph(
            "Tokens by model",
            "Generated ones, and those of prompts, cached ones included.",
            "suffix: tok/s",
            (
                Target(_rate("exo_tokens_generated_total", "model", _OF_MODEL), "{{model}} generated"),
                Target(_rate("exo_prompt_tokens_total", "model", _OF_MODEL), "{{model}} prompt"),
            ),
        ),
        Graph(
            "Time to first token",
            "From arrival at the node.",
            "s",
            _quantiles("exo_first_token_latency_seconds"),
        ),
        Graph(
            "Decoding speed",
            "Of the answer that finished last; one user's view.",
            "suffix: tok/s",
            (Target(f"exo_tokens_per_second{_OF_MODEL}", "{{node}} {{model}}"),),
        ),
        Graph(
            "Prefix cache",
            "Share of prompt tokens that were in the KV cache already, over five minutes.",
            "percentunit",
            (Target('model:exo_prompt_tokens_cached:ratio_rate5m{model=~"$model"}', "{{model}}"),),
            highest=1,
        ),
        Graph(
            "Tokens in the KV cache",
            "Positions that the model used last holds.",
            "short",
            (Target(f"rkllm_tokens_cached{_OF_NODE}", "{{node}}"),),
        ),
    ),
)

QUEUES = Row(
    "Queues and HAProxy",
    (
        Graph(
            "Queue",
            "What waits at a node, in HAProxy for any node of a pool, or there for the one with the conversation.",
            "short",
            (
                Target(f"exo_requests_queued{_OF_NODE}", "{{node}}"),
                Target(f"sum by (proxy) (haproxy_backend_current_queue{{{POOLS}}})", "HAProxy, {{proxy}}"),
                Target(
                    f'sum by (server) (haproxy_server_current_queue{{{POOLS},server=~"$node"}})',
                    "HAProxy, for {{server}}",
                ),
            ),
        ),
        Graph(
            "Time in the queue",
            "At nodes 95 of 100 requests wait less; of HAProxy the mean of the last 1,024 requests.",
            "s",
            (
                Target(
                    f"histogram_quantile(0.95, {_rate('exo_queue_wait_seconds_bucket', 'le')})",
                    "nodes, p95",
                ),
                Target(
                    f"max by (proxy) (haproxy_backend_queue_time_average_seconds{{{POOLS}}})",
                    "HAProxy, {{proxy}}, mean",
                ),
            ),
        ),
        Graph(
            "Slots taken",
            "Share of each node's slots.",
            "percentunit",
            (Target(f"node:exo_slots_busy:ratio{_OF_NODE}", "{{node}}"),),
            highest=1,
        ),
        Graph(
            "Servers by state",
            "As HAProxy sees the nodes. NOLB: no new requests; MAINT and DRAIN: taken out by hand or by `exo cluster`.",
            "short",
            (Target(f'sum by (state) (haproxy_server_status{{{POOLS},server=~"$node"}})', "{{state}}"),),
            is_stacked=True,
        ),
        Graph(
            "Answers by server",
            "Answers that HAProxy has passed on.",
            "reqps",
            (
                Target(
                    _rate("haproxy_server_http_responses_total", "server", f'{{{POOLS},server=~"$node"}}'),
                    "{{server}}",
                ),
            ),
            is_stacked=True,
        ),
        Graph(
            "Answers by status",
            "What clients of HAProxy see, its own refusals included.",
            "reqps",
            (Target(_rate("haproxy_frontend_http_responses_total", "code", '{proxy="exo"}'), "{{code}}"),),
            is_stacked=True,
        ),
    ),
)

BOARDS = Row(
    "Boards",
    (
        Timeline(
            "Server up",
            "Whether the node answers Prometheus, and whether it has an NPU that answers.",
            "none",
            (
                Target(f'up{{job="{NODE_JOB}",node=~"$node"}}', "{{node}}"),
                Target(f"rkllm_server_up{_OF_NODE}", "{{node}} NPU"),
            ),
            width=12,
            steps=(Step(None, "red"), Step(1, "green")),
            texts=("down", "up"),
        ),
        Timeline(
            "Throttling",
            "Whether the kernel holds a device below full speed because the board is hot.",
            "none",
            (Target(f"rkllm_throttled{_OF_NODE}", "{{node}} {{device}}"),),
            width=12,
            steps=(Step(None, "green"), Step(1, "orange")),
            texts=("full speed", "throttled"),
        ),
        Graph(
            "Inference duration",
            "Runs on the NPU.",
            "s",
            _quantiles("rkllm_inference_duration_seconds"),
        ),
        Graph(
            "NPU load",
            "By core, as the driver tells it.",
            "percentunit",
            (Target(f"rkllm_npu_load_ratio{_OF_NODE}", "{{node}} core {{core}}"),),
            highest=1,
        ),
        Graph(
            "Temperature",
            "By thermal zone.",
            "celsius",
            (Target(f"rkllm_temperature_celsius{_OF_NODE}", "{{node}} {{zone}}"),),
        ),
        Graph(
            "Clocks",
            "NPU and memory; a performance governor keeps both at their highest.",
            "hertz",
            (
                Target(f"rkllm_npu_frequency_hertz{_OF_NODE}", "{{node}} NPU"),
                Target(f"rkllm_ddr_frequency_hertz{_OF_NODE}", "{{node}} memory"),
            ),
        ),
        Graph(
            "Model loads",
            "Mean time that a load took.",
            "s",
            (
                Target(
                    f"{_rate('rkllm_model_load_duration_seconds_sum', 'node')}"
                    f" / {_rate('rkllm_model_load_duration_seconds_count', 'node')}",
                    "{{node}}",
                ),
            ),
        ),
        Graph(
            "Worker restarts and PAD loops",
            "Each costs the request in hand.",
            "short",
            (
                Target(
                    f"sum by (node) (increase(rkllm_worker_restarts_total{_OF_MODEL}{_WINDOW}))", "{{node}} restarts"
                ),
                Target(
                    f"sum by (node) (increase(rkllm_pad_loops_stopped_total{_OF_MODEL}{_WINDOW}))", "{{node}} PAD loops"
                ),
            ),
        ),
    ),
)

ROWS = (NOW, REQUESTS, TOKENS, QUEUES, BOARDS)
