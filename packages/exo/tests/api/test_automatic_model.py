"""The model `auto` through each dialect: the answer names the model, a header says why."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from two_models import HARD, TwoModels, automatic_service

from exo.api import create_app
from exo.api.exchange import route_text
from exo.inference.choice import ModelChoice
from exo.types import ModelCard

PROOF = 'model="thinker", role=reasoning, rule=proof, reason="the text says so"'
EASY = 'model="quick", role=quick, rule=short-question, reason="the text says so"'


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def engine() -> TwoModels:
    return TwoModels(slots=4)


async def post(engine: TwoModels, path: str, body: Any) -> httpx2.Response:
    transport = httpx2.ASGITransport(app=create_app(automatic_service(engine)))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response: httpx2.Response = await client.post(path, json={"model": "auto"} | body)
        return response


def bodies(text: str) -> dict[str, dict[str, Any]]:
    return {
        "/v1/chat/completions": {"messages": messages(text)},
        "/v1/completions": {"prompt": text},
        "/v1/responses": {"input": text},
        "/v1/messages": {"messages": messages(text), "max_tokens": 9},
        "/api/chat": {"messages": messages(text), "stream": False},
        "/api/generate": {"prompt": text, "stream": False},
    }


@pytest.mark.parametrize("path", list(bodies("")))
@pytest.mark.parametrize(("text", "model", "header"), [("hi", "quick", EASY), (HARD, "thinker", PROOF)])
async def test_the_chosen_model_answers_and_is_named(
    engine: TwoModels, path: str, text: str, model: str, header: str
) -> None:
    response = await post(engine, path, bodies(text)[path])
    assert response.status_code == 200, response.text
    assert response.json()["model"] == model
    assert response.headers["x-exo-route"] == header
    assert engine.answered == [model]


@pytest.mark.parametrize("path", [path for path in bodies("") if path.startswith("/v1")])
async def test_a_stream_names_it_as_well(engine: TwoModels, path: str) -> None:
    response = await post(engine, path, bodies(HARD)[path] | {"stream": True})
    assert response.headers["x-exo-route"] == PROOF
    data = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: {")]
    assert '"model":"thinker"' in data[0]


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
async def test_so_do_lines(engine: TwoModels, path: str) -> None:
    response = await post(engine, path, bodies(HARD)[path] | {"stream": True})
    assert {json.loads(line)["model"] for line in response.text.splitlines()} == {"thinker"}


async def test_a_named_model_has_no_such_header(engine: TwoModels) -> None:
    response = await post(engine, "/v1/chat/completions", {"model": "quick", "messages": messages(HARD)})
    assert "x-exo-route" not in response.headers
    assert response.json()["model"] == "quick"


async def test_an_ollama_name_comes_back_as_it_was_sent(engine: TwoModels) -> None:
    response = await post(engine, "/api/chat", {"model": "quick:latest", "messages": messages("hi"), "stream": False})
    assert response.json()["model"] == "quick:latest"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": messages(HARD), "n": 2}),
        ("/v1/completions", {"prompt": [HARD, "hi"]}),
        ("/v1/completions", {"prompt": HARD, "n": 2}),
    ],
)
async def test_several_answers_come_from_one_model(engine: TwoModels, path: str, body: dict[str, Any]) -> None:
    response = await post(engine, path, body)
    assert response.json()["model"] == "thinker"
    assert engine.answered == ["thinker"] * 2
    assert response.headers["x-exo-route"] == PROOF


@pytest.mark.parametrize(("path", "body"), [("/v1/chat/completions", {"messages": messages(HARD), "n": 3})])
async def test_several_answers_fall_back_together(engine: TwoModels, path: str, body: dict[str, Any]) -> None:
    engine.broken = {"thinker"}
    response = await post(engine, path, body)
    assert response.status_code == 200, response.text
    assert response.json()["model"] == "quick"
    assert len(response.json()["choices"]) == 3
    assert "rule=fallback" in response.headers["x-exo-route"]
    value = engine.context.registry.get_sample_value
    assert value("exo_routing_decisions_total", {"model": "quick", "rule": "fallback"}) == 1


async def test_several_answers_fail_together(engine: TwoModels) -> None:
    engine.broken, engine.resident_now = {"thinker", "quick"}, ""
    response = await post(engine, "/v1/chat/completions", {"messages": messages(HARD), "n": 3})
    assert response.status_code == 503


async def test_a_request_without_a_text_loads_the_default_model(engine: TwoModels) -> None:
    response = await post(engine, "/api/generate", {})
    assert response.json()["done_reason"] == "load"
    assert "x-exo-route" not in response.headers


@pytest.mark.parametrize("path", ["/api/show", "/api/delete", "/api/copy", "/api/pull"])
async def test_auto_is_the_name_of_no_model(engine: TwoModels, path: str) -> None:
    """Deleting it must not delete whichever model is the default."""
    method = "DELETE" if path == "/api/delete" else "POST"
    transport = httpx2.ASGITransport(app=create_app(automatic_service(engine, default_model="auto")))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        body = {"model": "auto", "source": "auto", "destination": "b", "stream": False}
        response = await client.request(method, path, json=body)
    assert response.status_code in (400, 404), response.text


async def test_another_nodes_auto_is_not_listed_twice(engine: TwoModels) -> None:
    engine.cards = [ModelCard(id="auto"), *engine.cards]
    app = create_app(automatic_service(engine, default_model="auto"))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://localhost") as client:
        listed = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
    assert sorted(listed) == ["auto", "quick", "thinker"]


async def test_the_log_tells_the_rule(engine: TwoModels, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="exo.access"):
        await post(engine, "/v1/chat/completions", {"messages": messages(HARD)})
    fields = [vars(record).get("fields", {}) for record in caplog.records if record.name == "exo.access"]
    assert fields[-1]["rule"] == "proof"


@pytest.mark.parametrize("default", ["auto", "thinker"])
async def test_auto_is_listed_where_it_is_the_default(engine: TwoModels, default: str) -> None:
    app = create_app(automatic_service(engine, default_model=default))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://localhost") as client:
        listed = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
        headers = {"anthropic-version": "2023-06-01"}
        of_anthropic = [model["id"] for model in (await client.get("/v1/models", headers=headers)).json()["data"]]
        shown = (await client.get("/v1/models/auto")).json()["id"]
    assert listed == of_anthropic
    assert (listed[0], shown) == (default, "auto")
    assert listed.count("auto") == (default == "auto")


async def test_embeddings_are_not_a_matter_of_choice(engine: TwoModels) -> None:
    response = await post(engine, "/v1/embeddings", {"input": "a"})
    assert response.json()["model"] == "quick"


async def test_a_fallback_is_told(engine: TwoModels) -> None:
    engine.broken = {"thinker"}
    response = await post(engine, "/v1/chat/completions", {"messages": messages(HARD)})
    assert response.json()["model"] == "quick"
    header = response.headers["x-exo-route"]
    assert header.startswith('model="quick", role=reasoning, rule=fallback, fallback-from="thinker", reason="')


async def test_the_log_and_metrics_know_the_model(engine: TwoModels) -> None:
    await post(engine, "/v1/chat/completions", {"messages": messages(HARD)})
    value = engine.context.registry.get_sample_value("exo_requests_total", {"model": "thinker", "status": "200"})
    assert value == 1


@pytest.mark.parametrize(
    ("effort", "path", "body"),
    [
        ("low", "/v1/chat/completions", {"messages": messages("hi"), "reasoning_effort": "low"}),
        ("high", "/v1/responses", {"input": "hi", "reasoning": {"effort": "high"}}),
        (
            "medium",
            "/v1/messages",
            {"messages": messages("hi"), "max_tokens": 9, "output_config": {"effort": "medium"}},
        ),
        ("high", "/api/chat", {"messages": messages("hi"), "think": "high", "stream": False}),
        (None, "/api/chat", {"messages": messages("hi"), "think": True, "stream": False}),
    ],
)
async def test_the_effort_that_a_client_asks_for_reaches_whoever_chooses(
    engine: TwoModels, effort: str | None, path: str, body: dict[str, Any]
) -> None:
    response = await post(engine, path, body)
    assert response.status_code == 200, response.text
    assert engine.requests[-1].effort == effort


async def test_num_ctx_leaves_out_models_with_less(engine: TwoModels) -> None:
    body = {"messages": messages("hi"), "stream": False, "options": {"num_ctx": 4096}}
    response = await post(engine, "/api/chat", body)
    assert response.json()["model"] == "thinker", "the quick one has 2048"


def test_names_and_reasons_stay_inside_their_quotes() -> None:
    choice = ModelChoice(model='a"b\\ü\r\nx', role="quick", rule="chat", reason="because", fallback_from="é")
    text = route_text(choice).decode("ascii")
    assert text.startswith('model="a\\"b\\\\%C3%BC%0D%0Ax", role=quick')
    assert 'fallback-from="%C3%A9"' in text
