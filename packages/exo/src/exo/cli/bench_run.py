"""What `exo bench` does: measure, show, write."""

from __future__ import annotations

import argparse
import datetime as dt
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from exo import __version__
from exo.benchmark.client import Server, base_of
from exo.benchmark.page.render import as_html
from exo.benchmark.plan import stages
from exo.benchmark.report import Report, make_report, silent_models
from exo.benchmark.results import Identity, Run, Sample, Settings, read_run
from exo.benchmark.runner import choose_models, measure
from exo.benchmark.writers import as_csv, as_json, as_markdown
from exo.cli import values
from exo.cli.background import LoopInThread
from exo.cli.bench_terminal import print_report, showing_progress
from exo.cli.entry import INTERRUPTED
from exo.types import ConfigurationError, host_and_port

_CONNECT = 10.0
_NO_ANSWER = 1
"""The exit code if a model answered no request."""


def run(flags: argparse.Namespace, chosen: Mapping[str, Any]) -> int:
    """`chosen` has the host and the port of the node, and the API key."""
    asked = _asked(flags)
    timeout = _parsed("--timeout", flags.timeout, values.some_seconds)
    before = None if flags.compare is None else _earlier(Path(flags.compare))
    folder = None if flags.output is None else _folder(Path(flags.output))
    url = flags.url or f"http://{host_and_port(chosen['host'], chosen['port'])}"
    measured = _measure(url, chosen["api_key"], asked, timeout)
    report = make_report(measured, before)
    print_report(report)
    if folder is not None:
        _write(report, folder)
    if not measured.complete:
        return INTERRUPTED
    silent = silent_models(measured)
    for model, message in silent.items():
        _complain(f"{model} answered no request: {message}")
    return _NO_ANSWER if silent else 0


def _asked(flags: argparse.Namespace) -> Settings:
    return Settings(
        models=tuple(flags.model),
        repeat=_parsed("--repeat", flags.repeat, values.whole(1, 1000)),
        max_tokens=_parsed("--max-tokens", flags.max_tokens, values.whole(1, 1_000_000)),
        temperature=_parsed("--temperature", flags.temperature, _temperature),
        concurrency=_numbers("--concurrency", flags.concurrency, 1000),
        requests=_parsed("--requests", flags.requests, values.whole(1, 100_000)),
        prompt_lengths=_numbers("--prompt-lengths", flags.prompt_lengths, 10_000_000),
    )


def _parsed(flag: str, text: str, parse: Any) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigurationError(f"{flag}: {error}, got {text!r}.") from None


def _numbers(flag: str, text: str, most: int) -> tuple[int, ...]:
    """Between commas, in rising order, each once."""
    return tuple(sorted({_parsed(flag, word, values.whole(1, most)) for word in values.words(text)}))


def _temperature(text: str) -> float:
    expected = "expected a number from 0 to 2"
    try:
        number = float(text)
    except ValueError:
        raise ValueError(expected) from None
    if not 0 <= number <= 2:
        raise ValueError(expected)
    return number


def _earlier(path: Path) -> Run:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"--compare: {path} cannot be read: {error.strerror}.") from None
    return read_run(content, str(path))


def _folder(path: Path) -> Path:
    """Before the measuring, which may take long."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--output: {path} cannot be a folder: {error.strerror}.") from None
    return path


def _measure(url: str, key: str | None, asked: Settings, timeout: float) -> Run:
    """What was measured; with Ctrl-C, until then. Raises KeyboardInterrupt if that is nothing."""
    started = dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
    samples: list[Sample] = []
    known: list[tuple[Identity, Settings]] = []
    complete = True
    try:
        with LoopInThread() as loop:
            loop.wait(_measure_all(url, key, asked, timeout, known=known, samples=samples))
    except KeyboardInterrupt:
        complete = False
        if not samples:
            raise
    server, plan = known[0]
    return Run(
        exo_version=__version__,
        started=started,
        complete=complete,
        settings=plan,
        server=server,
        samples=tuple(samples),
    )


async def _measure_all(
    url: str,
    key: str | None,
    asked: Settings,
    timeout: float,
    *,
    known: list[tuple[Identity, Settings]],
    samples: list[Sample],
) -> None:
    """Fills `known` and `samples` as it goes: whoever interrupts has what was there until then."""
    base = base_of(url)
    async with httpx2.AsyncClient(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx2.Timeout(timeout, connect=min(timeout, _CONNECT)),
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
        trust_env=False,
    ) as http:
        server = Server(base, http, time.perf_counter)
        identity = await server.identity()
        plan = msgspec.structs.replace(asked, models=choose_models(asked.models, identity))
        known.append((identity, plan))
        wanted = stages(plan, secrets.token_hex(4))
        with showing_progress(sum(len(stage.questions) for stage in wanted)) as show:

            def record(sample: Sample) -> None:
                samples.append(sample)
                show(sample)

            await measure(server, wanted, plan, record)


def _write(report: Report, folder: Path) -> None:
    files = {
        "bench.md": as_markdown(report).encode(),
        "bench.csv": as_csv(report).encode(),
        "bench.json": as_json(report),
        "bench.html": as_html(report).encode(),
    }
    for name, content in files.items():
        try:
            (folder / name).write_bytes(content)
        except OSError as error:
            raise ConfigurationError(f"--output: {folder / name} cannot be written: {error.strerror}.") from None
    print(f"\nWritten to {folder}: {', '.join(files)}")


def _complain(text: str) -> None:
    print(f"exo: {text}", file=sys.stderr)
