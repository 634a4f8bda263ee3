from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, PathDistribution
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from exo.cli.build import build_service
from exo.inference import Availability, Choice, EngineContext, InferenceEngine, Plugins, choose, discover
from exo.inference.dummy import DummyEngine
from exo.inference.plugins import BUILTIN_ENGINES, DETECTORS_GROUP, ENGINES_GROUP, MODELS_GROUP
from exo.models import ModelStore
from exo.models.builtin import BUILTIN_MODELS
from exo.types import ConfigurationError, EngineUnavailable, ModelCard, PluginError

BUILTIN_NAMES = ["dummy", "llamacpp", "remote"]
NOBODY = "the default, as no detector found a device for another one"


class NpuEngine(DummyEngine):
    name = "npu"


class AbsentEngine(DummyEngine):
    name = "absent"

    @classmethod
    def available(cls, env: Mapping[str, str]) -> Availability:
        return Availability(ok=False, reason=f"no device at {env.get('NPU', 'any place')}")


class RaisingEngine(NpuEngine):
    @classmethod
    def available(cls, env: Mapping[str, str]) -> Availability:
        raise RuntimeError("driver said no")


class ExitingEngine(NpuEngine):
    @classmethod
    def available(cls, env: Mapping[str, str]) -> Availability:
        raise SystemExit(3)


class VagueEngine(NpuEngine):
    @classmethod
    def available(cls, env: Mapping[str, str]) -> Availability:
        return True  # type: ignore[return-value]  # what a careless author writes


class World:
    """Installed plugins: objects in a made-up module, and the entry points that name them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.points: dict[str, list[EntryPoint]] = {}

    def add(self, group: str, name: str, target: Any, dist: str = "exo-npu") -> EntryPoint:
        """Register an object; a string is taken as the entry point's value."""
        value = target
        if not isinstance(target, str):
            module = ModuleType(f"plugin_{group}_{name}_{dist}".replace(".", "_").replace("-", "_"))
            module.target = target  # type: ignore[attr-defined]  # made for this test
            self.monkeypatch.setitem(sys.modules, module.__name__, module)
            value = f"{module.__name__}:target"
        point = self._of_dist(EntryPoint(name, value, group), dist)
        self.points.setdefault(group, []).append(point)
        return point

    def engine(self, name: str, target: Any, dist: str = "exo-npu") -> None:
        self.add(ENGINES_GROUP, name, target, dist)

    def models(self, name: str, target: Any, dist: str = "exo-npu") -> None:
        self.add(MODELS_GROUP, name, target, dist)

    def detector(self, name: str, target: Any, dist: str = "exo-npu") -> None:
        self.add(DETECTORS_GROUP, name, target, dist)

    def find(self, group: str) -> Sequence[EntryPoint]:
        return self.points.get(group, [])

    def discover(self) -> Plugins:
        return discover(self.find)

    def _of_dist(self, point: EntryPoint, dist: str) -> EntryPoint:
        info = self.folder / f"{dist}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1\n")
        bind: Callable[[PathDistribution], EntryPoint] = point._for  # type: ignore[attr-defined]  # how metadata does it
        return bind(PathDistribution(info))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_what_is_installed_here_has_no_problems() -> None:
    plugins = discover()
    assert set(BUILTIN_NAMES) <= set(plugins.engines)
    assert BUILTIN_MODELS.items() <= plugins.cards().items()
    for name in BUILTIN_ENGINES:
        assert plugins.engine_class(name).name == name
    assert [listing.source for listing in plugins.listings({}) if listing.name in BUILTIN_NAMES] == ["exo"] * 3
    assert plugins.problems == []


# engines


def test_an_engine_of_a_plugin(world: World) -> None:
    world.engine("npu", NpuEngine)
    plugins = world.discover()
    assert plugins.engine_class("npu") is NpuEngine
    listings = {listing.name: listing for listing in plugins.listings({})}
    assert list(listings) == sorted([*BUILTIN_NAMES, "npu"])
    assert listings["npu"].source == "exo-npu"
    assert listings["npu"].availability.ok
    assert plugins.problems == []


def test_discovery_imports_nothing(world: World) -> None:
    world.engine("npu", "no_such_module_at_all:Engine")
    world.models("npu", "no_such_module_at_all:MODELS")
    world.detector("npu", "no_such_module_at_all:detect")
    assert world.discover().problems == []


def test_availability_is_asked_with_the_environment_that_is_given(world: World) -> None:
    world.engine("absent", AbsentEngine)
    listing = next(found for found in world.discover().listings({"NPU": "/dev/npu0"}) if found.name == "absent")
    assert listing.availability == Availability(ok=False, reason="no device at /dev/npu0")


