from __future__ import annotations

import datetime as dt
import math
from typing import Any

import httpx2
import pytest
from ollama_engine import OllamaEngine, post
from scripted_server import ScriptedEngine, running

from exo import __version__
from exo.inference import ResidentModel
from exo.models import ModelDescription
from exo.types import StoreError

DETAILS = {
    "parent_model": "",
    "format": "rkllm",
    "family": "qwen2",
    "families": ["qwen2"],
    "parameter_size": "1.5B",
    "quantization_level": "W8A8",
}
UNKNOWN = dict.fromkeys(DETAILS, "") | {"families": None}


async def get(engine: ScriptedEngine, path: str) -> Any:
    async with running(engine) as node, httpx2.AsyncClient(base_url=node.url) as client:
        response = await client.get(path)
        head = await client.head(path)
    assert (response.status_code, head.status_code, head.content) == (200, 200, b"")
    return response.json()


async def test_tags_tell_what_is_known_of_each_model() -> None:
    one, two = (await get(OllamaEngine(), "/api/tags"))["models"]
    assert one == {
        "name": "one",
        "model": "one",
        "modified_at": "2023-11-14T22:13:20.500000000Z",
        "size": 1000,
        "digest": "abc",
        "details": DETAILS,
    }
    assert (two["name"], two["modified_at"], two["size"]) == ("two/b:1", "0001-01-01T00:00:00Z", 0)
    assert two["details"] == {**UNKNOWN, "family": "test", "families": ["test"]}


async def test_a_model_that_cannot_be_described_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(OllamaEngine):
        async def describe(self, model: str) -> ModelDescription:
            if model == "one":
                raise StoreError("the Modelfile is broken")
            return await super().describe(model)

    models = (await get(Faulty(), "/api/tags"))["models"]
    assert [model["name"] for model in models] == ["one", "two/b:1"]
    assert "one cannot be described: the Modelfile is broken" in caplog.text


async def test_ps_tells_what_is_in_memory_and_for_how_long() -> None:
    engine = OllamaEngine()
    engine.residents += [ResidentModel(id="two/b:1", expires_in=math.inf), ResidentModel(id="gone", size=5)]
    before = dt.datetime.now(dt.timezone.utc)
    one, two, gone = (await get(engine, "/api/ps"))["models"]
    expires = [dt.datetime.fromisoformat(f"{model.pop('expires_at')[:19]}+00:00") for model in (one, two, gone)]
    assert dt.timedelta(seconds=298) < expires[0] - before < dt.timedelta(seconds=330)
    assert expires[1].year > before.year + 200
    assert one == {
        "name": "one",
        "model": "one",
        "size": 1500,
        "digest": "abc",
        "details": DETAILS,
        "size_vram": 0,
        "context_length": 2048,
    }
    assert (two["name"], two["size"], two["context_length"]) == ("two/b:1", 0, 0)
    assert (gone["name"], gone["size"]) == ("gone", 5)


async def test_ps_takes_from_the_description_what_the_engine_does_not_tell() -> None:
    engine = OllamaEngine()
    engine.residents = [ResidentModel(id="one")]
    (one,) = (await get(engine, "/api/ps"))["models"]
    assert (one["size"], one["context_length"]) == (1000, 4096)


@pytest.mark.parametrize("body", [{"model": "one"}, {"name": "uno:latest"}, {"model": "one", "verbose": True}])
async def test_show_tells_everything(body: dict[str, Any]) -> None:
    async with running(OllamaEngine()) as node:
        response = await post(node, "/api/show", body)
    found = response.json()
    assert found.pop("parameters").splitlines() == [
        "temperature                    0.8",
        'stop                           "<end>"',
        'stop                           "a \\"b\\""',
    ]
    assert found == {
        "modelfile": "FROM one\n",
        "template": "{{ prompt }}",
        "system": "Be brief.",
        "license": "Apache-2.0",
        "details": DETAILS,
        "model_info": {
            "general.architecture": "qwen2",
            "general.parameter_count": 1_500_000_000,
            "qwen2.context_length": 4096,
        },
        "capabilities": ["completion", "thinking"],
        "modified_at": "2023-11-14T22:13:20.500000000Z",
    }


async def test_show_leaves_out_what_is_not_known_and_refuses_what_it_cannot_do() -> None:
    async with running(OllamaEngine()) as node:
        two = (await post(node, "/api/show", {"model": "two/b:1"})).json()
        assert (two["model_info"], two["parameters"]) == ({"general.architecture": "test"}, "")
        for body, status in (
            ({"model": "three"}, 404),
            ({"model": ""}, 400),
            ({}, 400),
            ({"model": "one", "system": "x"}, 400),
            ({"model": "one", "template": "x"}, 400),
        ):
            assert (await post(node, "/api/show", body)).status_code == status


async def test_version() -> None:
    assert await get(ScriptedEngine(), "/api/version") == {"version": __version__}
