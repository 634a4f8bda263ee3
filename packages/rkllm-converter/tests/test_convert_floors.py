"""Imports run one way: errors ← options ← source, calibration, result ← toolkit, preflight ← request ← prepare ←
convert, batch ← cli."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import rkllm_converter
from rkllm_converter import errors

ROOT = Path(rkllm_converter.__file__).parent

FLOORS = {
    "": 0,  # the version
    "errors": 0,
    "units": 0,
    "names": 0,
    "children": 0,
    "toolkit.versions": 1,
    "result.names": 1,
    "model_files": 1,
    "options": 2,
    "source": 3,
    "calibration": 3,
    "result": 3,
    "standin": 3,
    "toolkit": 4,
    "preflight": 4,
    "request": 5,
    "prepare": 6,
    "convert": 7,
    "batch": 7,
    "cli": 8,
    "__main__": 9,
}
"""The longest name that a module begins with counts. A part may import itself, and parts on lower floors."""

PUBLIC = {
    "calibration": ["DEFAULT_SAMPLES", "ChatTemplate", "advice", "build", "dataset_hash"],
    "convert": ["convert", "plan"],
    "options": ["NOT_QUANTISED", "PLATFORMS", "Options", "check"],
    "preflight": ["KINDS", "Disk", "Machine", "Preflight", "preflight", "refuse", "titled"],
    "request": ["DEFAULT_RAM_MB", "IGNORABLE", "NO_TOKENIZER", "STAND_IN", "Outcome", "Request", "Watcher"],
    "result.record": [
        *("FILE_NAME", "FileRecord", "Record", "hash_file", "identity", "read_record", "write_record"),
    ],
    "result.verify": ["is_whole", "verify"],
    "source": ["Source", "check_folder", "fetch", "look"],
    "standin": ["write_stand_in"],
    "toolkit.calls": ["Call", "Inputs", "calls"],
    "toolkit.door": ["Found", "find", "has_gpu", "run"],
}
"""What a program that uses this package may rely on."""


def part_of(module: str) -> str:
    name = module.partition(".")[2]
    parts = [name.rsplit(".", cut)[0] for cut in range(name.count(".") + 1)]
    return next((one for one in parts if one in FLOORS), name.partition(".")[0] if "." in name else "")


def imported(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def offences(module: str, source: str) -> list[str]:
    own = part_of(module)
    found = []
    for line, name in imported(source):
        part = part_of(name)
        if name.partition(".")[0] == "rkllm_converter" and part != own and FLOORS[part] >= FLOORS[own]:
            found.append(f"{module}:{line} on floor {own!r} imports {name}")
    return found


def modules() -> list[tuple[str, str]]:
    return [
        (
            ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"),
            path.read_text("utf-8"),
        )
        for path in sorted(ROOT.rglob("*.py"))
    ]


def test_imports_run_one_way() -> None:
    assert len(modules()) > 50
    assert [one for module, source in modules() for one in offences(module, source)] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rkllm_converter.source.hub", "from rkllm_converter.preflight import refuse"),
        ("rkllm_converter.options", "from rkllm_converter.toolkit.calls import Call"),
        ("rkllm_converter.errors", "def f():\n    from rkllm_converter.units import gb"),
        ("rkllm_converter.convert", "import rkllm_converter.batch.running"),
    ],
)
def test_an_import_against_the_floors_is_found(module: str, source: str) -> None:
    assert offences(module, source)


def test_an_import_along_the_floors_is_none() -> None:
    assert offences("rkllm_converter.options", "from rkllm_converter.toolkit.versions import toolkit") == []
    assert offences("rkllm_converter.cli.main", "from rkllm_converter import __version__") == []


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_pinned(name: str) -> None:
    assert sorted(importlib.import_module(f"rkllm_converter.{name}").__all__) == sorted(PUBLIC[name])


def test_every_error_is_in_the_tree_that_is_drawn() -> None:
    drawn = [line.strip("│├└─ ").split(" ")[0] for line in (errors.__doc__ or "").splitlines() if line.strip()]
    kinds = {name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)}
    assert kinds - {"Exception"} == {name for name in drawn if name in vars(errors)}
    assert kinds <= set(errors.__all__)