BROKEN: list[tuple[Any, str]] = [
    ("no_such_module_at_all:Engine", "No module named 'no_such_module_at_all'"),
    ("exo.inference.dummy:NoSuchEngine", "NoSuchEngine"),
    ("exo.inference.dummy", "AttributeError"),
    (5, "not a complete InferenceEngine class"),
    (dict, "not a complete InferenceEngine class"),
    (NpuEngine.available, "not a complete InferenceEngine class"),
    (InferenceEngine, "not a complete InferenceEngine class"),
    (DummyEngine, "calls itself 'dummy'"),
    (RaisingEngine, "driver said no"),
    (ExitingEngine, "SystemExit"),
    (VagueEngine, "True in place of an Availability"),
]
BROKEN_IDS = ["no module", "no attribute", "no object named", "number", "wrong class", "function", "abstract", "name"]
BROKEN_IDS += ["raises", "exits", "bool"]


@pytest.mark.parametrize(("target", "reason"), BROKEN, ids=BROKEN_IDS)
def test_a_broken_engine_is_listed_with_the_reason_and_stops_nothing(
    world: World, caplog: pytest.LogCaptureFixture, target: Any, reason: str
) -> None:
    world.engine("npu", target)
    world.detector("npu", lambda: True)
    plugins = world.discover()
    listing = next(found for found in plugins.listings({}) if found.name == "npu")
    assert not listing.availability.ok
    assert listing.availability.reason.startswith("broken: ")
    assert reason in listing.availability.reason
    assert "engine npu of exo-npu" in plugins.problems[0]
    assert "engine npu of exo-npu" in caplog.text
    assert plugins.detect({}).engine == "llamacpp"
    with pytest.raises(ConfigurationError, match="The engine npu cannot run here: broken: "):
        choose(plugins, "npu", {})
    assert choose(plugins, "dummy", {}).engine == "dummy"


@pytest.mark.parametrize(("target", "reason"), BROKEN[:8], ids=BROKEN_IDS[:8])
def test_the_class_of_a_broken_engine_is_a_plugin_error(world: World, target: Any, reason: str) -> None:
    world.engine("npu", target)
    with pytest.raises(PluginError, match="npu") as caught:
        world.discover().engine_class("npu")
    assert reason in caught.value.message


class NamelessEngine(InferenceEngine):
    """Complete but for its name."""

    available = DummyEngine.available
    slots = DummyEngine.slots
    models = DummyEngine.models
    load = DummyEngine.load
    unload = DummyEngine.unload
    loaded = DummyEngine.loaded
    chat = DummyEngine.chat
    tokenize = DummyEngine.tokenize
    count = DummyEngine.count


def test_an_engine_without_a_name_is_a_plugin_error(world: World) -> None:
    world.engine("npu", NamelessEngine)
    with pytest.raises(PluginError, match="npu of exo-npu"):
        world.discover().engine_class("npu")


def test_an_unknown_engine() -> None:
    with pytest.raises(EngineUnavailable, match=r"no engine 'tpu'\. Known engines: dummy, llamacpp"):
        discover(lambda group: []).engine_class("tpu")


@pytest.mark.parametrize("name", BUILTIN_NAMES)
def test_a_plugin_cannot_replace_a_built_in_engine(world: World, caplog: pytest.LogCaptureFixture, name: str) -> None:
    world.engine(name, NpuEngine)
    plugins = world.discover()
    assert plugins.engine_class(name) is not NpuEngine
    (problem,) = plugins.problems
    assert f"engine {name} of exo-npu" in problem
    assert "belongs to exo" in problem
    assert problem in caplog.text


def test_of_two_plugins_with_one_engine_name_the_first_keeps_it(world: World) -> None:
    world.engine("npu", NpuEngine, "exo-first")
    world.engine("npu", AbsentEngine, "exo-second")
    plugins = world.discover()
    assert plugins.engine_class("npu") is NpuEngine
    (problem,) = plugins.problems
    assert problem == "engine npu of exo-second: the name belongs to exo-first, so it is left out"


def test_a_problem_is_told_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.engine("npu", 5)
    plugins = world.discover()
    for _ in range(3):
        plugins.listings({})
    assert len(plugins.problems) == 1
    assert len(caplog.records) == 1


# models


