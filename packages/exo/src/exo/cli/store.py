"""`exo models` and `exo pull`."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry

from exo.cli import logs, settings
from exo.cli.progress import showing_progress
from exo.inference import EngineContext, Plugins, discover
from exo.models import ModelStore
from exo.models.pull import pull
from exo.types import ModelCard, PullError


def list_models(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    """Every known card and every model in the store, and which engines can serve it now."""
    logs.set_up("error", as_json=False)
    plugins = discover()
    context = EngineContext(store=_store(flags, env), cards=plugins.cards(), env=env)
    served = asyncio.run(_served(plugins, context))
    cards = {**context.cards, **{card.id: card for card, _ in served.values()}}
    rows = [("MODEL", "PARAMETERS", "MAX CONTEXT", "ROLE", "LICENCE", "SERVED BY")]
    for model_id in sorted(cards):
        card = cards[model_id]
        engines = ", ".join(served[model_id][1]) if model_id in served else "not in the store"
        rows.append((model_id, _count(card.parameters), _count(card.context_length), card.role, card.licence, engines))
    _print_table(rows)
    for problem in plugins.problems:
        print(f"problem: {problem}", file=sys.stderr)
    for note in context.store.left_out(".gguf"):
        print(f"not served: {note}", file=sys.stderr)
    return 0


def pull_model(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    """Bring a model into the store: one that a card names, or a .gguf of the hub."""
    logs.set_up("error", as_json=False)
    cards = discover().cards()
    card = next((card for card in cards.values() if flags.model in (card.id, *card.aliases)), None)
    if card is None and "/" in flags.model:
        _pull_from_hub(flags.model, _store(flags, env), env)
        return 0
    if card is None:
        raise PullError(
            f"There is no card for {flags.model!r}. Known models: {', '.join(sorted(cards))}. "
            "One of the hub is named owner/repo/file.gguf."
        )
    if not card.files:
        raise PullError(f"The card of {card.id} names no file to pull.")
    pull(card, next(iter(card.files)), _store(flags, env), report=lambda text: print(text, file=sys.stderr))
    return 0


def _pull_from_hub(text: str, store: ModelStore, env: Mapping[str, str]) -> None:
    from exo.models.hub import HubReference, pull_from_hub  # noqa: PLC0415 - an HTTP client, needed only here

    reference = HubReference.parse(text)
    with showing_progress() as report:
        pulled = pull_from_hub(reference, store.root, suffix=".gguf", env=env, report=report)
    print(f"{pulled.name} is in the store: {pulled.folder / pulled.file}", file=sys.stderr)


async def _served(plugins: Plugins, context: EngineContext) -> dict[str, tuple[ModelCard, list[str]]]:
    found: dict[str, tuple[ModelCard, list[str]]] = {}
    for listing in plugins.listings(context.env):
        if not listing.availability.ok or listing.name == "dummy":
            continue
        try:
            engine = plugins.make_engine(listing.name, dataclasses.replace(context, registry=CollectorRegistry()))
            for card in await engine.models():
                found.setdefault(card.id, (card, []))[1].append(listing.name)
            await engine.close()
        except Exception as error:  # noqa: BLE001 - one broken engine must not hide the models of the others
            print(f"exo: the engine {listing.name} cannot tell its models: {error}", file=sys.stderr)
    return found


def _store(flags: argparse.Namespace, env: Mapping[str, str]) -> ModelStore:
    return ModelStore(settings.models_dir(settings.read(settings.STORE_SETTINGS, flags, env)))


def _count(number: int) -> str:
    """135M, 1.5B, 8192 …; nothing for an unknown one."""
    if number >= 1_000_000_000:
        return f"{number / 1e9:.1f}B"
    if number >= 1_000_000:
        return f"{number / 1e6:.0f}M"
    return str(number) if number else ""


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
