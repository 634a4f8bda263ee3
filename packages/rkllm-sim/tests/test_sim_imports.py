"""Nothing but the standard library and rkllm_facts is imported, xllamacpp by the child process only; importing has no
effects. The public names are pinned."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rkllm_facts
import rkllm_sim

ROOT = Path(rkllm_sim.__file__).parent
FACTS = Path(rkllm_facts.__file__).parent
MODULES = sorted(path.relative_to(ROOT.parent).with_suffix("").as_posix() for path in ROOT.rglob("*.py"))
NATIVE = "xllamacpp"

PROGRAM = """
import json, sys
opened, effects = [], []

def hook(event, args):
    if event == "open" and isinstance(args[0], str):
        opened.append(args[0])
    elif event in {"ctypes.dlopen", "subprocess.Popen", "socket.connect", "os.mkdir", "os.putenv", "os.exec"}:
        effects.append(event)

roots, names = json.loads(sys.argv[1]), json.loads(sys.argv[2])
sys.path[:0] = roots
sys.addaudithook(hook)
for name in names:
    __import__(name)
print(json.dumps({
    "data": [name for name in opened if name.endswith((".json", ".csv", ".c", ".h"))],
    "effects": effects,
    "modules": sorted({name.partition(".")[0] for name in sys.modules}),
}))
"""

PUBLIC = {
    "rkllm_sim.cli": ["main", "make_parser"],
    "rkllm_sim.errors": ["BadGguf", "BadOptions", "BadScript", "BadTokenizer", "SimulatorError", "UnknownProfile"],
    "rkllm_sim.gguf": ["Value", "read_metadata"],
    "rkllm_sim.gguf_tokenizer": ["PRE_TOKENIZERS", "GgufModel", "read", "vocabulary"],
    "rkllm_sim.llama": ["Lines", "LlamaModel", "Model", "Refused", "Run", "Session", "main"],
    "rkllm_sim.model": [
        "FIRST_LINE",
        "LANGUAGE_MODELS",
        "LanguageModel",
        "ModelOptions",
        "model_text",
        "write_model",
    ],
    "rkllm_sim.pace": ["Pace", "pace", "profile_name", "profiles"],
    "rkllm_sim.records": ["FAULTS", "check_fault", "check_script"],
    "rkllm_sim.templates": ["CHATML", "POSTFIX", "PREFIX", "THINKING"],
    "rkllm_sim.tokenizer": [
        "FILES",
        "TURN_BEGIN",
        "TokenizerFiles",
        "as_json",
        "byte_level",
        "copied",
        "small",
        "tokenizer_json",
        "words",
    ],
    "rkllm_sim.vocabulary": [
        "Vocabulary",
        "byte_alphabet",
        "byte_level_bytes",
        "byte_level_text",
        "from_tokenizer_json",
        "plain_range",
    ],
}


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of what is imported anywhere below; relative ones begin with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def foreign(source: str) -> list[str]:
    known = {*sys.stdlib_module_names, "rkllm_facts", "rkllm_sim"}
    return [name for name in imports(ast.parse(source)) if name.partition(".")[0] not in known]


def test_every_import_is_of_the_standard_library_or_of_rkllm_facts() -> None:
    sources = {name: (ROOT.parent / f"{name}.py").read_text(encoding="utf-8") for name in MODULES}
    assert len(sources) > 8
    found = {name: foreign(source) for name, source in sources.items() if foreign(source)}
    assert found == {"rkllm_sim/llama": [NATIVE]}


@pytest.mark.parametrize(
    "source", ["import exo", "from exo.types import Delta", "def f():\n    import tokenizers", "from . import x"]
)
def test_a_foreign_import_would_be_found(source: str) -> None:
    assert len(foreign(source)) == 1


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """All modules imported by an interpreter that has no site-packages."""
    names = [name.replace("/", ".").removesuffix(".__init__") for name in MODULES]
    done = subprocess.run(
        [
            *(sys.executable, "-B", "-S", "-I", "-c", PROGRAM),
            json.dumps([str(ROOT.parent), str(FACTS.parent)]),
            json.dumps(names),
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path_factory.mktemp("elsewhere"),
        timeout=60,
    )
    report: dict[str, list[str]] = json.loads(done.stdout)
    return report


def test_importing_needs_no_other_package(imported: dict[str, list[str]]) -> None:
    assert set(imported["modules"]) - set(sys.stdlib_module_names) == {"rkllm_facts", "rkllm_sim", "__main__"}


def test_importing_reads_no_data_and_has_no_effects(imported: dict[str, list[str]]) -> None:
    assert imported["data"] == []
    assert imported["effects"] == []


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_pinned(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__all__ == PUBLIC[name]
    assert [public for public in PUBLIC[name] if not hasattr(module, public)] == []


def test_every_error_is_in_the_tree_that_is_drawn() -> None:
    errors = importlib.import_module("rkllm_sim.errors")
    drawn = errors.__doc__
    assert drawn is not None
    assert all(name in drawn for name in PUBLIC["rkllm_sim.errors"])
    assert all(issubclass(getattr(errors, name), errors.SimulatorError) for name in PUBLIC["rkllm_sim.errors"])
