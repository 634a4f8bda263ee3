"""docs/CONVERSION.md: tables, commands, keys and texts of errors are those of the code."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from converter_models import small_model

import rkllm_converter.errors
from document_support import blocks_of
from exo.cli.main import make_parser as make_exo_parser
from exo_rkllm import memory
from exo_rkllm.cli.main import make_parser as make_rkllama_parser
from rkllm_converter.batch.keys import CONVERSION_KEYS, MODEL_KEYS, TOP_KEYS
from rkllm_converter.batch.reading import read_bytes
from rkllm_converter.cli.main import make_parser
from rkllm_converter.errors import ConvertError
from rkllm_facts.architecture import known_architecture
from rkllm_facts.planner import asked_mb, plan
from support import REPOSITORY

PAGE = REPOSITORY / "docs/CONVERSION.md"
README = REPOSITORY / "packages/rkllm-converter/README.md"
TOOL = REPOSITORY / "tools/conversion_tables.py"
SOURCE = REPOSITORY / "packages/rkllm-converter/src/rkllm_converter"
BLOCKS = blocks_of(PAGE)
PARSERS = {"rkllm-convert": make_parser, "rkllama": make_rkllama_parser, "exo": make_exo_parser}
ISSUE = re.compile(r"\[(?:[\w-]+)?#(\d+)\]\(https://github\.com/[\w.-]+/[\w.-]+/issues/(\d+)\)")


def text() -> str:
    return PAGE.read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The table below a heading, without its head."""
    section = text().partition(f"\n{heading}\n")[2]
    assert section, heading
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table[0].splitlines()[2:]]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("conversion_tables", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_what_the_code_makes_today(tool: ModuleType) -> None:
    assert tool.rendered(text()) == text(), "run tools/conversion_tables.py"
    assert len(tool.tables()) > 6


def test_a_page_that_lacks_a_table_is_refused(tool: ModuleType) -> None:
    with pytest.raises(ValueError, match="cache"):
        tool.rendered(text().replace("<!-- table: cache -->", ""))


def test_the_margin_of_the_tables_is_the_one_that_a_node_asks_for() -> None:
    for name, quant in (("Qwen2.5-1.5B-Instruct", "w8a8"), ("Qwen2.5-7B-Instruct", "w8a8")):
        found = plan(known_architecture(name), platform="rk3588", dtype=quant)
        asked = memory.planned(round(found.file_mb * memory.MIB), found.architecture, found.context, "rk3588")
        assert asked is not None
        assert asked.total / memory.MIB == pytest.approx(asked_mb(found), abs=0.01)


def commands() -> list[list[str]]:
    found = []
    for block in BLOCKS:
        for line in block.text.splitlines() if block.language == "sh" else ():
            words = shlex.split(line.partition(" #")[0].partition(" >")[0])
            start = next((at for at, word in enumerate(words) if word in PARSERS), None)
            if start is not None:
                found.append(words[start:])
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_is_one_that_the_program_takes(words: list[str]) -> None:
    assert PARSERS[words[0]]().parse_args(words[1:]) is not None  # else it has ended by SystemExit


def block_with(page: Path, words: str) -> list[str]:
    """Its commands, without what is said of them."""
    (found,) = [block.text for block in blocks_of(page) if block.language == "sh" and words in block.text]
    return [line.partition(" #")[0].strip() for line in found.splitlines()]


@pytest.mark.slow
def test_the_way_with_the_simulator_goes_from_beginning_to_end(tmp_path: Path) -> None:
    """But for `make setup`, of which the commands are there already, and the server itself."""
    setup, activate, *lines, serve = block_with(PAGE, "rkllm-sim build")
    assert (setup, activate) == ("make setup", ". .venv/bin/activate")
    small_model(tmp_path / "FOLDER")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "RKLLM_TOOLKIT_PYTHON": "/nowhere/python"}
    subprocess.run(["bash", "-euc", "\n".join(lines)], cwd=tmp_path, env=environment, check=True, timeout=120)
    assert serve == "RKLLM_LIB=$PWD/npu/lib rkllama serve --models models"
    assert (tmp_path / "npu/lib/librkllmrt.so").is_file()
    assert (tmp_path / "models/tiny/Modelfile").is_file()


