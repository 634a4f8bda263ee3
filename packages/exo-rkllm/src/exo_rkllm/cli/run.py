"""`rkllama run MODEL [prompt]`: a chat in the terminal, with a server or, if none answers, in this process."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping

from exo.cli.settings import read
from exo.program import Ask, ask_node, ask_service, chat_in_terminal, service_of, set_up_logs
from exo.types import ConfigurationError
from exo_rkllm.cli.context import make_context, npu_environment
from exo_rkllm.cli.models import server_url
from exo_rkllm.cli.settings import CLIENT_SETTINGS
from exo_rkllm.engine import RKLLMInferenceEngine
from exo_rkllm.ways import npu_availability


def run(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    set_up_logs("warning", as_json=False)
    return chat_in_terminal(_connect(flags, env), " ".join(flags.prompt))


@contextlib.asynccontextmanager
async def _connect(flags: argparse.Namespace, env: Mapping[str, str]) -> AsyncIterator[Ask]:
    chosen = read(CLIENT_SETTINGS, flags, env)
    url = server_url(chosen["host"], chosen["port"])
    async with ask_node(url, chosen["api_key"], flags.model, key_variable="RKLLAMA_API_KEY") as ask:
        if ask is not None:
            yield ask
            return
    print(f"No server answers on {url}; the model runs in this process.", file=sys.stderr)
    async with _own_engine(flags.model, npu_environment(chosen, env)) as ask:
        yield ask


@contextlib.asynccontextmanager
async def _own_engine(model: str, env: Mapping[str, str]) -> AsyncIterator[Ask]:
    available = npu_availability(env)
    if not available.ok:
        raise ConfigurationError(f"No model can run here: {available.reason.rstrip('.')}.")
    engine = RKLLMInferenceEngine(make_context(env))
    service = service_of(engine, engine.context)
    try:
        yield ask_service(service, await service.target(model))
    finally:
        await service.close()
