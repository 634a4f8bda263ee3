"""`exo route`: what `auto` makes of prompts."""

from __future__ import annotations

import argparse
import asyncio
import codecs
import contextlib
import functools
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import msgspec

from exo.cli import logs, settings
from exo.cli.build import build_service, choose_engine
from exo.cli.route import ROUTE_SETTINGS
from exo.cli.tables import print_table
from exo.inference.choice import Candidate, Situation
from exo.routing import Explanation, Router, packaged_text, read_rules
from exo.types import ChatRequest, ConfigurationError, EngineError, Message, PluginError
from exo.types.card import AUTO_MODEL

_STDIN = "-"
_LONGEST_LINE = 2**20
"""In bytes. Without a limit a file such as /dev/zero would fill the memory."""


class _Line(msgspec.Struct):
    """A line of a file; what else it has is not looked at."""

    prompt: str


def run(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    logs.set_up("error", as_json=False)
    if flags.print_rules:
        print(packaged_text(), end="")
        return 0
    prompt = " ".join(flags.prompt)
    if bool(prompt) == bool(flags.file):
        raise ConfigurationError('Give one prompt, as in `exo route "What is 2+2?"`, or a file of them with --file.')
    chosen = settings.read(ROUTE_SETTINGS, flags, env)
    router = Router(read_rules(chosen["routing_rules"]))
    situation = Situation(candidates=asyncio.run(_candidates(chosen, env)))
    if flags.file:
        for line in _prompts_of(flags.file):
            print(_as_json(_explained(router, situation, line), in_full=False))
        return 0
    explanation = _explained(router, situation, prompt)
    if flags.json:
        print(_as_json(explanation, in_full=True))
    else:
        _show(explanation)
    return 0


def _explained(router: Router, situation: Situation, prompt: str) -> Explanation:
    request = ChatRequest(model=AUTO_MODEL, messages=(Message(role="user", content=prompt),))
    return router.explain(request, situation)


async def _candidates(chosen: Mapping[str, Any], env: Mapping[str, str]) -> tuple[Candidate, ...]:
    """What a node would have here. Nothing, with a word on stderr, if its engine cannot tell."""
    plugins, choice = choose_engine(chosen["engine"], env)
    try:
        service = build_service(
            plugins, choice, settings.models_dir(chosen), env, default_model=chosen["default_model"]
        )
    except PluginError as error:
        print(f"exo: {error.message}", file=sys.stderr)
        return ()
    try:
        return tuple(Candidate(card=card) for card in await service.models())
    except EngineError as error:
        print(f"exo: the engine {choice.engine} cannot tell its models: {error.message}", file=sys.stderr)
        return ()
    finally:
        await service.close()


def _prompts_of(name: str) -> Iterator[str]:
    """Raises ConfigurationError, which names the file and the line at fault. Empty lines are passed over."""
    with _opened(name) as file:
        lines = iter(functools.partial(file.readline, _LONGEST_LINE + 1), b"")
        for number, line in enumerate(lines, 1):
            text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if not text.strip():
                continue
            try:
                yield _prompt_of(text)
            except ValueError as error:
                where = "stdin" if name == _STDIN else name
                raise ConfigurationError(
                    f'{where}, line {number}: {error}. Each line has to be an object such as {{"prompt": "Hello"}}.'
                ) from error


def _prompt_of(line: bytes) -> str:
    """Raises ValueError, without a full stop."""
    if len(line) > _LONGEST_LINE:
        raise ValueError(f"it is longer than {_LONGEST_LINE // 2**20} MiB")
    try:
        return msgspec.json.decode(line.decode("utf-8"), type=_Line).prompt
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    except msgspec.DecodeError as error:
        half = r"it has one half of a surrogate pair (\ud800 to \udfff), which is no character"
        raise ValueError(half if _has_half_a_pair(line) else str(error)) from None


def _has_half_a_pair(line: bytes) -> bool:
    """In an escape. msgspec takes it for something else, such as a truncated line."""
    try:
        json.dumps(json.loads(line), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        return False
    return False


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == _STDIN:
        yield sys.stdin.buffer
        return
    try:
        file = open(name, "rb")  # noqa: PTH123, SIM115 - closed below; the name is said as it was given
    except OSError as error:
        raise ConfigurationError(f"--file: {name} cannot be read: {error.strerror}.") from error
    with file:
        yield file


def _as_json(explanation: Explanation, *, in_full: bool) -> str:
    choice, judged = explanation.choice, explanation.judgement
    fields: dict[str, Any] = {
        "role": choice.role,
        "model": choice.model or None,
        "rule": choice.rule,
        "kind": judged.kind if judged else None,
        "reason": choice.reason,
    }
    if in_full:
        fields["lead"] = round(judged.lead, 2) if judged else None
        fields["cues"] = judged.counted if judged else []
    return msgspec.json.encode(fields).decode()


def _show(explanation: Explanation) -> None:
    choice, judged = explanation.choice, explanation.judgement
    print(f"role    {choice.role}")
    print(f"kind    {judged.kind if judged else ''}")
    print(f"model   {choice.model or 'none here'}")
    print(f"rule    {choice.rule}")
    print(f"reason  {choice.reason}")
    if judged and judged.counted:
        print()
        rows = [("WEIGHT", "KIND", "CUE", "PHRASES")]
        rows += [
            (f"{item.weight:+.2f}", item.kind, item.cue, ", ".join(item.phrases))
            for item in sorted(judged.counted, key=lambda item: -abs(item.weight))
        ]
        print_table(rows)
