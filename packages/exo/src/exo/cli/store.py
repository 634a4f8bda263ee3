"""`exo models` and `exo pull`."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
from collections.abc import Mapping

from prometheus_client import CollectorRegistry

from exo.cli import logs, settings
from exo.cli.progress import showing_progress
from exo.cli.tables import print_table
from exo.inference import EngineContext, Plugins, count_text, discover
from exo.models import HubLibrary, ModelStore
from exo.types import ModelCard


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
        rows.append(
            (model_id, count_text(card.parameters), count_text(card.context_length), card.role, card.licence, engines)
        )
    print_table(rows)
    for problem in plugins.problems:
        print(f"problem: {problem}", file=sys.stderr)
    for note in context.store.left_out(".gguf"):
        print(f"not served: {note}", file=sys.stderr)
    return 0


def pull_model(flags: argparse.Namespace, env: Mapping[str, str]) -> int:
    """Bring a model into the store: one that a card names, or a .gguf of the hub."""
    logs.set_up("error", as_json=False)
    cards = discover().cards()
    # A card may also name a wheel for the engine of a plugin.
    engines = dict.fromkeys(["llamacpp", *(engine for card in cards.values() for engine in card.files)])
    library = HubLibrary(_store(flags, env), ".gguf", engines=list(engines), cards=cards, env=env)
    with showing_progress() as report:
        name = library.pull(flags.model, force=flags.force, report=report)
    stored = library.store.find(name, library.suffix)
    print(f"{name} is in the store: {stored.path if stored else library.store.folder(name)}", file=sys.stderr)
    return 0


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