@pytest.mark.parametrize("wrapped", [False, True], ids=["dict", "callable"])
def test_models_as_a_dict_or_a_callable(world: World, *, wrapped: bool) -> None:
    entries = {"full": ModelCard(id="full", layers=1), "short": {"layers": 28, "repo": {"NpuEngine": "hub/repo"}}}
    world.models("npu", (lambda: entries) if wrapped else entries)
    plugins = world.discover()
    cards = plugins.cards()
    assert cards == {
        **BUILTIN_MODELS,
        "full": ModelCard(id="full", layers=1),
        "short": ModelCard(id="short", layers=28, files={"NpuEngine": "hub/repo"}),
    }
    assert plugins.problems == []


def fails() -> Any:
    raise RuntimeError("no table")


MODELS_GARBAGE: list[Any] = [
    5,
    None,
    fails,
    lambda: None,
    ["a", "b"],
    "no_such_module_at_all:MODELS",
    {"bad": 5},
    {"bad": None},
    {"bad": {1: 2}},
    {"bad": {"layers": "many"}},
    {7: {}},
]


@pytest.mark.parametrize("target", MODELS_GARBAGE, ids=range(len(MODELS_GARBAGE)))
def test_garbage_among_models_is_named_and_stops_nothing(
    world: World, caplog: pytest.LogCaptureFixture, target: Any
) -> None:
    world.models("broken", target, "exo-broken")
    world.models("npu", {"good": {}})
    plugins = world.discover()
    assert list(plugins.cards()) == [*BUILTIN_MODELS, "good"]
    assert len(plugins.problems) == 1
    assert "exo-broken" in plugins.problems[0]
    assert "exo-broken" in caplog.text


def test_a_plugin_cannot_replace_a_built_in_model(world: World) -> None:
    world.models("npu", {"smollm2": {}, "smollm2-135m-instruct": {"layers": 1}, "other": {}})
    plugins = world.discover()
    assert plugins.cards() == {**BUILTIN_MODELS, "other": ModelCard(id="other")}
    assert [problem.startswith("exo-npu: ") for problem in plugins.problems] == [True, True]


# detectors


@pytest.mark.parametrize("answer", ["npu", "rk3588", True])
def test_a_detector_answers_with_an_engine_a_device_or_true(world: World, answer: object) -> None:
    world.engine("npu", NpuEngine)
    world.detector("npu", lambda: answer)
    choice = choose(world.discover(), None, {})
    assert choice.engine == "npu"
    assert ("its device" if answer is True else str(answer)) in choice.reason


@pytest.mark.parametrize("answer", ["rk3588", True])
def test_a_detector_of_another_name_stands_for_the_only_engine_of_its_distribution(
    world: World, answer: object
) -> None:
    world.engine("npu", NpuEngine)
    world.engine("other", NpuEngine, "exo-other")
    world.detector("rockchip", lambda: answer)
    assert choose(world.discover(), None, {}).engine == "npu"


def test_a_device_that_names_no_engine_is_reported(world: World) -> None:
    world.engine("npu", NpuEngine)
    world.engine("npu2", NpuEngine)
    world.detector("rockchip", lambda: "rk3588")
    plugins = world.discover()
    assert choose(plugins, None, {}) == Choice("llamacpp", NOBODY)
    assert plugins.problems == ["detector rockchip of exo-npu answered 'rk3588', which names no engine"]


@pytest.mark.parametrize("answer", [None, False, "", fails, 5], ids=["none", "false", "empty", "raises", "number"])
def test_the_next_detector_is_asked_after_one_without_an_answer(world: World, answer: Any) -> None:
    world.engine("npu", NpuEngine, "exo-npu")
    world.detector("silent", answer if callable(answer) else lambda: answer, "exo-silent")
    world.detector("npu", lambda: "npu")
    assert choose(world.discover(), None, {}).engine == "npu"


@pytest.mark.parametrize("target", [fails, 5, "no_such_module_at_all:detect"], ids=["raises", "number", "no module"])
def test_a_broken_detector_is_named(world: World, caplog: pytest.LogCaptureFixture, target: Any) -> None:
    world.detector("npu", target)
    plugins = world.discover()
    assert choose(plugins, None, {}).engine == "llamacpp"
    (problem,) = plugins.problems
    assert problem.startswith("detector npu of exo-npu: ")
    assert problem in caplog.text


def test_the_first_detector_that_answers_wins(world: World) -> None:
    asked: list[str] = []

    def detector(name: str) -> Callable[[], str]:
        def detect() -> str:
            asked.append(name)
            return name

        return detect

    for name in ("second", "first"):
        world.engine(name, type("Engine", (NpuEngine,), {"name": name}))
        world.detector(name, detector(name))
    assert choose(world.discover(), None, {}).engine == "second"
    assert asked == ["second"]


