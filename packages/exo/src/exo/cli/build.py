"""The parts of a node, put together from settings."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exo import __version__
from exo.cli.notify import without_manager
from exo.inference import (
    Choice,
    EngineContext,
    InferenceEngine,
    InferenceService,
    NodeMetrics,
    Plugins,
    choose,
    discover,
)
from exo.inference.plugins import DEFAULT_ENGINE
from exo.models import ModelStore
from exo.types import PluginError

logger = logging.getLogger(__name__)


def choose_engine(wanted: str | None, env: Mapping[str, str]) -> tuple[Plugins, Choice]:
    """Discover plugins and choose the engine. Raises ConfigurationError."""
    plugins = discover()
    choice = choose(plugins, wanted, env)
    logger.info("engine %s: %s", choice.engine, choice.reason)
    return plugins, choice


def build_service(
    plugins: Plugins, choice: Choice, root: Path, env: Mapping[str, str], **options: Any
) -> InferenceService:
    """The service for one engine; `options` are those of InferenceService. Raises ConfigurationError, PluginError."""
    context = EngineContext(store=ModelStore(root), cards=plugins.cards(), env=without_manager(env))
    try:
        engine = plugins.make_engine(choice.engine, context)
    except PluginError as error:
        if choice.asked or choice.engine == DEFAULT_ENGINE:
            raise
        logger.warning("%s Using %s.", error.message, DEFAULT_ENGINE)
        engine = plugins.make_engine(DEFAULT_ENGINE, context)
    return service_of(engine, context, **options)


def service_of(engine: InferenceEngine, context: EngineContext, **options: Any) -> InferenceService:
    """The service for an engine that was made with `context`. Raises PluginError."""
    metrics = NodeMetrics(context.registry)
    metrics.engine_info.labels(engine.name, __version__).set(1)
    try:
        return InferenceService(engine, metrics, **options)
    except Exception as error:  # an engine is a plugin and may raise anything
        raise PluginError(f"The engine {engine.name} does not tell its slots: {error!r}.") from error
