from __future__ import annotations

import asyncio
import json
import threading

import httpx2
from prometheus_client.parser import text_string_to_metric_families
from scripted_server import CHAT, ScriptedEngine, running, until

from exo import __version__
from exo.api import create_app
from exo.api.docs import render
from exo.api.openapi import document
from exo.cluster.membership.member import host_name
from exo.inference import InferenceService, NodeMetrics
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
        "draining": False,
        "slots": 2,
        "running": 0,
        "queued": 0,
        "queue_limit": 8,
        "models": ["one", "two/b:1"],
        "loaded": ["one"],
        "name": host_name(),
        "version": __version__,
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


async def test_requests_for_the_topology_share_one_probe() -> None:
    ask_all, answer, probes = 20, threading.Event(), 0

    def probe() -> NodeCapabilities:
        nonlocal probes
        probes += 1
        answer.wait(10)
        return NodeCapabilities()

    engine = ScriptedEngine()
    app = create_app(InferenceService(engine, NodeMetrics(engine.context.registry)), probe_device=probe)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://localhost") as client:
        asked = [asyncio.create_task(client.get("/v1/topology")) for _ in range(ask_all)]
        await until(lambda: probes)
        assert (await client.get("/v1/models")).status_code == 200
        asked[0].cancel()
        answer.set()
        assert [(await one).status_code for one in asked[1:]] == [200] * (ask_all - 1)
        assert probes == 1
        await client.get("/v1/topology")
    assert probes == 2


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
