"""The documents say what the code does."""

from __future__ import annotations

import argparse
import ast
import re
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

import exo.api.errors
import rkllm_sim.cli
from exo.cli.main import make_parser
from exo.cli.settings import RUN_SETTINGS, SERVE_SETTINGS
from exo.inference import Capability, NodeMetrics
from exo.inference.dummy import DummyEngine
from exo.inference.llamacpp.engine import LlamaCppEngine
from exo.inference.remote.engine import RemoteEngine
from exo.types import ExoError, OperatorError
from exo_rkllm.cli.main import make_parser as make_rkllama_parser
from exo_rkllm.cli.settings import CLIENT_SETTINGS
from exo_rkllm.cli.settings import SERVE_SETTINGS as RKLLAMA_SETTINGS
from exo_rkllm.engine import RKLLMInferenceEngine
from exo_rkllm.metrics import NpuMetrics
from exo_rkllm.settings import NPU_SETTINGS
from support import REPOSITORY

DOCS = REPOSITORY / "docs"
SOURCE = REPOSITORY / "packages"


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def errors(root: type[ExoError] = ExoError) -> Iterator[type[ExoError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__.startswith("exo."):
            yield from errors(child)


def test_every_setting_is_documented_as_it_is() -> None:
    rows = [line for line in read("docs/SETTINGS.md").splitlines() if line.startswith("|")]
    for setting in SERVE_SETTINGS:
        row = next(row for row in rows if f"`{setting.env}`" in row)
        assert setting.help in row
        assert all(f"`{flag}{' ' + setting.metavar if setting.metavar else ''}`" in row for flag in setting.flags)
        assert not setting.default or f"`{setting.default}`" in row
    for setting in RUN_SETTINGS:
        assert setting.env in read("docs/SETTINGS.md")


def test_every_setting_of_rkllama_is_documented_as_it_is() -> None:
    section = re.search(r"^## rkllama\n(.*?)^## ", read("docs/SETTINGS.md"), re.MULTILINE | re.DOTALL)
    assert section is not None
    rows = re.findall(r"^\| (.*?) \| `(\w+)` \| (.*?) \| (.*) \|$", section[1], re.MULTILINE)
    assert [(env, default, text) for _, env, default, text in rows] == [
        (setting.env, f"`{setting.default}`" if setting.default else "", setting.help) for setting in RKLLAMA_SETTINGS
    ]
    for setting, (flags, *_) in zip(RKLLAMA_SETTINGS, rows):
        assert re.findall(r"`(\S+)(?: \w+)?`", flags) == list(setting.flags)
    assert all(setting.env in section[1] for setting in CLIENT_SETTINGS)


def test_every_variable_in_the_source_is_documented_and_no_other() -> None:
    found = {
        match
        for file in SOURCE.glob("*/src/**/*.py")
        for match in re.findall(r"\bEXO_[A-Z0-9_]+\b", file.read_text(encoding="utf-8"))
    }
    assert found == set(re.findall(r"\bEXO_[A-Z0-9_]+\b", read("docs/SETTINGS.md")))


def test_every_setting_of_the_npu_is_documented_as_it_is() -> None:
    section = re.search(r"^## The engine rkllm\n(.*?)^## ", read("docs/SETTINGS.md"), re.MULTILINE | re.DOTALL)
    assert section is not None
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", section[1], re.MULTILINE)
    assert rows == [
        (setting.env, f"`{setting.default}`" if setting.default else "", setting.help) for setting in NPU_SETTINGS
    ]


def test_no_variable_is_read_past_the_settings_of_the_npu() -> None:
    found = {
        match
        for file in SOURCE.glob("exo-rkllm/src/**/*.py")
        for match in re.findall(r"env(?:iron)?(?:\.get\(|\[)\"(\w+)\"", file.read_text(encoding="utf-8"))
    }
    assert found <= {setting.env for setting in NPU_SETTINGS} | {"HOME"}


@pytest.mark.parametrize(("prefix", "kind"), [("exo", NodeMetrics), ("rkllm", NpuMetrics)])
def test_every_metric_is_documented_with_its_labels_and_no_other(
    prefix: str, kind: type[NodeMetrics | NpuMetrics]
) -> None:
    table = {}
    for row in re.findall(rf"^\| `({prefix}_\w+)` \| (\w+) \| (.*?) \|", read("docs/METRICS.md"), re.MULTILINE):
        name, shape, labels = row
        table[name] = (shape, tuple(re.findall(r"`(\w+)`", labels)))
    registry = CollectorRegistry()
    metrics = kind(registry)
    real = {}
    for collector in vars(metrics).values():
        if collector is registry:
            continue
        for family in collector.describe():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labelled = family if hasattr(family, "_labelnames") else collector
            real[name] = (family.type, labelled._labelnames)
    assert table == real


def test_every_error_code_has_a_heading_and_its_status() -> None:
    sections = dict(
        re.findall(r"^## (\w+)\n(.*?)(?=\n## |\Z)", read("docs/TROUBLESHOOTING.md"), re.MULTILINE | re.DOTALL)
    )
    codes = {kind.code: kind for kind in errors()}
    assert set(sections) == set(codes)
    for code, kind in codes.items():
        if issubclass(kind, OperatorError):
            continue
        status = next(exo.api.errors.STATUS[parent] for parent in kind.__mro__ if parent in exo.api.errors.STATUS)
        assert f"Status {status}." in sections[code], code


def simulator_commands() -> Iterator[str]:
    for action in rkllm_sim.cli.make_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices


def commands_of(parser: argparse.ArgumentParser) -> list[str]:
    commands = parser._subparsers
    assert commands is not None
    choices = commands._group_actions[0].choices
    assert choices is not None
    return list(choices)


def test_the_readme_names_every_command() -> None:
    assert set(simulator_commands()) >= {"build", "model"}
    text = read("README.md")
    assert all(f"exo {name}" in text for name in commands_of(make_parser()))
    rkllama = set(commands_of(make_rkllama_parser())) - {"ls"}  # another name of list
    assert rkllama > {"serve", "create"}
    assert all(f"rkllama {name}" in text for name in rkllama)
    assert all(f"rkllm-sim {name}" in text for name in simulator_commands())
    targets = re.findall(r"^([a-z-]+):.*##", read("Makefile"), re.MULTILINE)
    assert set(targets) - {"help", "lock", "clean"} <= set(re.findall(r"make ([a-z-]+)", text))


def test_the_capabilities_of_every_engine_are_documented() -> None:
    table = re.findall(
        r"^\| `(\w+)` \| [^|]+ \| (\w+) \| (\w+) \| (\w+) \| (\w+) \|$", read("docs/API_COVERAGE.md"), re.MULTILINE
    )
    engines = (LlamaCppEngine, RKLLMInferenceEngine, RemoteEngine, DummyEngine)
    told = [{name for name, *row in table if row[column] == "yes"} for column in range(len(engines))]
    assert told == [engine.capabilities for engine in engines]
    assert {name for name, *_ in table} == set(typing.get_args(Capability)) - {"vision"}  # no engine has it


def test_links_between_documents_lead_somewhere() -> None:
    readmes = [REPOSITORY / "README.md", *REPOSITORY.glob("examples/*/README.md"), *SOURCE.glob("*/README.md")]
    readmes += REPOSITORY.glob("deploy/*/README.md")
    for file in [*readmes, *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", file.read_text(encoding="utf-8")):
            assert (file.parent / target).exists(), f"{file.name}: {target}"


def test_every_dependency_has_its_reason() -> None:
    table = read("docs/ARCHITECTURE.md").partition("## Dependencies")[2]
    named, own = set(), set()
    for file in [*SOURCE.glob("*/pyproject.toml")]:
        text = file.read_text(encoding="utf-8")
        named |= set(re.findall(r'"([a-z0-9-]+)[<>=]', text))
        own |= set(re.findall(r'^name = "(.+)"$', text, re.MULTILINE))
    named |= {
        line for line in read("requirements-dev.txt").split("\n") if line and not line.startswith(("#", "types-"))
    }
    named -= own | {"typing-extensions"}  # a backport, not a choice
    assert {"tokenizers", "jinja2", "hatchling", "pytest"} <= named
    missing = {name for name in named if not re.search(rf"^\|[^|]*\b{name}\b[^|]*\|", table, re.MULTILINE)}
    assert not missing


def test_python_in_the_documents_parses() -> None:
    for file in [REPOSITORY / "README.md", *DOCS.glob("*.md")]:
        for block in re.findall(r"```python\n(.*?)```", file.read_text(encoding="utf-8"), re.DOTALL):
            ast.parse(textwrap.dedent(block))


def test_no_document_names_a_path_of_a_developer() -> None:
    for file in [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *DOCS.glob("*.md")]:
        text = file.read_text(encoding="utf-8")
        assert str(Path.home()) not in text or str(Path.home()) == "/"
        assert str(REPOSITORY) not in text
