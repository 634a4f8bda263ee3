"""What the package may import, and that importing it does nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import exo_rkllm

ROOT = Path(exo_rkllm.__file__).parent
CONTRACT = {"exo.types", "exo.chat", "exo.models", "exo.inference", "exo.inference.remote"}
LIBRARIES = {"msgspec", "prometheus_client", "rkllm_facts", "tokenizers"}
SERVER = {
    "exo.api",
    "exo.api.dialect",
    "exo.program",
    "exo.cli.entry",
    "exo.cli.notify",
    "exo.cli.progress",
    "exo.cli.settings",
    "exo.cli.tables",
    "exo.cli.values",
}
SERVER_LIBRARIES = {"httpx2", "starlette", "rich"}
"""Of the command and the server rkllama only; nothing else of the package imports these two folders."""
LAZY = {"tokenizers"}
"""Only inside functions: a node that has loaded no model does without."""

PROGRAM = """
import ctypes, importlib, json, sys  # importing ctypes opens the process itself
effects = []

def hook(event, args):
    if event in {"ctypes.dlopen", "subprocess.Popen", "socket.connect", "os.mkdir"}:
        effects.append(event)

names = json.loads(sys.argv[1])
sys.addaudithook(hook)
for name in names:
    importlib.import_module(name)
print(json.dumps({"effects": effects, "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def imports(source: str) -> list[tuple[str, bool]]:
    """Every imported module, and whether that happens when the importing one is imported."""
    tree = ast.parse(source)
    inner = {id(node) for function in ast.walk(tree) if _is_lazy(function) for node in ast.walk(function)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) not in inner) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(("." * node.level + (node.module or ""), id(node) not in inner))
    return found


def _is_lazy(node: ast.AST) -> bool:
    is_typing = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return is_typing or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def modules(folder: str = "") -> dict[str, list[tuple[str, bool]]]:
    paths = sorted((ROOT / folder).rglob("*.py"))
    return {str(path.relative_to(ROOT)): imports(path.read_text(encoding="utf-8")) for path in paths}


def is_allowed(name: str, path: str = "engine.py") -> bool:
    top = name.partition(".")[0]
    if path.startswith(("cli/", "server/")):
        return name in SERVER or top in SERVER_LIBRARIES or top == "exo_rkllm" or is_allowed(name)
    if name.startswith(("exo_rkllm.cli", "exo_rkllm.server")):
        return False
    return name in CONTRACT or top in sys.stdlib_module_names or top in LIBRARIES or top == "exo_rkllm"


def test_only_the_contract_of_exo_and_few_libraries_are_imported() -> None:
    found = modules()
    assert len(found) > 20
    wrong = {(path, name) for path, names in found.items() for name, _ in names if not is_allowed(name, path)}
    assert wrong == set()


def test_heavy_libraries_are_imported_when_they_are_needed() -> None:
    early = {
        (path, name)
        for path, names in modules().items()
        for name, at_once in names
        if at_once and name.partition(".")[0] in LAZY
    }
    assert early == set()


@pytest.mark.parametrize("folder", ["runtime", "worker"])
def test_the_worker_needs_neither_exo_nor_a_library(folder: str) -> None:
    inner = {"exo_rkllm.runtime", "exo_rkllm.worker"}
    for path, names in modules(folder).items():
        for name, _ in names:
            top = name.partition(".")[0]
            assert (
                top in sys.stdlib_module_names
                or top == "rkllm_facts"
                or name.rpartition(".")[0] in inner
                or (name in inner)
            ), (path, name)


@pytest.mark.parametrize(
    "source", ["import exo.api", "from exo.inference.service import x", "import jinja2", "import exo_rkllm.cli.main"]
)
def test_a_wrong_import_would_be_found(source: str) -> None:
    assert not all(is_allowed(name) for name, _ in imports(source))
    assert not all(is_allowed(name, "server/earlier.py") for name in ("exo.api.exchange", "jinja2", "exo.cli.serve"))


def run(names: list[str]) -> dict[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(names)], capture_output=True, text=True, check=True, timeout=60
    )
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_importing_has_no_effects() -> None:
    names = [f"exo_rkllm.{name[:-3].replace('/', '.')}".removesuffix(".__init__") for name in modules()]
    found = run([name for name in names if not name.endswith("__main__")])
    assert found["effects"] == []
    assert "tokenizers" not in found["modules"]


def test_the_worker_process_loads_little() -> None:
    foreign = set(run(["exo_rkllm.worker.process"])["modules"]) - set(sys.stdlib_module_names)
    assert {name for name in foreign if not name.startswith(("_", "sitecustomize", "distutils"))} <= {
        "__main__",
        "exo_rkllm",
        "rkllm_facts",
    }
