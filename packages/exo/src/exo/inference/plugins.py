"""Finding engines, cards and detectors: the built-in ones, and those that installed packages register.

Entry-point groups: `exo.inference_engines` (an InferenceEngine class), `exo.models` (a dict of cards, or a callable
that returns one), `exo.device_detectors` (a callable that returns an engine's or a device's name, True, or None).
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from exo.inference.engine import Availability, EngineContext, InferenceEngine
from exo.models import cards_by_id
from exo.models.builtin import BUILTIN_MODELS
from exo.types import ConfigurationError, EngineUnavailable, ExoError, ModelCard, PluginError

ENGINES_GROUP = "exo.inference_engines"
MODELS_GROUP = "exo.models"
DETECTORS_GROUP = "exo.device_detectors"
DEFAULT_ENGINE = "llamacpp"
BUILTIN = "exo"
BUILTIN_ENGINES: Mapping[str, str] = {
    "llamacpp": "exo.inference.llamacpp.engine:LlamaCppEngine",
    "dummy": "exo.inference.dummy:DummyEngine",
    "remote": "exo.inference.remote.engine:RemoteEngine",
}

_ANYTHING = (Exception, SystemExit)
"""A plugin may raise anything, even exit, and must not stop the node; every such catch reports what it caught."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineListing:
    """One line of `exo --list-engines`: where the engine comes from, whether it can run here, and why or why not."""

    name: str
    source: str
    availability: Availability


@dataclass(frozen=True)
class Choice:
    """The engine to use, and the reason in words."""

    engine: str
    reason: str
    asked: bool = False


@dataclass
class Plugins:
    """What the entry points offer; nothing is imported before it is asked for."""

    engines: dict[str, EntryPoint] = field(default_factory=dict)
    models: Sequence[EntryPoint] = ()
    detectors: Sequence[EntryPoint] = ()
    problems: list[str] = field(default_factory=list)

    def engine_class(self, name: str) -> type[InferenceEngine]:
        """Import an engine. Raises EngineUnavailable for an unknown name, PluginError for one that is broken."""
        if name not in self.engines:
            raise EngineUnavailable(f"There is no engine {name!r}. Known engines: {', '.join(sorted(self.engines))}.")
        source = _source(self.engines[name])
        try:
            found = _load(self.engines[name])
        except _ANYTHING as error:
            raise PluginError(f"The engine {name} of {source} cannot be imported: {_named(error)}.") from error
        if not (isinstance(found, type) and issubclass(found, InferenceEngine)) or inspect.isabstract(found):
            raise PluginError(f"The engine {name} of {source} is not a complete InferenceEngine class.")
        called = getattr(found, "name", None)
        if called != name:
            raise PluginError(f"The engine {name} of {source} calls itself {called!r}; the names have to be equal.")
        return found

    def make_engine(self, name: str, context: EngineContext) -> InferenceEngine:
        """An engine, ready for use. Raises ConfigurationError for its settings, PluginError if it is broken."""
        kind = self.engine_class(name)
        try:
            return kind.create(context)
        except ExoError:
            raise
        except _ANYTHING as error:
            source = _source(self.engines[name])
            raise PluginError(f"The engine {name} of {source} cannot be made: {_named(error)}.") from error

    def listings(self, env: Mapping[str, str]) -> list[EngineListing]:
        """Every engine, broken ones too, sorted by name."""
        return [self.listing(name, env) for name in sorted(self.engines)]

    def cards(self) -> dict[str, ModelCard]:
        """All cards, the built-in ones first; what does not fit is left out and named in `problems` and in the log."""
        sources: list[tuple[str, Mapping[str, Any]]] = [(BUILTIN, BUILTIN_MODELS)]
        for point in self.models:
            try:
                found = _load(point)
                entries = found() if callable(found) else found
                sources.append((_source(point), dict(entries)))
            except _ANYTHING as error:
                self._report(f"models of {_source(point)}: {_named(error)}", error)
        cards, problems = cards_by_id(sources)
        for problem in problems:
            self._report(problem)
        return cards

    def detect(self, env: Mapping[str, str]) -> Choice:
        """The engine of the first detector that answers and whose engine can run here, else llamacpp."""
        for point in self.detectors:
            try:
                answer = _load(point)()
            except _ANYTHING as error:
                self._report(f"detector {point.name} of {_source(point)}: {_named(error)}", error)
                continue
            if not answer:
                continue
            name = self._engine_for(point, answer)
            if name is None:
                self._report(f"detector {point.name} of {_source(point)} answered {answer!r}, which names no engine")
                continue
            found = self.listing(name, env).availability
            if found.ok:
                return Choice(name, f"the detector {point.name} found {'its device' if answer is True else answer}")
            self._report(f"detector {point.name} asks for the engine {name}, which cannot run here: {found.reason}")
        return Choice(DEFAULT_ENGINE, "the default, as no detector found a device for another one")

    def check(self) -> None:
        """Import what is registered, so that `problems` names everything that is broken."""
        self.cards()
        for point in self.detectors:
            try:
                _load(point)
            except _ANYTHING as error:
                self._report(f"detector {point.name} of {_source(point)}: {_named(error)}", error)

    def _engine_for(self, point: EntryPoint, answer: object) -> str | None:
        """An engine's name as answered; for a device's name or True the engine that has the detector's name, else the
        only engine of the detector's distribution."""
        if isinstance(answer, str) and answer in self.engines:
            return answer
        if point.name in self.engines:
            return point.name
        siblings = [name for name, engine in self.engines.items() if _source(engine) == _source(point)]
        return siblings[0] if len(siblings) == 1 else None

    def listing(self, name: str, env: Mapping[str, str]) -> EngineListing:
        """Whether one engine can run here; imports that engine only."""
        source = _source(self.engines[name])
        try:
            answer: object = self.engine_class(name).available(env)
            if not isinstance(answer, Availability):
                raise PluginError(f"available() answered {answer!r} in place of an Availability")
            return EngineListing(name, source, answer)
        except _ANYTHING as error:
            reason = error.message.rstrip(".") if isinstance(error, PluginError) else _named(error)
            self._report(f"engine {name} of {source}: {reason}", error)
            return EngineListing(name, source, Availability(ok=False, reason=f"broken: {reason}"))

    def _report(self, problem: str, error: BaseException | None = None) -> None:
        if problem not in self.problems:
            self.problems.append(problem)
            logger.warning("plugin problem: %s", problem, exc_info=error)


