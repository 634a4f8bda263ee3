"""The metrics of the NPU's engine and of rkllama. docs/METRICS.md describes names and labels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from exo_rkllm.board_metrics import BoardCollector, LatestTelemetry
from exo_rkllm.telemetry import read_telemetry

_RUN_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200)
_LOAD_BUCKETS = (0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)


class NpuMetrics:
    """One instance for each registry. A label `model` only ever holds the id of a served model.

    `endpoint` holds one of the server's own paths, never one that a client made up; `status` an HTTP status.
    `root` is the folder that stands for `/` of the board; None where the NPU is another machine's.
    """

    def __init__(self, registry: CollectorRegistry, *, root: Path | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no annotation there
        self.registry = registry
        self.server_up = Gauge(
            "rkllm_server_up", "1 while the NPU here, or the rkllama server in its place, answers.", registry=registry
        )
        self.http_requests = Counter(
            "rkllm_http_requests_total",
            "HTTP requests that rkllama answered, or that were sent to another rkllama server.",
            ["endpoint", "status"],
            registry=registry,
        )
        self.inference = Histogram(
            "rkllm_inference_duration_seconds", "Runs on the NPU.", buckets=_RUN_BUCKETS, registry=registry
        )
        self.load = Histogram(
            "rkllm_model_load_duration_seconds", "Loads of a model.", buckets=_LOAD_BUCKETS, registry=registry
        )
        self.cached = Gauge(
            "rkllm_tokens_cached", "Positions in the KV cache of the model that was used last.", registry=registry
        )
        self.prefix_reused = Counter(
            "rkllm_prefix_tokens_reused_total",
            "Prompt tokens that were in the KV cache already.",
            ["model"],
            registry=registry,
        )
        self.worker_restarts = Counter(
            "rkllm_worker_restarts_total", "Workers started again after they had died.", ["model"], registry=registry
        )
        self.pad_loops = Counter(
            "rkllm_pad_loops_stopped_total",
            "Runs ended because only PAD tokens came.",
            ["model"],
            registry=registry,
        )
        self.board = BoardCollector(None if root is None else LatestTelemetry(lambda: read_telemetry(root)))
        registry.register(self.board)

    def begin_at_zero(self, models: Iterable[str]) -> None:
        """Give each model its counters of rare events: Prometheus' increase() does not see the first one of a series
        that begins with it."""
        for model in models:
            self.worker_restarts.labels(model)
            self.pad_loops.labels(model)
