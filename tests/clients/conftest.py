"""What drives the suites: the environments of the clients, and the nodes that they talk to."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from npu_board import SimBoard

from clients.models import add_models
from clients.suites.server import Server
from support import BUILTIN_MODEL, Node, own_environment

collect_ignore = ["suites"]  # they run in the environments of the clients

HERE = Path(__file__).parent
KEY = "key-of-the-clients"


@pytest.fixture(scope="session")
def python_of() -> Callable[[str], Path]:
    """The interpreter of an environment in which requirements*.txt is installed; it is kept for the next time."""

    return functools.partial(own_environment, HERE)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory, model_store: Path) -> Iterator[str]:
    """Two nodes that run, as the suites read it: a JSON list of `Server`."""
    with contextlib.ExitStack() as nodes:
        folder = tmp_path_factory.mktemp("llamacpp")
        llamacpp = Node("--models-dir", str(model_store), folder=folder, env={"EXO_API_KEYS": KEY})
        nodes.enter_context(llamacpp)
        board = SimBoard(tmp_path_factory.mktemp("rkllm"))
        add_models(board)
        arguments = ("--inference-engine", "rkllm", "--default-model", "talker")
        rkllm = Node(*arguments, folder=board.home.parent, env=board.env | {"EXO_API_KEYS": KEY})
        nodes.enter_context(rkllm)
        same = dict.fromkeys(("talker", "caller", "reporter", "slow"), BUILTIN_MODEL)
        own = {name: name for name in ("talker", "caller", "reporter", "slow", "thinker", "broken")}
        made = [
            Server(name="llamacpp", url=llamacpp.url, key=KEY, **same),
            Server(name="rkllm", url=rkllm.url, key=KEY, **own),
        ]
        yield json.dumps([asdict(server) for server in made])
