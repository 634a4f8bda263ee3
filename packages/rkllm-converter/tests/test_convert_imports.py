"""What the package imports, that importing has no effects, and its public names."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rkllm_converter
import rkllm_facts

ROOT = Path(rkllm_converter.__file__).parent
FACTS = Path(rkllm_facts.__file__).parent
MODULES = sorted(path.relative_to(ROOT.parent).with_suffix("").as_posix() for path in ROOT.rglob("*.py"))
OTHERS = {"huggingface_hub", "jinja2", "yaml"}
"""Loaded where they are needed, and only then."""

BY_ITSELF = {"rkllm_converter/toolkit/runner", "rkllm_converter/toolkit/make_tokenizer"}
"""Files that run in the Python of the toolkit."""

PROGRAM = """
import json, sys
effects = []

def hook(event, args):
    if event in {"ctypes.dlopen", "subprocess.Popen", "socket.connect", "os.mkdir", "os.putenv", "os.exec"}:
        effects.append(event)

roots, names = json.loads(sys.argv[1]), json.loads(sys.argv[2])
sys.path[:0] = roots
sys.addaudithook(hook)
for name in names:
    __import__(name)
print(json.dumps({"effects": effects, "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


@pytest.mark.parametrize("module", MODULES)
def test_nothing_but_the_facts_and_few_libraries_is_imported(module: str) -> None:
    tree = ast.parse((ROOT.parent / f"{module}.py").read_text(encoding="utf-8"))
    roots = {name.partition(".")[0] for name in imports(tree)}
    own = roots - set(sys.stdlib_module_names)
    if module in BY_ITSELF or module.startswith("rkllm_converter/standin/"):
        assert own <= {"transformers", "rkllm_converter", ""}  # relative: a stand-in has another name where it is used
    else:
        assert own <= {"rkllm_converter", "rkllm_facts", *OTHERS}


@pytest.mark.slow
def test_importing_has_no_effects_and_loads_no_library() -> None:
    names = [name.replace("/", ".").removesuffix(".__init__") for name in MODULES]
    names = [name for name in names if "standin." not in name and not name.endswith("__main__")]
    assert told_of("-IB", names)["effects"] == []
    command = told_of("-SB", ["rkllm_converter.cli.main"])  # without libraries
    assert command["effects"] == []
    assert not OTHERS & set(command["modules"])


def told_of(flag: str, names: list[str]) -> dict[str, list[str]]:
    """What happens in a new Python that imports these."""
    roots = json.dumps([str(ROOT.parent), str(FACTS.parent)])
    done = subprocess.run(
        [sys.executable, flag, "-c", PROGRAM, roots, json.dumps(names)], capture_output=True, text=True, check=True
    )
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found