def discover(find: Callable[[str], Sequence[EntryPoint]] | None = None) -> Plugins:
    """Read the entry points; import nothing. A plugin that claims a taken engine name is left out and named."""
    find = find or _entry_points
    plugins = Plugins(models=find(MODELS_GROUP), detectors=find(DETECTORS_GROUP))
    for name, target in BUILTIN_ENGINES.items():
        plugins.engines[name] = EntryPoint(name, target, ENGINES_GROUP)
    for point in find(ENGINES_GROUP):
        if point.name in plugins.engines:
            owner = _source(plugins.engines[point.name])
            plugins._report(f"engine {point.name} of {_source(point)}: the name belongs to {owner}, so it is left out")  # noqa: SLF001 - same module
        else:
            plugins.engines[point.name] = point
    return plugins


def choose(plugins: Plugins, wanted: str | None, env: Mapping[str, str]) -> Choice:
    """The engine for this node. Raises ConfigurationError if the one asked for cannot run, with the reason."""
    if wanted is None:
        return plugins.detect(env)
    if wanted not in plugins.engines:
        raise ConfigurationError(f"There is no engine {wanted!r}. `exo --list-engines` shows the known ones.")
    found = plugins.listing(wanted, env).availability
    if not found.ok:
        raise ConfigurationError(f"The engine {wanted} cannot run here: {found.reason.rstrip('.')}.")
    return Choice(wanted, "asked for by name", asked=True)


def _entry_points(group: str) -> Sequence[EntryPoint]:
    return sorted(entry_points(group=group), key=lambda point: (point.name, point.value))


def _load(point: EntryPoint) -> Any:
    module = importlib.import_module(point.module)
    found: Any = module
    for name in point.attr.split("."):
        found = getattr(found, name)
    return found


def _source(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else BUILTIN


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
