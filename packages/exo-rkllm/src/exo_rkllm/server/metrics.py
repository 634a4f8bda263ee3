"""The requests that rkllama answered, by endpoint."""

from __future__ import annotations

from collections.abc import Callable

from exo_rkllm.metrics import NpuMetrics

ENDPOINTS = frozenset(
    {
        "/",
        *(
            f"/api/{name}"
            for name in (
                "chat",
                "copy",
                "create",
                "delete",
                "embed",
                "embeddings",
                "generate",
                "ps",
                "pull",
                "push",
                "show",
                "tags",
                "version",
            )
        ),
        "/chat/completions",
        "/current_model",
        "/generate",
        "/load_model",
        "/models",
        "/pull",
        "/rm",
        "/unload_model",
        "/v1/chat/completions",
        "/v1/models",
    }
)
"""The paths that are counted by name; all others are `other`."""


def count_requests(metrics: NpuMetrics) -> Callable[[str, int], None]:
    """For `Extension.on_response`."""

    def count(path: str, status: int) -> None:
        metrics.http_requests.labels(path if path in ENDPOINTS else "other", str(status)).inc()

    return count
