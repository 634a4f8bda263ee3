"""docs/PLUGIN_GUIDE.md against examples/exo-echo and against the contract that it explains."""

from __future__ import annotations

import inspect
import re
import typing

import pytest

from exo.cli.main import COMMANDS_GROUP
from exo.inference import Capability, InferenceEngine
from exo.inference.plugins import DETECTORS_GROUP, ENGINES_GROUP, MODELS_GROUP
from exo.types import (
    ChatRequest,
    CompletionRequest,
    Delta,
    EmbeddingRequest,
    Limits,
    Message,
    ModelCard,
    Sampling,
    Usage,
)
from support import REPOSITORY, fenced_blocks

GUIDE = REPOSITORY / "docs" / "PLUGIN_GUIDE.md"
ECHO = REPOSITORY / "examples" / "exo-echo"
TEXT = GUIDE.read_text(encoding="utf-8")
SOURCES = {
    str(path.relative_to(ECHO)): path.read_text(encoding="utf-8")
    for pattern in ("pyproject.toml", "src/*/*.py", "tests/*.py")
    for path in ECHO.glob(pattern)
}
METHODS = [name for name in vars(InferenceEngine) if not name.startswith("_") and name != "name"]


@pytest.mark.parametrize("block", [*fenced_blocks(GUIDE, "python"), *fenced_blocks(GUIDE, "toml")])
def test_every_block_of_code_is_in_the_example(block: str) -> None:
    assert [name for name, source in SOURCES.items() if f"\n{block}" in source]


def test_blocks_of_code_have_a_language_that_a_test_knows() -> None:
    fences = re.findall(r"^```(.*)$", TEXT, re.MULTILINE)
    assert set(fences[::2]) == {"python", "toml", "sh", "text"}
    assert set(fences[1::2]) == {""}


def test_the_tree_shows_the_files_of_the_example() -> None:
    (tree,) = fenced_blocks(GUIDE, "text")
    shown = {line.split()[-1] for line in tree.splitlines()[1:]}
    there = {
        str(path.relative_to(ECHO)) for path in ECHO.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert shown == there


@pytest.mark.parametrize("name", ["pyproject.toml", *(name for name in SOURCES if name.endswith(".py"))])
def test_every_file_with_content_has_its_section(name: str) -> None:
    assert name.endswith("__init__.py") or f"\n## {name}\n" in TEXT


def test_the_commands_of_the_examples_readme_are_those_of_the_guide() -> None:
    commands = "".join(fenced_blocks(GUIDE, "sh")).splitlines()
    in_readme = "".join(fenced_blocks(ECHO / "README.md", "sh")).splitlines()
    assert in_readme == [line for line in commands if line in in_readme]


@pytest.mark.parametrize("name", METHODS)
def test_the_whole_contract_is_explained(name: str) -> None:
    assert re.search(rf"`{name}[`(]", TEXT)


@pytest.mark.parametrize("name", [*ModelCard.__struct_fields__, *typing.get_args(Capability)])
def test_card_fields_and_capabilities_are_explained(name: str) -> None:
    assert f"`{name}`" in TEXT


@pytest.mark.parametrize("group", [ENGINES_GROUP, MODELS_GROUP, DETECTORS_GROUP, COMMANDS_GROUP])
def test_every_group_of_entry_points_is_explained_and_used(group: str) -> None:
    assert f"| `{group}` |" in TEXT
    assert f'[project.entry-points."{group}"]' in SOURCES["pyproject.toml"]


def test_the_shapes_of_the_methods_are_the_real_ones() -> None:
    source = inspect.getsource(InferenceEngine)
    for name in METHODS:
        if name in ("source_of", "capabilities"):
            continue
        found = re.search(rf"(async )?def ({name}\(.*\) -> [^:]*):", source)
        assert found is not None
        assert found[2] in TEXT, found[2]


@pytest.mark.parametrize(
    "kind", [ChatRequest, CompletionRequest, EmbeddingRequest, Message, Sampling, Limits, Delta, Usage]
)
def test_the_fields_of_the_values_are_listed(kind: type) -> None:
    fields = ", ".join(f"`{name}`" for name in kind.__struct_fields__)  # type: ignore[attr-defined]  # of msgspec
    assert f"| `{kind.__name__}` | {fields} |" in TEXT
