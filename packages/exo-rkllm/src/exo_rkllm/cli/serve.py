"""`rkllama serve`: the model server of one board."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp

from exo.api import HttpSettings, create_app
from exo.cli.settings import read, service_options
from exo.inference import EngineContext, InferenceService
from exo.models import ModelStore, cards_by_id
from exo.program import Program, curl_example, serve_program, service_of, without_manager
from exo.types import ConfigurationError, ExoError
from exo_rkllm.cli.settings import SERVE_SETTINGS
from exo_rkllm.engine import RKLLMInferenceEngine, npu_availability
from exo_rkllm.models import RKLLM_MODELS
from exo_rkllm.server.earlier import EARLIER_PATHS, Earlier
from exo_rkllm.server.metrics import count_requests
from exo_rkllm.settings import NpuSettings


def run(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    """Raises ConfigurationError if there is no library to drive."""
    chosen = read(SERVE_SETTINGS, flags, env)
    own = npu_environment(chosen, env)
    available = npu_availability(own)
    if not available.ok:
        raise ConfigurationError(f"rkllama cannot run here: {available.reason.rstrip('.')}.")
    engine = RKLLMInferenceEngine(make_context(own))

    def make_app(service: InferenceService, http: HttpSettings) -> ASGIApp:
        earlier = Earlier(service, http)
        return create_app(
            service,
            http,
            preload=chosen["default_model"] is not None,
            routes=earlier.routes(),
            plain_error_paths=EARLIER_PATHS,
            on_response=count_requests(engine.metrics),
        )

    def make_service() -> InferenceService:
        return service_of(engine, engine.context, **service_options(chosen))

    return serve_program(Program("RKLLAMA_", make_service, make_app, _greet), chosen, env)


def npu_environment(chosen: Mapping[str, Any], env: Mapping[str, str]) -> dict[str, str]:
    """What the engine is given: it drives the library here, whatever RKLLM_SERVER_HOST says."""
    own = {name: value for name, value in without_manager(env).items() if not name.startswith("RKLLM_SERVER_")}
    if chosen["models"] is not None:
        own["RKLLAMA_MODELS"] = str(chosen["models"])
    if chosen.get("platform") is not None:
        own["RKLLM_TARGET_PLATFORM"] = chosen["platform"]
    return own


def make_context(env: Mapping[str, str]) -> EngineContext:
    """A context whose store is that of rkllama. Raises ConfigurationError."""
    cards, _ = cards_by_id([("exo-rkllm", RKLLM_MODELS)])
    return EngineContext(store=ModelStore(NpuSettings.from_env(env).models_dir), cards=cards, env=env)


async def _greet(service: InferenceService, http: HttpSettings, url: str) -> str:
    lines = [f"rkllama serves the models of {service.engine.context.store.root} on {url}"]
    try:
        model = (await service.resolve(None)).id
    except ExoError as error:
        return "\n".join([*lines, error.message, "`rkllama pull owner/repository/file.rkllm` brings one."])
    body = f'{{"model":"{model}","messages":[{{"role":"user","content":"Why is the sky blue?"}}]}}'
    lines.append(f"Try:  {curl_example(http, f'{url}/api/chat', body)}")
    lines.append(f'  or  rkllama run {model} "Why is the sky blue?"   (in another terminal)')
    lines.append("More: rkllama --help lists the commands.   Ctrl-C ends the server.")
    return "\n".join(lines)