def test_the_package_says_the_same_of_toolkit_and_simulator() -> None:
    for words in ("BUILD_CUDA_EXT", "rkllm-sim build"):
        here, there = block_with(PAGE, words), block_with(README, words)
        assert len(there) > 2
        assert [line for line in there if line not in here and not line.startswith("export")] == []


def test_there_are_commands_for_both_chips() -> None:
    whole = [" ".join(words) for words in commands()]
    for chip in ("rk3588", "rk3576"):
        assert any(f"--platform {chip}" in line and "--dry-run" in line for line in whole)
    assert any(line.startswith("rkllm-convert verify") for line in whole)
    assert any(line.startswith("rkllama run") for line in whole)


def flags(parser: argparse.ArgumentParser, command: str) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices[command]._actions:
                yield from (option for option in one.option_strings if option.startswith("--"))


@pytest.mark.parametrize("command", ["model", "batch", "stand-in"])
def test_every_flag_is_named(command: str) -> None:
    known = set(flags(make_parser(), command)) - {"--help"}
    assert len(known) > 0
    assert sorted(known - set(re.findall(r"--[a-z][a-z-]*", text()))) == []


def test_every_key_of_a_batch_is_named_and_no_other() -> None:
    named = [key for keys, *_ in rows("## Many models") for key in re.findall(r"`(\w+)`", keys)]
    assert len(named) == len(set(named))
    assert set(named) == {*TOP_KEYS, *MODEL_KEYS, *CONVERSION_KEYS}


def test_the_example_of_a_batch_is_read_as_the_page_says() -> None:
    (example,) = [block.text for block in BLOCKS if block.language == "yaml"]
    models = read_bytes(example.encode(), Path("models.yaml"))
    assert [one.name for one in models.conversions] == ["qwen2.5-1.5b-instruct-rk3588-w8a8", "qwen-small"]
    assert all(one.options["max_context"] == 16384 for one in models.conversions)
    unnamed = read_bytes(example.replace("name: qwen-small", "seed: 0 ").encode(), Path("models.yaml"))
    assert f"without it: {unnamed.conversions[1].name}\n" in example


def kinds(root: type[ConvertError] = ConvertError) -> Iterator[type[ConvertError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == rkllm_converter.errors.__name__:
            yield from kinds(child)


@cache
def sentences() -> frozenset[str]:
    """Every text in the source, with a NUL for each value that is put in."""
    found = set()
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.add("".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return frozenset(found)


def own_errors() -> list[Any]:
    return [pytest.param(kind, quoted, id=quoted) for kind, quoted, _ in rows("### Of rkllm-convert")]


@pytest.mark.parametrize(("kind", "quoted"), own_errors())
def test_a_text_of_ours_is_in_the_code(kind: str, quoted: str) -> None:
    literal = quoted.strip("`")
    flag = re.match(r"(--[a-z-]+)(?: …)?: ", literal)
    if flag is not None:  # the flag before a sentence is put there by errors.Problem
        assert flag[1] in {*flags(make_parser(), "model"), *flags(make_parser(), "batch"), "--model"}
        literal = literal[flag.end() :]
    pattern = re.compile(".*".join(re.escape(part) for part in literal.split("…")), re.DOTALL)
    assert len(literal.replace("…", "").strip()) > 10
    assert any(pattern.search(one) for one in sentences())
    assert kind.strip("`") in {one.__name__ for one in kinds()}


def test_every_type_of_error_is_told_of() -> None:
    told = {kind.strip("`") for kind, *_ in rows("### Of rkllm-convert")}
    leaves = {one.__name__ for one in kinds() if not one.__subclasses__()}
    assert leaves - told == set()


@pytest.mark.parametrize("heading", ["### Of the toolkit", "### On the board"])
def test_what_others_reported_has_its_source(heading: str) -> None:
    table = rows(heading)
    assert len(table) > 10
    for *_, sources in table:
        found = ISSUE.findall(sources)
        assert found
        assert all(named == linked for named, linked in found)
        assert re.sub(r"[,\s]", "", ISSUE.sub("", sources)) == ""


def test_links_to_parts_of_a_page_lead_there() -> None:
    links = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text())
    assert len(links) > 10
    for file, part in links:
        page = (PAGE.parent / file).read_text(encoding="utf-8") if file else text()
        titles = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
        assert part in [re.sub(r"[^a-z0-9 -]", "", one.lower()).replace(" ", "-") for one in titles], part
