"""`rkllama list`, `ps`, `show`, `pull`, `create`, `cp`, `rm` and `stop`."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path

from exo.cli.progress import showing_progress
from exo.cli.settings import read
from exo.types import ConfigurationError, EngineError, host_and_port
from exo_rkllm.cli.backend import Backend, Server, Store
from exo_rkllm.cli.settings import CLIENT_SETTINGS
from exo_rkllm.cli.shown import age, bytes_text, print_table, until


@contextlib.contextmanager
def backend(flags: argparse.Namespace, env: Mapping[str, str]) -> Iterator[Backend]:
    """The server if one answers, else the folder of the models. Raises EngineError if a server elsewhere was meant."""
    chosen = read(CLIENT_SETTINGS, flags, env)
    server = Server(server_url(chosen["host"], chosen["port"]), chosen["api_key"])
    with contextlib.closing(server):
        if server.answers():
            yield server
            return
    if not _is_here(chosen["host"]):
        raise EngineError(
            f"No rkllama server answers on {server.url}; without --host the models of this machine are meant."
        )
    yield local_store(flags, env)


def server_url(host: str, port: int) -> str:
    return f"http://{host_and_port(host, port)}"


def _is_here(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def local_store(flags: argparse.Namespace, env: Mapping[str, str]) -> Store:
    """What can be done without a server."""
    # Only here: a command that has a server needs none of it.
    from exo_rkllm.cli.context import make_context, npu_environment  # noqa: PLC0415
    from exo_rkllm.engine import RKLLMInferenceEngine  # noqa: PLC0415

    engine = RKLLMInferenceEngine(make_context(npu_environment(read(CLIENT_SETTINGS, flags, env), env)))
    return Store(engine.catalogue, engine.library)


def list_models(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    with backend(flags, env) as models:
        rows = [
            (
                model.name,
                str(model.details.get("parameter_size") or ""),
                str(model.details.get("quantization_level") or ""),
                bytes_text(model.size),
                age(model.modified_at, _now()),
            )
            for model in models.models()
        ]
        left_out = models.left_out()
    print_table(("NAME", "PARAMETERS", "TYPE", "SIZE", "MODIFIED"), rows)
    for note in left_out:
        print(f"not served: {note}", file=sys.stderr)
    return 0


def list_running(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    with backend(flags, env) as models:
        rows = [
            (model.name, bytes_text(model.size), str(model.context_length or ""), until(model.expires_at, _now()))
            for model in models.running()
        ]
    print_table(("NAME", "SIZE", "CONTEXT", "UNTIL"), rows)
    return 0


def show(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    with backend(flags, env) as models:
        found = models.show(flags.model)
    if flags.part is not None:
        print(found.get(flags.part) or "")
        return 0
    details, info = found.get("details") or {}, found.get("model_info") or {}
    rows = [
        ("family", details.get("family")),
        ("parameters", details.get("parameter_size")),
        ("type", details.get("quantization_level")),
        ("context", next((value for name, value in info.items() if name.endswith(".context_length")), None)),
        ("capabilities", ", ".join(found.get("capabilities") or ())),
        ("license", str(found.get("license") or "").strip().partition("\n")[0]),
        ("system", found.get("system")),
    ]
    rows += [("parameter", line) for line in str(found.get("parameters") or "").splitlines()]
    print_table((), [(name, str(value)) for name, value in rows if value])
    return 0


def pull(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    if flags.original and not flags.tokenizer:
        raise ConfigurationError("--from says where --tokenizer finds the files; give both, or neither.")
    with backend(flags, env) as models, showing_progress() as report:
        if flags.tokenizer:
            models.pull_tokenizer(flags.reference, flags.original or "", report)
        else:
            models.pull(flags.reference, report, force=flags.force)
    return 0


def create(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    text = _text(flags.file)
    with backend(flags, env) as models, showing_progress() as report:
        models.create(flags.name, text, report, force=flags.force)
    return 0


def copy(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    with backend(flags, env) as models:
        models.copy(flags.source, flags.destination, force=flags.force)
    print(f"copied {flags.source} to {flags.destination}")
    return 0


def remove(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    with backend(flags, env) as models:
        for model in flags.names:
            left = models.remove(model)
            print(f"deleted {model}" + (f"; left what is not the model's: {', '.join(left)}" if left else ""))
    return 0


def stop(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    with backend(flags, env) as models:
        models.stop(flags.model)
    return 0


def _text(path: str) -> str:
    try:
        content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"The Modelfile {path} cannot be read: {said}.") from error


def _now() -> datetime:
    return datetime.now(timezone.utc)
