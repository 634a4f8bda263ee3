"""Importing the binding loads nothing and reads nothing; the public names are pinned."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from exo_rkllm import runtime
from exo_rkllm.runtime import errors

ROOT = Path(runtime.__file__).parent
SOURCES = sorted(ROOT.glob("*.py"))

PROGRAM = """
import json, os, sys
effects, environment, watch = [], [], [False]

def hook(event, args):
    if watch[0] and event in {"ctypes.dlopen", "subprocess.Popen", "socket.connect", "os.mkdir"}:
        effects.append([event, str(args[0])])
    if watch[0] and event == "open" and not str(args[0]).endswith((".py", ".pyc")):
        effects.append([event, str(args[0])])

class Environment(type(os.environ)):
    def __getitem__(self, key):
        environment.append(key)
        return super().__getitem__(key)

import ctypes, dataclasses, re, threading, platform, struct, array, contextlib, enum, logging, importlib.resources
import rkllm_facts.abi
os.environ.__class__ = Environment
sys.addaudithook(hook)
watch[0] = True
before = set(sys.modules)
import exo_rkllm.runtime
watch[0] = False
print(json.dumps({"effects": effects, "environment": environment, "modules": sorted(set(sys.modules) - before)}))
"""

PUBLIC = [
    "CallFailed",
    "LayoutMismatch",
    "Library",
    "LibraryNotFound",
    "LibraryNotLoadable",
    "LoadFailed",
    "LoadOptions",
    "ModelBusy",
    "ModelDestroyed",
    "NotInThisVersion",
    "NpuError",
    "NpuModel",
    "Perf",
    "RunOutcome",
    "SamplingOptions",
    "SymbolMissing",
    "VersionUnknown",
    "check_library",
    "find_library",
    "library_marker",
    "open_library",
]


def imported(source: str) -> set[str]:
    """Dotted names of the modules that a source imports, relative ones with their dots."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


def foreign(source: str) -> set[str]:
    own = {name for name in imported(source) if name.startswith(("exo_rkllm.runtime", "rkllm_facts"))}
    return {name for name in imported(source) - own if name.partition(".")[0] not in sys.stdlib_module_names}


def test_only_the_standard_library_and_rkllm_facts_are_imported() -> None:
    assert len(SOURCES) > 10
    assert {path.name: foreign(path.read_text(encoding="utf-8")) for path in SOURCES} == {
        path.name: set() for path in SOURCES
    }


@pytest.mark.parametrize(
    "source", ["import exo", "from exo_rkllm.engine import x", "from . import y", "import msgspec"]
)
def test_a_foreign_import_would_be_found(source: str) -> None:
    assert foreign(source)


def test_importing_has_no_effects() -> None:
    done = subprocess.run([sys.executable, "-B", "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    report = json.loads(done.stdout)
    assert report["effects"] == []
    assert report["environment"] == []
    names = {name.partition(".")[0] for name in report["modules"]}
    assert names - set(sys.stdlib_module_names) == {"exo_rkllm"}


def test_public_names_are_pinned() -> None:
    assert runtime.__all__ == PUBLIC
    assert [name for name in PUBLIC if not getattr(runtime, name).__doc__] == []


def test_every_error_is_in_the_tree_that_is_drawn() -> None:
    assert errors.__doc__ is not None
    for name in errors.__all__:
        assert name in errors.__doc__
        assert issubclass(getattr(errors, name), errors.NpuError)
        assert name in runtime.__all__
    drawn = {word for word in errors.__doc__.split() if word.isidentifier() and word[0].isupper() and word != "What"}
    assert set(errors.__all__) <= drawn
