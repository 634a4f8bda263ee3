from __future__ import annotations

import re

from prometheus_client import CollectorRegistry, generate_latest

from exo_rkllm.metrics import NpuMetrics

FAMILIES = {
    "rkllm_server_up": "gauge",
    "rkllm_http_requests_total": "counter",
    "rkllm_inference_duration_seconds": "histogram",
    "rkllm_model_load_duration_seconds": "histogram",
    "rkllm_tokens_cached": "gauge",
    "rkllm_prefix_tokens_reused_total": "counter",
    "rkllm_worker_restarts_total": "counter",
    "rkllm_pad_loops_stopped_total": "counter",
    "rkllm_npu_load_ratio": "gauge",
    "rkllm_npu_frequency_hertz": "gauge",
    "rkllm_npu_frequency_max_hertz": "gauge",
    "rkllm_ddr_frequency_hertz": "gauge",
    "rkllm_temperature_celsius": "gauge",
    "rkllm_throttled": "gauge",
    "rkllm_governor_info": "gauge",
    "rkllm_driver_info": "gauge",
}


def exposed(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


def test_every_family_is_there_before_anything_has_happened() -> None:
    registry = CollectorRegistry()
    NpuMetrics(registry)
    text = exposed(registry)
    assert dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE)) == FAMILIES
    helps = dict(re.findall(r"^# HELP (\w+) (.+)$", text, re.MULTILINE))
    assert set(helps) == set(FAMILIES)
    assert all(help_text.endswith(".") for help_text in helps.values())


def test_labels_are_the_agreed_ones() -> None:
    registry = CollectorRegistry()
    metrics = NpuMetrics(registry)
    metrics.http_requests.labels("/api/chat", "200").inc()
    metrics.prefix_reused.labels("qwen").inc(17)
    metrics.cached.set(40)
    assert registry.get_sample_value("rkllm_http_requests_total", {"endpoint": "/api/chat", "status": "200"}) == 1
    assert registry.get_sample_value("rkllm_prefix_tokens_reused_total", {"model": "qwen"}) == 17
    assert registry.get_sample_value("rkllm_tokens_cached") == 40
    assert "_created" not in exposed(registry)


def test_two_registries_count_apart() -> None:
    first, second = NpuMetrics(CollectorRegistry()), NpuMetrics(CollectorRegistry())
    first.server_up.set(1)
    assert first.registry.get_sample_value("rkllm_server_up") == 1
    assert second.registry.get_sample_value("rkllm_server_up") == 0
