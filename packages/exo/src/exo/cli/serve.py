"""`exo` without a command: run the node."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import logging
import resource
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from exo import __version__
from exo.api import HttpSettings, KeyFile, KeyRing, bind, create_app, serve
from exo.api.guard import is_loopback
from exo.cli import logs, settings
from exo.cli.build import build_service, choose_engine
from exo.cli.entry import lose_broken_outputs
from exo.cli.notify import ServiceManager
from exo.cluster.membership.mdns import own_addresses
from exo.cluster.membership.member import Member, MemberSettings, host_name
from exo.cluster.membership.secret import plain_address, read_secret
from exo.inference import InferenceService
from exo.types import ConfigurationError, ExoError, host_and_port
from exo.types.card import AUTO_MODEL

logger = logging.getLogger(__name__)

Greet = Callable[[InferenceService, HttpSettings, str], Awaitable[str]]
"""The lines that greet whoever has started a program, from its service, its settings and its URL."""


@dataclass(frozen=True)
class Program:
    """What differs between the programs that serve an engine over HTTP.

    `name` is shown with `version`, `prefix` begins the variables. The others are called in this order, in one event
    loop.
    """

    name: str
    version: str
    prefix: str
    make_service: Callable[[], InferenceService]
    make_app: Callable[[InferenceService, HttpSettings, Member], ASGIApp]
    greet: Greet


def run(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    chosen = settings.read(settings.SERVE_SETTINGS, flags, env)

    def make_service() -> InferenceService:
        plugins, choice = choose_engine(chosen["engine"], env)
        return build_service(plugins, choice, settings.models_dir(chosen), env, **settings.service_options(chosen))

    def make_app(service: InferenceService, http: HttpSettings, member: Member) -> ASGIApp:
        return create_app(service, http, preload=not chosen["no_preload"], member=member)

    return serve_program(Program("exo", __version__, "EXO_", make_service, make_app, _what_to_type), chosen, env)


def serve_program(program: Program, chosen: Mapping[str, Any], env: Mapping[str, str]) -> int:
    """Serve until a signal ends it; returns the exit code. `chosen` are the values of SERVE_SETTINGS.

    Raises ConfigurationError and PluginError, before anything is served.
    """
    logs.set_up(chosen["log_level"], as_json=chosen["log_json"])
    _allow_many_connections()
    asyncio.run(_serve(program, chosen, env))
    return 0


async def _serve(program: Program, chosen: Mapping[str, Any], env: Mapping[str, str]) -> None:
    http = _http_settings(chosen, program.prefix)
    manager = ServiceManager.from_env(env)
    with contextlib.closing(bind(http, no_auth=chosen["no_auth"])) as sock:
        address, port = sock.getsockname()[:2]
        member_settings = _member_settings(chosen, address, port)
        service = program.make_service()
        app = program.make_app(service, http, Member(service, member_settings))
        url = _url(http, port)
        try:
            print(await program.greet(service, http, url), flush=True)
        except OSError:
            lose_broken_outputs()  # nobody has to listen
        title = f"{program.name} {program.version}"
        async with _status_line(service, title, url, wanted=not chosen["disable_tui"]):
            await serve(app, service, http, sock, manager)


@contextlib.asynccontextmanager
async def _status_line(service: InferenceService, title: str, url: str, *, wanted: bool) -> Any:
    """A live line at the bottom of the terminal, where stderr is one."""
    if not wanted or not sys.stderr.isatty():
        yield
        return
    from exo.cli.status import show_status  # noqa: PLC0415 - rich is only loaded for a terminal

    shown = asyncio.create_task(show_status(service, title, url), name="status line")
    try:
        yield
    finally:
        shown.cancel()
        await asyncio.gather(shown, return_exceptions=True)


def _url(http: HttpSettings, port: int) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(http.host, http.host)
    return f"http://{host_and_port(host, port)}"


async def _what_to_type(service: InferenceService, http: HttpSettings, url: str) -> str:
    """The lines that greet whoever has started the node."""
    lines = [f"exo serves the engine {service.engine.name} on {url}"]
    try:
        model = (await service.resolve(None)).id
    except ExoError as error:
        return "\n".join([*lines, error.message])
    model = AUTO_MODEL if service.default_is_automatic else model
    body = '{"messages":[{"role":"user","content":"Why is the sky blue?"}]}'
    lines.append(f"Try:  {curl_example(http, f'{url}/v1/chat/completions', body)}")
    command = "exo" if shutil.which("exo") else sys.argv[0]
    key = " --api-key KEY" if http.keys else ""
    lines.append(f'  or  {command} run{key} {model} "Why is the sky blue?"   (in another terminal)')
    lines.append("Ctrl-C ends the node." if http.keys else f"More: {url}/docs lists the paths.   Ctrl-C ends the node.")
    return "\n".join([*lines, *_who_else(http)])


def _who_else(http: HttpSettings) -> list[str]:
    if is_loopback(http.host):
        return []
    return [f"It listens on {http.host}: others reach it by this machine's name or address."]


def curl_example(http: HttpSettings, url: str, body: str) -> str:
    """A command that posts `body`, with a place for the key where one is needed."""
    key = ' -H "Authorization: Bearer KEY"' if http.keys else ""
    return f"curl {url}{key} -d '{body}'"


def _http_settings(chosen: Mapping[str, Any], prefix: str) -> HttpSettings:
    """The part of the settings that the HTTP side needs. Reads the key file; raises ConfigurationError."""
    return HttpSettings(
        prefix=prefix,
        keys=_keys(chosen),
        allowed_hosts=frozenset(chosen["allowed_hosts"] or ()),
        allowed_origins=frozenset(chosen["allowed_origins"] or ()),
        **{name: chosen[name] for name in _SAME_NAME},
    )


def _member_settings(chosen: Mapping[str, Any], address: str, port: int) -> MemberSettings:
    """Those of a node that listens on an IP address. Reads the secret; raises ConfigurationError."""
    path = chosen["cluster_secret_file"]
    on_loopback = is_loopback(plain_address(address))
    alone = chosen["no_announce"] or on_loopback
    if path is not None and on_loopback and not chosen["no_announce"]:
        logger.warning(
            "the node has a cluster secret but listens on %s only, so it is announced to nobody: --host 0.0.0.0 lets"
            " other machines reach it",
            address,
        )
    return MemberSettings(
        name=chosen["node_name"] or host_name(),
        secret=None if path is None else read_secret(path),
        port=port,
        addresses=None if alone else functools.partial(own_addresses, address),
    )


def _keys(chosen: Mapping[str, Any]) -> KeyRing | KeyFile:
    own = KeyRing.from_plain(chosen["api_keys"] or ())
    if not own and chosen["api_keys"] is not None and chosen["api_keys_file"] is None:
        raise ConfigurationError("API keys are asked for, but there is none in the environment.")
    return own if chosen["api_keys_file"] is None else KeyFile(chosen["api_keys_file"], own)


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
