"""The node's metrics, in a registry of its own. Names and labels are described in docs/METRICS.md."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

_LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200)


class NodeMetrics:
    """One instance for each node.

    A `model` label only ever holds the id of a served model, or nothing; a `key` label the name of a key of the node.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no annotation there
        self.registry = registry
        self.requests = Counter(
            "exo_requests_total",
            "Requests to models, by HTTP status (499: client gone).",
            ["model", "status"],
            registry=registry,
        )
        self.in_progress = Gauge(
            "exo_requests_in_progress",
            "Requests that were accepted and are not finished, queued ones included.",
            registry=registry,
        )
        self.queued = Gauge("exo_requests_queued", "Requests that wait for a slot.", registry=registry)
        self.queue_limit = Gauge("exo_queue_limit", "Places in the queue.", registry=registry)
        self.slots = Gauge("exo_slots", "Requests that the engine runs at the same time.", registry=registry)
        self.queue_wait = Histogram(
            "exo_queue_wait_seconds",
            "Time that requests waited for a slot.",
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )
        self.generated = Counter("exo_tokens_generated_total", "Completion tokens.", ["model"], registry=registry)
        self.prompt = Counter(
            "exo_prompt_tokens_total",
            "Prompt tokens of answered requests, cached ones included.",
            ["model"],
            registry=registry,
        )
        self.cached = Counter(
            "exo_prompt_tokens_cached_total", "Prompt tokens that came from the KV cache.", ["model"], registry=registry
        )
        self.duration = Histogram(
            "exo_request_duration_seconds",
            "From arrival to the end of the answer.",
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )
        self.first_token = Histogram(
            "exo_first_token_latency_seconds",
            "From arrival to the first token.",
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )
        self.speed = Gauge(
            "exo_tokens_per_second", "Decoding speed of the answer that finished last.", ["model"], registry=registry
        )
        self.nodes = Gauge(
            "exo_nodes_active", "Nodes that this node knows to be active, itself included.", registry=registry
        )
        self.model_info = Gauge(
            "exo_model_info", "1 for each model that can be served.", ["model", "family", "engine"], registry=registry
        )
        self.engine_info = Gauge(
            "exo_inference_engine_info", "1 for the engine in use.", ["engine", "version"], registry=registry
        )
        self.errors = Counter(
            "exo_errors_total",
            "Requests that ended with an error, by its stable code.",
            ["type", "model"],
            registry=registry,
        )
        self.decisions = Counter(
            "exo_routing_decisions_total",
            "Models that were chosen for requests to auto, by the rule that decided.",
            ["model", "rule"],
            registry=registry,
        )
        self.key_requests = Counter(
            "exo_key_requests_total",
            "Requests to models that a key has sent, by HTTP status.",
            ["key", "status"],
            registry=registry,
        )
        self.key_tokens = Counter(
            "exo_key_tokens_total",
            "Tokens that a key has spent; kind is prompt or completion.",
            ["key", "kind"],
            registry=registry,
        )
        self.key_in_flight = Gauge(
            "exo_key_requests_in_flight",
            "Answers to a key that are not finished, waiting ones included.",
            ["key"],
            registry=registry,
        )
        self.nodes.set(1)