def test_a_detected_engine_that_cannot_run_is_passed_over_and_reported(world: World) -> None:
    world.engine("absent", AbsentEngine)
    world.engine("npu", NpuEngine)
    world.detector("absent", lambda: "absent")
    world.detector("npu", lambda: "npu")
    plugins = world.discover()
    assert choose(plugins, None, {}).engine == "npu"
    (problem,) = plugins.problems
    assert "asks for the engine absent, which cannot run here: no device at any place" in problem


def test_an_engine_asked_for_by_name_needs_no_detector(world: World) -> None:
    world.detector("npu", fails)
    plugins = world.discover()
    assert choose(plugins, "dummy", {}) == Choice("dummy", "asked for by name", asked=True)
    assert plugins.problems == [], "nobody asked the detector"


def test_an_engine_asked_for_by_name_imports_no_other_plugin(world: World) -> None:
    world.engine("npu", "no_such_module_at_all:Engine")
    plugins = world.discover()
    choose(plugins, "dummy", {})
    assert plugins.problems == []


def test_an_engine_asked_for_by_name_that_cannot_run_is_never_replaced(world: World) -> None:
    world.engine("absent", AbsentEngine)
    with pytest.raises(ConfigurationError, match="The engine absent cannot run here: no device at any place"):
        choose(world.discover(), "absent", {})
    with pytest.raises(ConfigurationError, match=r"no engine 'tpu'.*--list-engines"):
        choose(world.discover(), "tpu", {})


def test_entry_points_are_read_in_the_order_of_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for dist, names in {"exo_z": ["b", "a"], "exo_a": ["c"]}.items():
        info = tmp_path / f"{dist}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1\n")
        lines = [f"{name} = engines_of_{dist}:{name}" for name in names]
        engines = [f"class {name}(DummyEngine):\n    name = {name!r}\n" for name in names]
        code = "from exo.inference.dummy import DummyEngine\n" + "".join(engines)
        (tmp_path / f"engines_of_{dist}.py").write_text(code)
        (info / "entry_points.txt").write_text("\n".join([f"[{ENGINES_GROUP}]", *lines]) + "\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    plugins = discover()
    assert [name for name in plugins.engines if name in "abc"] == ["a", "b", "c"]
    assert plugins.listings({})[0].source == "exo_z"
    assert issubclass(plugins.engine_class("c"), InferenceEngine)


def test_a_detector_that_exits_is_named(world: World) -> None:
    def exits() -> str:
        raise SystemExit(1)

    world.detector("npu", exits)
    plugins = world.discover()
    assert choose(plugins, None, {}).engine == "llamacpp"
    assert plugins.problems == ["detector npu of exo-npu: SystemExit: 1"]


def test_check_names_everything_that_is_broken(world: World) -> None:
    world.detector("npu", "no_such_module_at_all:detect")
    world.models("npu", 5)
    plugins = world.discover()
    plugins.check()
    assert [problem.partition(" of ")[0] for problem in plugins.problems] == ["models", "detector npu"]


class Unmakeable(NpuEngine):
    def __init__(self, context: EngineContext) -> None:
        raise ZeroDivisionError("no NPU here")


class Misconfigured(NpuEngine):
    def __init__(self, context: EngineContext) -> None:
        raise ConfigurationError("NPU_SLOTS has to be a number.")


def test_an_engine_that_cannot_be_made(world: World, tmp_path: Path) -> None:
    world.engine("npu", Unmakeable)
    with pytest.raises(PluginError, match="npu of exo-npu cannot be made: ZeroDivisionError: no NPU here"):
        world.discover().make_engine("npu", EngineContext(store=ModelStore(tmp_path)))


def test_an_engine_with_wrong_settings_says_which(world: World, tmp_path: Path) -> None:
    world.engine("npu", Misconfigured)
    with pytest.raises(ConfigurationError, match="NPU_SLOTS"):
        world.discover().make_engine("npu", EngineContext(store=ModelStore(tmp_path)))


def test_a_detected_engine_that_cannot_be_made_gives_way_and_one_asked_for_does_not(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world.engine("npu", Unmakeable)
    world.detector("npu", lambda: "npu")
    plugins = world.discover()
    service = build_service(plugins, choose(plugins, None, {}), tmp_path, {})
    assert service.engine.name == "llamacpp"
    assert "no NPU here" in caplog.text
    with pytest.raises(PluginError, match="no NPU here"):
        build_service(plugins, choose(plugins, "npu", {}), tmp_path, {})
