"""Nothing but the standard library is imported, and importing reads no data. The public names are pinned."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import rkllm_facts

ROOT = Path(rkllm_facts.__file__).parent
MODULES = sorted(path.relative_to(ROOT.parent).with_suffix("").as_posix() for path in ROOT.rglob("*.py"))

PROGRAM = """
import json, sys
opened, effects = [], []

def hook(event, args):
    if event == "open" and isinstance(args[0], str):
        opened.append(args[0])
    elif event in {"ctypes.dlopen", "subprocess.Popen", "socket.connect", "os.mkdir"}:
        effects.append(event)

root, names = sys.argv[1], json.loads(sys.argv[2])
sys.path.insert(0, root)
sys.addaudithook(hook)
for name in names:
    __import__(name)
print(json.dumps({
    "data": [name for name in opened if name.endswith((".json", ".csv"))],
    "effects": effects,
    "modules": sorted({name.partition(".")[0] for name in sys.modules}),
}))
"""

PUBLIC = {
    "rkllm_facts.abi": [
        "DOCUMENTED_DEFAULTS",
        "SCALARS",
        "SUPPORTED",
        "UNDOCUMENTED_SYMBOLS",
        "CType",
        "Enum",
        "Features",
        "Field",
        "Function",
        "Header",
        "Layout",
        "MarkerScanner",
        "Parameter",
        "Release",
        "Struct",
        "Version",
        "known_symbols",
        "layout",
        "layout_by_default_param",
        "layout_for_release",
        "layouts",
        "layouts_with_symbols",
        "probe_buffer",
        "releases",
        "version_marker",
    ],
    "rkllm_facts.chips": [
        "CHIPS",
        "GGUF_EQUIVALENTS",
        "Chip",
        "check_group_size",
        "check_type",
        "chip",
        "group_size",
        "legal_types",
    ],
    "rkllm_facts.architecture": [
        "Architecture",
        "KnownModel",
        "Matrix",
        "architecture_of",
        "gguf_architecture",
        "known_architecture",
        "known_model",
        "known_models",
    ],
    "rkllm_facts.gguf": ["Header", "Value", "read_header", "read_metadata"],
    "rkllm_facts.planner": [
        "LEAST_CONTEXT",
        "LONGEST_CONTEXT",
        "USUAL_TYPES",
        "Calibration",
        "Errors",
        "Part",
        "Plan",
        "Remedy",
        "Spread",
        "asked_mb",
        "calibration",
        "memory_of_file",
        "plan",
        "remedies",
        "reserved_mb",
        "usual_type",
    ],
    "rkllm_facts.benchmark": ["BenchmarkRow", "MultimodalRow", "find", "find_multimodal", "multimodal_rows", "rows"],
    "rkllm_facts.errors": [
        "BadGguf",
        "BadPlan",
        "FactsError",
        "GroupSizeMismatch",
        "IllegalType",
        "IncompleteConfig",
        "UnknownArchitecture",
        "UnknownChip",
        "UnknownLayout",
        "UnknownModel",
        "UnknownVersion",
        "UnsupportedVersion",
    ],
}


def foreign(source: str) -> list[str]:
    """Top names of what a module imports from neither the standard library nor this package; relative ones too."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append("." * node.level + (node.module or ""))
    known = {*sys.stdlib_module_names, "rkllm_facts"}
    return [name for name in found if name.partition(".")[0] not in known]


def test_every_import_is_of_the_standard_library_or_of_this_package() -> None:
    sources = {name: (ROOT.parent / f"{name}.py").read_text(encoding="utf-8") for name in MODULES}
    assert len(sources) > 8
    assert {name: foreign(source) for name, source in sources.items() if foreign(source)} == {}


@pytest.mark.parametrize(
    "source", ["import exo", "from exo.types import Delta", "def f():\n    import msgspec", "from .. import x"]
)
def test_a_foreign_import_would_be_found(source: str) -> None:
    assert len(foreign(source)) == 1


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """All modules imported by an interpreter that has no site-packages."""
    names = [name.replace("/", ".").removesuffix(".__init__") for name in MODULES]
    done = subprocess.run(
        [sys.executable, "-B", "-S", "-I", "-c", PROGRAM, str(ROOT.parent), json.dumps(names)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path_factory.mktemp("elsewhere"),
        timeout=60,
    )
    report: dict[str, list[str]] = json.loads(done.stdout)
    return report


def test_importing_needs_no_other_package(imported: dict[str, list[str]]) -> None:
    assert set(imported["modules"]) - set(sys.stdlib_module_names) == {"rkllm_facts", "__main__"}


def test_importing_reads_no_data_and_has_no_effects(imported: dict[str, list[str]]) -> None:
    assert imported["data"] == []
    assert imported["effects"] == []


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_pinned(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__all__ == PUBLIC[name]
    found = [getattr(module, public) for public in PUBLIC[name]]
    assert [one.__name__ for one in found if callable(one) and not one.__doc__] == []


def test_every_error_is_in_the_tree_that_is_drawn() -> None:
    errors = importlib.import_module("rkllm_facts.errors")
    drawn = errors.__doc__
    assert drawn is not None
    assert all(name in drawn for name in PUBLIC["rkllm_facts.errors"])
    assert all(issubclass(getattr(errors, name), ValueError) for name in PUBLIC["rkllm_facts.errors"])
