from __future__ import annotations

import logging
from typing import Any

import httpx2
import msgspec
import pytest
from ollama_engine import OllamaEngine, ask

from exo.api.ollama.options import ONLY_DEFAULT, WITHOUT_EFFECT
from exo.api.ollama.schema import Options
from exo.types import ChatRequest, Limits, Sampling

HONOURED = {
    "num_ctx",
    "num_predict",
    "stop",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
}


async def chat(engine: OllamaEngine, options: Any) -> httpx2.Response:
    messages = [{"role": "user", "content": "hi"}]
    return await ask(engine, "/api/chat", {"model": "one", "messages": messages, "stream": False, "options": options})


async def request_of(options: dict[str, Any]) -> ChatRequest:
    engine = OllamaEngine()
    assert (await chat(engine, options)).status_code == 200
    return engine.requests[0]


def test_every_option_is_honoured_held_to_its_default_or_without_effect() -> None:
    sorted_out = [*HONOURED, *ONLY_DEFAULT, *WITHOUT_EFFECT, "mirostat_tau", "mirostat_eta"]
    assert sorted(sorted_out) == sorted(Options.__struct_fields__)


async def test_sampling_and_limits_reach_the_engine() -> None:
    given = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.1,
        "repeat_penalty": 1.2,
        "presence_penalty": -1,
        "frequency_penalty": 1,
        "seed": 42,
    }
    request = await request_of({**given, "num_predict": 6, "stop": ["a", "", "b"], "num_ctx": 4096})
    assert {k: v for k, v in msgspec.structs.asdict(request.sampling).items() if v is not None} == given
    assert request.limits == Limits(max_tokens=6, stop=("a", "b"), context=4096)


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        ({"num_predict": -1}, Limits()),
        ({"num_predict": -2}, Limits()),
        ({"num_predict": 0}, Limits()),
        ({"num_predict": None}, Limits()),
        ({"num_predict": 1}, Limits(max_tokens=1)),
        ({"stop": "x"}, Limits(stop=("x",))),
        ({"stop": ""}, Limits()),
        ({"stop": []}, Limits()),
    ],
)
async def test_limits(given: dict[str, Any], limits: Limits) -> None:
    assert (await request_of(given)).limits == limits


@pytest.mark.parametrize(
    ("given", "sampling"),
    [
        ({"seed": -1}, Sampling()),
        ({"seed": 0}, Sampling(seed=0)),
        ({"top_k": -1}, Sampling(top_k=0)),
        ({"temperature": 0}, Sampling(temperature=0)),
        ({"temperature": None}, Sampling()),
    ],
)
async def test_sampling(given: dict[str, Any], sampling: Sampling) -> None:
    assert (await request_of(given)).sampling == sampling


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
async def test_options_about_the_machine_are_accepted(name: str) -> None:
    kind = Options.__annotations__[name]
    request = await request_of({name: True if kind.startswith("bool") else 7})
    assert (request.sampling, request.limits) == (Sampling(), Limits())


@pytest.mark.parametrize(("name", "default"), ONLY_DEFAULT.items())
async def test_what_cannot_be_changed_is_accepted_as_it_is(name: str, default: float) -> None:
    await request_of({name: default, "mirostat_tau": 3.0, "mirostat_eta": 0.2})
    engine = OllamaEngine()
    response = await chat(engine, {name: not default if isinstance(default, bool) else default + 1})
    assert (response.status_code, response.json()["code"]) == (400, "unsupported_parameter")
    assert f"options.{name} " in response.json()["error"]
    assert engine.requests == []


async def test_a_longer_context_than_the_model_has_is_refused_with_both_numbers() -> None:
    response = await chat(OllamaEngine(), {"num_ctx": 4097})
    assert response.status_code == 400
    assert all(word in response.json()["error"] for word in ("4097", "4096", "NUM_CTX", "EXO_LLAMACPP_CONTEXT"))


async def test_an_unknown_context_refuses_no_length() -> None:
    body = {"model": "two/b:1", "stream": False, "prompt": "hi", "options": {"num_ctx": 100_000}}
    assert (await ask(OllamaEngine(), "/api/generate", body)).status_code == 200


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"top_k": "5"}, "options.top_k"),
        ({"top_k": 1.5}, "options.top_k"),
        ({"top_k": -2}, "options.top_k"),
        ({"temperature": "hot"}, "options.temperature"),
        ({"temperature": -1}, "options.temperature"),
        ({"top_p": 1.1}, "options.top_p"),
        ({"num_ctx": 0}, "options.num_ctx"),
        ({"num_predict": 10**12}, "options.num_predict"),
        ({"seed": 10**30}, "options.seed"),
        ({"stop": 5}, "options.stop"),
        ({"stop": [5]}, "options.stop"),
        ({"num_gpu": "all"}, "options.num_gpu"),
        ({"use_mmap": 1}, "options.use_mmap"),
        (5, "options"),
        ([], "options"),
    ],
)
async def test_a_wrong_value_is_400_and_named(options: Any, path: str) -> None:
    response = await chat(OllamaEngine(), options)
    assert response.status_code == 400
    assert path in response.json()["error"]


async def test_unknown_options_are_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="exo.api.ollama.routes"):
        await request_of({"zoom": 1, "top_k": 5, "fast": True})
    assert "fast, zoom" in caplog.text
    assert "top_k" not in caplog.text
