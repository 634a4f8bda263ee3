from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from exo.inference import NodeMetrics

FAMILIES = {
    "exo_errors": ("counter", ("type", "model")),
    "exo_first_token_latency_seconds": ("histogram", ()),
    "exo_inference_engine_info": ("gauge", ("engine", "version")),
    "exo_key_requests": ("counter", ("key", "status")),
    "exo_key_requests_in_flight": ("gauge", ("key",)),
    "exo_key_tokens": ("counter", ("key", "kind")),
    "exo_model_info": ("gauge", ("model", "family", "engine")),
    "exo_nodes_active": ("gauge", ()),
    "exo_prompt_tokens": ("counter", ("model",)),
    "exo_prompt_tokens_cached": ("counter", ("model",)),
    "exo_queue_limit": ("gauge", ()),
    "exo_queue_wait_seconds": ("histogram", ()),
    "exo_request_duration_seconds": ("histogram", ()),
    "exo_requests": ("counter", ("model", "status")),
    "exo_requests_in_progress": ("gauge", ()),
    "exo_requests_queued": ("gauge", ()),
    "exo_routing_decisions": ("counter", ("model", "rule")),
    "exo_slots": ("gauge", ()),
    "exo_tokens_generated": ("counter", ("model",)),
    "exo_tokens_per_second": ("gauge", ("model",)),
}


def test_names_types_and_labels_are_pinned(registry: CollectorRegistry) -> None:
    metrics = NodeMetrics(registry)
    labels = {getattr(found, "_name", ""): getattr(found, "_labelnames", ()) for found in vars(metrics).values()}
    found = {family.name: (family.type, tuple(labels[family.name])) for family in registry.collect()}
    assert found == FAMILIES


def test_every_family_shows_help_and_type_from_the_start(registry: CollectorRegistry) -> None:
    NodeMetrics(registry)
    lines = generate_latest(registry).decode().splitlines()
    helped = {line.split()[2] for line in lines if line.startswith("# HELP") and len(line.split()) > 3}
    typed = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    names = {name + ("_total" if kind == "counter" else "") for name, (kind, _) in FAMILIES.items()}
    assert helped == typed == names


def test_two_nodes_in_one_process_do_not_mix() -> None:
    one, two = NodeMetrics(CollectorRegistry()), NodeMetrics(CollectorRegistry())
    one.generated.labels("m").inc(5)
    assert two.registry.get_sample_value("exo_tokens_generated_total", {"model": "m"}) is None
    assert one.registry.get_sample_value("exo_nodes_active") == 1
