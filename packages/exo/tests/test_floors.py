"""Imports run one way: types ← chat, models ← inference ← topology, cluster, routing ← api ← cli."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import exo

ROOT = Path(exo.__file__).parent

FLOORS = {
    "": 0,  # exo/__init__.py: the version
    "types": 1,
    "chat": 2,
    "models": 2,
    "inference": 3,
    "topology": 4,
    "cluster": 4,
    "routing": 4,
    "benchmark": 4,
    "tinychat": 4,
    "api": 5,
    "cli": 6,
    "program": 6,
    "main": 6,
    "__main__": 6,
}
"""A part may import itself, and parts on lower floors; not its neighbours on the same floor."""
SAME_PART = {"main": "cli", "__main__": "cli", "program": "cli"}
FOREIGN = {"exo_rkllm", "rkllm_sim", "rkllm_facts", "rkllm_converter"}
"""exo knows nothing of Rockchip."""


def part_of(module: str) -> str:
    """The part below `exo` to which a module belongs: `exo.api.openai.routes` belongs to `api`."""
    part = [*module.split("."), ""][1]
    return SAME_PART.get(part, part)


def imported(module: str, source: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that is imported, inside functions and by name as well."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if function in {"import_module", "__import__"}:
                yield node.lineno, str(node.args[0].value)


def offences(module: str, source: str, *, is_package: bool = False) -> list[str]:
    own = part_of(module)
    found = []
    for line, name in imported(module, source, is_package=is_package):
        top, part = name.split(".")[0], part_of(name)
        if top in FOREIGN:
            found.append(f"{module}:{line} imports {name}, which is foreign to exo")
        elif top == "exo":
            floor = FLOORS.get(part, 0)  # a name of exo/__init__.py
            if part != own and floor >= FLOORS[own]:
                found.append(f"{module}:{line} on floor {own!r} imports {name}")
    return found


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def test_every_module_has_a_floor() -> None:
    assert len(modules()) > 20
    assert {part_of(module) for module, _ in modules()} - set(FLOORS) == set()


def test_imports_run_one_way() -> None:
    found = []
    for module, path in modules():
        found += offences(module, path.read_text(encoding="utf-8"), is_package=path.name == "__init__.py")
    assert found == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("exo.types.card", "import exo.chat"),
        ("exo.types.card", "from exo.models import ModelStore"),
        ("exo.chat.stops", "from exo.models import ModelStore"),
        ("exo.models.store", "from exo import inference"),
        ("exo.models.store", "def f():\n    from exo.inference.queue import Ticket"),
        ("exo.models.store", "if TYPE_CHECKING:\n    from exo.inference.queue import Ticket"),
        ("exo.models.store", "from ..inference import queue"),
        ("exo.models.store", "from .. import inference"),
        ("exo.inference.service", "from exo.topology import detect"),
        ("exo.topology.detect", "from exo.routing import pick"),
        ("exo.routing.pick", "import exo.api.app as app"),
        ("exo.api.openai.routes", "from exo.cli.main import main"),
        ("exo.api.app", "import exo.main"),
        ("exo.cli.main", "import exo_rkllm"),
        ("exo.cli.main", "from exo_rkllm.engine import RkllmEngine"),
        ("exo.inference.plugins", "importlib.import_module('exo_rkllm.engine')"),
        ("exo.inference.plugins", "import_module('exo.api')"),
        ("exo.topology.detect", "from rkllm_facts import chips"),
        ("exo", "from exo.types import Delta"),
    ],
)
def test_a_forbidden_import_would_be_found(module: str, source: str) -> None:
    assert len(offences(module, source, is_package=module == "exo")) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("exo.inference.service", "from exo.types import Delta\nfrom exo.models import ModelStore\nimport exo.chat"),
        ("exo.inference.service", "from exo.inference.queue import Ticket\nfrom . import queue"),
        ("exo.types.card", "from exo import __version__\nimport msgspec"),
        ("exo.api.openai.routes", "from ..app import app\nfrom exo.topology import detect"),
        ("exo.main", "from exo.cli.main import main"),
        ("exo.cli.run", "from exo.main import main"),
    ],
)
def test_a_permitted_import_is_let_through(module: str, source: str) -> None:
    assert offences(module, source) == []
