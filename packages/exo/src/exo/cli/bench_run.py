"""What `exo bench` does: measure, show, write."""

from __future__ import annotations

import argparse
import datetime as dt
import secrets
import sys
import tempfile
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
from exo.benchmark.report import Report, failures, make_report
from exo.benchmark.results import Identity, Run, Sample, Settings, read_run
from exo.benchmark.runner import choose_models, measure
from exo.benchmark.writers import as_csv, as_json, as_markdown
from exo.cli import values
from exo.cli.background import LoopInThread
from exo.cli.bench_terminal import print_report, showing_progress
from exo.cli.entry import INTERRUPTED
from exo.types import ConfigurationError, host_and_port
from exo.types.printable import escaped

_CONNECT = 10.0
_LONGEST_REQUEST = 10
"""Times the timeout, which is about silence: a server that goes on and on must not hold up the run."""
_MOST_NUMBERS = 32
"""Between commas."""
_MOSTLY_FAILED = 1
"""The exit code if more than half of the requests to a model failed."""
_FILES = ("bench.md", "bench.csv", "bench.json", "bench.html")


def run(flags: argparse.Namespace, chosen: Mapping[str, Any]) -> int:
    """`chosen` has the host and the port of the node, and the API key."""
    asked = _asked(flags)
    timeout = _parsed("--timeout", flags.timeout, values.some_seconds)
    base = base_of(flags.url or f"http://{host_and_port(chosen['host'], chosen['port'])}")
    key = _sendable_key(chosen["api_key"])
    before = None if flags.compare is None else _earlier(Path(flags.compare))
    folder = None if flags.output is None else _folder(flags.output, flags.compare)
    _tell_what_has_no_effect(flags)
    measured = _measure(base, key, asked, timeout)
    if measured is None:
        _complain("The run was interrupted before anything was measured.")
        return INTERRUPTED
    report = make_report(measured, before)
    print_report(report)
    if folder is not None:
        _write(report, folder)
    if not measured.complete:
        return INTERRUPTED
    failed = failures(measured)
    for sentence in failed:
        _complain(sentence)
    return _MOSTLY_FAILED if failed else 0


def _asked(flags: argparse.Namespace) -> Settings:
    return Settings(
        models=tuple(_parsed("--model", name, _name) for name in flags.model),
        repeat=_parsed("--repeat", flags.repeat, values.whole(1, 1000)),
        max_tokens=_parsed("--max-tokens", flags.max_tokens, values.whole(1, 1_000_000)),
        temperature=_parsed("--temperature", flags.temperature, _temperature),
        concurrency=_numbers("--concurrency", flags.concurrency, 1000),
        requests=_parsed("--requests", flags.requests, values.whole(1, 10_000)),
        prompt_lengths=_numbers("--prompt-lengths", flags.prompt_lengths, 1_000_000),
    )


def _parsed(flag: str, text: str, parse: Any) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigurationError(f"{flag}: {error}, got {text!r}.") from None


def _numbers(flag: str, text: str, most: int) -> tuple[int, ...]:
    """Between commas, in rising order, each once."""
    words = values.words(text)
    if (text and not words) or len(words) > _MOST_NUMBERS:
        raise ConfigurationError(f"{flag}: expected 1 to {_MOST_NUMBERS} numbers between commas, got {text[:80]!r}.")
    return tuple(sorted({_parsed(flag, word, values.whole(1, most)) for word in words}))


def _name(text: str) -> str:
    """Other than text, which is sent as UTF-8, an argument may have any bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("expected a name in UTF-8") from None
    if not text:
        raise ValueError("expected the name of a model")
    return text


def _sendable_key(key: str | None) -> str | None:
    if key is not None and not (key.isascii() and key.isprintable()):
        raise ConfigurationError("--api-key (or EXO_API_KEY) holds characters that no HTTP header can carry.")
    return key


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
        if path.exists() and not path.is_file():
            raise ConfigurationError(f"--compare: {path} is no file.")
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"--compare: {path} cannot be read: {error.strerror}.") from None
    return read_run(content, str(path))


def _folder(given: str, compared: str | None) -> Path:
    """Made and tried before the measuring, which may take long. The file `compared` must not be one that is written."""
    if not given:
        raise ConfigurationError("--output: expected a folder.")
    path = Path(given)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--output: {path} cannot be a folder: {error.strerror}.") from None
    tried = path
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
        for tried in (path / name for name in _FILES):
            if not tried.exists():
                continue
            if compared is not None and tried.samefile(compared):
                raise ConfigurationError(f"--output: {tried} is the file to compare with: choose another folder.")
            with tried.open("ab"):
                pass
    except OSError as error:
        raise ConfigurationError(f"--output: {tried} cannot be written: {error.strerror}.") from None
    return path


def _tell_what_has_no_effect(flags: argparse.Namespace) -> None:
    """Only of the command line: EXO_HOST and EXO_PORT are there for other commands too."""
    given = [f"--{name}" for name in ("host", "port") if getattr(flags, name, None) is not None]
    if flags.url and given:
        verb = "has" if len(given) == 1 else "have"
        _complain(f"--url says what is measured; {' and '.join(given)} {verb} no effect.")


def _measure(base: str, key: str | None, asked: Settings, timeout: float) -> Run | None:
    """What was measured; with Ctrl-C, until then: None if that is nothing."""
    started = dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
    samples: list[Sample] = []
    known: list[tuple[Identity, Settings]] = []
    complete = True
    try:
        with LoopInThread() as loop:
            loop.wait(_measure_all(base, key, asked, timeout, known=known, samples=samples))
    except KeyboardInterrupt:
        complete = False
        if not samples:
            return None
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
    base: str,
    key: str | None,
    asked: Settings,
    timeout: float,
    *,
    known: list[tuple[Identity, Settings]],
    samples: list[Sample],
) -> None:
    """Fills `known` and `samples` as it goes: whoever interrupts has what was there until then."""
    async with httpx2.AsyncClient(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx2.Timeout(timeout, connect=min(timeout, _CONNECT)),
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
        trust_env=False,
    ) as http:
        server = Server(base, http, time.perf_counter, longest=_LONGEST_REQUEST * timeout)
        identity = await server.identity()
        plan = msgspec.structs.replace(asked, models=choose_models(asked.models, identity))
        known.append((identity, msgspec.structs.replace(plan, models=tuple(map(escaped, plan.models)))))
        wanted = stages(plan, secrets.token_hex(4))
        with showing_progress(sum(len(stage.questions) for stage in wanted)) as shown:

            def record(sample: Sample) -> None:
                samples.append(sample)
                shown.end(sample)

            await measure(server, wanted, plan, record, shown.begin)


def _write(report: Report, folder: Path) -> None:
    contents = (as_markdown(report).encode(), as_csv(report).encode(), as_json(report), as_html(report).encode())
    replaced = any((folder / name).exists() for name in _FILES)
    for name, content in zip(_FILES, contents, strict=True):
        try:
            (folder / name).write_bytes(content)
        except OSError as error:
            raise ConfigurationError(f"--output: {folder / name} cannot be written: {error.strerror}.") from None
    print(f"\nWritten to {folder}: {', '.join(_FILES)}")
    if replaced:
        print("The earlier report there was replaced.")


def _complain(text: str) -> None:
    print(f"exo: {text}", file=sys.stderr)
