"""`rkllama serve`: the model server of one board."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from starlette.types import ASGIApp

from exo.api import HttpSettings, create_app
from exo.api.dialect import Extension
from exo.cli.settings import read, service_options
from exo.inference import InferenceService
from exo.program import Member, Program, curl_example, serve_program, service_of
from exo.types import ConfigurationError, ExoError
from exo_rkllm import __version__
from exo_rkllm.catalogue import SUFFIX
from exo_rkllm.cli.context import make_context, npu_environment
from exo_rkllm.cli.settings import SERVE_SETTINGS
from exo_rkllm.engine import RKLLMInferenceEngine
from exo_rkllm.server.earlier import EARLIER_ADMIN_PATHS, EARLIER_PATHS, Earlier
from exo_rkllm.server.earlier_operations import EARLIER_OPERATIONS
from exo_rkllm.server.metrics import count_requests
from exo_rkllm.ways import npu_availability


def run(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    """Raises ConfigurationError if there is no library to drive."""
    chosen = read(SERVE_SETTINGS, flags, env)
    own = npu_environment(chosen, env)
    available = npu_availability(own)
    if not available.ok:
        raise ConfigurationError(f"rkllama cannot run here: {available.reason.rstrip('.')}.")
    engine = RKLLMInferenceEngine(make_context(own))

    def make_app(service: InferenceService, http: HttpSettings, member: Member) -> ASGIApp:
        earlier = Earlier(service, http)
        return create_app(
            service,
            http,
            preload=chosen["default_model"] is not None,
            member=member,
            extension=Extension(
                title="rkllama",
                routes=earlier.routes(),
                operations=EARLIER_OPERATIONS,
                plain_error_paths=EARLIER_PATHS,
                admin_paths=EARLIER_ADMIN_PATHS,
                on_response=count_requests(engine.metrics),
            ),
        )

    def make_service() -> InferenceService:
        return service_of(engine, engine.context, **service_options(chosen))

    return serve_program(Program("rkllama", __version__, "RKLLAMA_", make_service, make_app, _greet), chosen, env)


async def _greet(service: InferenceService, http: HttpSettings, url: str) -> str:
    store = service.engine.context.store
    lines = [f"rkllama serves the models of {store.root} on {url}"]
    lines += [f"Not served: {note}" for note in store.left_out(SUFFIX)]
    try:
        model = (await service.resolve(None)).id
    except ExoError as error:
        return "\n".join([*lines, error.message, "`rkllama pull owner/repository/file.rkllm` brings one."])
    body = f'{{"model":"{model}","messages":[{{"role":"user","content":"Why is the sky blue?"}}]}}'
    lines.append(f"Try:  {curl_example(http, f'{url}/api/chat', body)}")
    lines.append(f'  or  rkllama run {model} "Why is the sky blue?"   (in another terminal)')
    lines.append("More: rkllama --help lists the commands.   Ctrl-C ends the server.")
    return "\n".join(lines)
