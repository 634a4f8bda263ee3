"""`exo` without a command: run the node."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import shutil
import sys
from collections.abc import Mapping
from typing import Any

from exo.api import HttpSettings, KeyRing, bind, create_app, serve
from exo.api.guard import is_loopback
from exo.cli import logs, settings
from exo.cli.build import build_service, choose_engine
from exo.inference import InferenceService
from exo.types import ConfigurationError, ExoError


def run(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    chosen = settings.read(settings.SERVE_SETTINGS, flags, env)
    logs.set_up(chosen["log_level"], as_json=chosen["log_json"])
    _allow_many_connections()
    asyncio.run(_serve(chosen, env))
    return 0


async def _serve(chosen: Mapping[str, Any], env: Mapping[str, str]) -> None:
    http = _http_settings(chosen)
    with contextlib.closing(bind(http, no_auth=chosen["no_auth"])) as sock:
        plugins, choice = choose_engine(chosen["engine"], env)
        service = build_service(
            plugins,
            choice,
            settings.models_dir(chosen),
            env,
            queue_limit=chosen["queue_limit"],
            default_model=chosen["default_model"],
            request_timeout=chosen["request_timeout"] or None,
        )
        app = create_app(service, http, preload=not chosen["no_preload"])
        url = _url(http, sock.getsockname()[1])
        with contextlib.suppress(OSError):  # nobody has to listen
            print(await _what_to_type(service, http, url), flush=True)
        async with _status_line(service, url, wanted=not chosen["disable_tui"]):
            await serve(app, service, http, sock)


@contextlib.asynccontextmanager
async def _status_line(service: InferenceService, url: str, *, wanted: bool) -> Any:
    """A live line at the bottom of the terminal, where stderr is one."""
    if not wanted or not sys.stderr.isatty():
        yield
        return
    from exo.cli.status import show_status  # noqa: PLC0415 - rich is only loaded for a terminal

    shown = asyncio.create_task(show_status(service, url), name="status line")
    try:
        yield
    finally:
        shown.cancel()
        await asyncio.gather(shown, return_exceptions=True)


def _url(http: HttpSettings, port: int) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(http.host, http.host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _what_to_type(service: InferenceService, http: HttpSettings, url: str) -> str:
    """The lines that greet whoever has started the node."""
    lines = [f"exo serves the engine {service.engine.name} on {url}"]
    try:
        model = (await service.resolve(None)).id
    except ExoError as error:
        return "\n".join([*lines, error.message])
    key = ' -H "Authorization: Bearer KEY"' if http.keys else ""
    body = '{"messages":[{"role":"user","content":"Why is the sky blue?"}]}'
    lines.append(f"Try:  curl {url}/v1/chat/completions{key} -d '{body}'")
    command = "exo" if shutil.which("exo") else sys.argv[0]
    lines.append(f'  or  {command} run {model} "Why is the sky blue?"   (in another terminal)')
    more = "" if http.keys else f"{url}/docs lists the paths.   "
    lines.append(f"More: {more}Ctrl-C ends the node.")
    if not is_loopback(http.host):
        lines.append(f"It listens on {http.host}: others reach it by this machine's name or address.")
    return "\n".join(lines)


def _http_settings(chosen: Mapping[str, Any]) -> HttpSettings:
    """The part of the settings that the HTTP side needs. Reads the key file; raises ConfigurationError."""
    keys = KeyRing.from_plain(chosen["api_keys"] or ())
    if chosen["api_keys_file"] is not None:
        keys = keys.merged(KeyRing.from_file(chosen["api_keys_file"]))
    if not keys and (chosen["api_keys"] is not None or chosen["api_keys_file"] is not None):
        raise ConfigurationError("API keys are asked for, but there is none in EXO_API_KEYS or in the key file.")
    return HttpSettings(
        keys=keys,
        allowed_hosts=frozenset(chosen["allowed_hosts"] or ()),
        allowed_origins=frozenset(chosen["allowed_origins"] or ()),
        **{name: chosen[name] for name in _SAME_NAME},
    )


_SAME_NAME = (
    "host",
    "port",
    "max_body",
    "header_timeout",
    "body_timeout",
    "idle_timeout",
    "write_timeout",
    "grace",
    "log_prompts",
)


def _allow_many_connections() -> None:
    """Each connection needs a file descriptor; the usual soft limit of 1024 is far below what a node can serve."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS refuses "unlimited"
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
