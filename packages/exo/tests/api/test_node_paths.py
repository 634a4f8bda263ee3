from __future__ import annotations

import json

import httpx2
from prometheus_client.parser import text_string_to_metric_families
from scripted_server import CHAT, ScriptedEngine, running

from exo.api.docs import render
from exo.api.openapi import document
from exo.topology import NodeCapabilities

DESIGN_NAMES = {
    "exo_requests",
    "exo_requests_in_progress",
    "exo_tokens_generated",
    "exo_prompt_tokens",
    "exo_request_duration_seconds",
    "exo_first_token_latency_seconds",
    "exo_tokens_per_second",
    "exo_nodes_active",
    "exo_model_info",
    "exo_inference_engine_info",
    "exo_errors",
}


async def test_healthcheck_and_ready() -> None:
    async with running() as node, httpx2.AsyncClient(base_url=node.url) as client:
        health = await client.get("/healthcheck")
        ready = await client.get("/ready")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert ready.json() == {
        "ready": True,
        "reason": "",
        "slots": 2,
        "running": 0,
        "queued": 0,
        "queue_limit": 8,
        "models": ["one", "two/b:1"],
        "loaded": ["one"],
    }


async def test_metrics_have_their_content_type_and_every_name_from_the_start() -> None:
    async with running() as node, httpx2.AsyncClient(base_url=node.url) as client:
        before = await client.get("/metrics")
        await client.post("/v1/chat/completions", json=CHAT)
        after = await client.get("/metrics")
    assert before.headers["content-type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(before.text)}
    assert families.keys() >= DESIGN_NAMES
    assert all(family.documentation and family.type != "unknown" for family in families.values())
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(after.text)
        for sample in family.samples
    }
    one = ("model", "one")
    assert samples["exo_requests_total", (one, ("status", "200"))] == 1
    assert samples["exo_tokens_generated_total", (one,)] == 2
    assert samples["exo_prompt_tokens_total", (one,)] == 7
    assert samples["exo_request_duration_seconds_count", ()] == 1
    assert samples["exo_model_info", (("engine", "scripted"), ("family", "test"), one)] == 1
    assert samples["exo_nodes_active", ()] == 1
    assert not any(name.endswith("_created") for name, _ in samples)
    assert not any("id" in dict(labels) for _, labels in samples)


async def test_topology_tells_what_the_node_runs_on() -> None:
    async with running() as node, httpx2.AsyncClient(base_url=node.url) as client:
        nodes = (await client.get("/v1/topology")).json()["nodes"]
    assert len(nodes) == 1
    assert (nodes[0]["engine"], nodes[0]["slots"], nodes[0]["models"]) == ("scripted", 2, ["one", "two/b:1"])
    assert set(nodes[0]["capabilities"]) == set(NodeCapabilities.__struct_fields__)


async def test_clients_of_ollama_find_somebody_at_the_root() -> None:
    async with running() as node, httpx2.AsyncClient(base_url=node.url) as client:
        head = await client.head("/")
        page = await client.get("/")
    assert (head.status_code, head.content) == (200, b"")
    assert "/docs" in page.text


async def test_docs_show_every_path() -> None:
    async with running() as node, httpx2.AsyncClient(base_url=node.url) as client:
        page = await client.get("/docs")
        doc = (await client.get("/openapi.json")).json()
        for path, item in doc["paths"].items():
            assert path in page.text
            if "get" in item and "{" not in path:
                assert (await client.get(path)).status_code == 200, path
    assert page.headers["content-type"].startswith("text/html")
    assert "<script" not in page.text


def test_every_reference_of_the_document_resolves() -> None:
    doc = document()
    names = set(doc["components"]["schemas"])
    text = json.dumps(doc)
    used = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert used <= names
    assert "ChatCompletionRequest" in used


def test_html_in_a_document_is_escaped() -> None:
    doc = document()
    doc["info"]["title"] = "<b>&"
    assert "<b>&" not in render(doc)


async def test_request_ids_are_kept_if_sane_and_made_otherwise() -> None:
    async with running(ScriptedEngine()) as node, httpx2.AsyncClient(base_url=node.url) as client:
        kept = await client.get("/healthcheck", headers={"x-request-id": "abc.DEF-1"})
        made = await client.get("/healthcheck", headers={"x-request-id": 'a b"c'})
        again = await client.get("/healthcheck")
    assert kept.headers["x-request-id"] == "abc.DEF-1"
    assert made.headers["x-request-id"] != 'a b"c'
    assert made.headers["x-request-id"] != again.headers["x-request-id"]
