"""The official clients against real nodes: suites/test_CLIENT.py in the environment of the client.

Every suite has the same topics; its tests are named for them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from clients.suites.server import VARIABLE
from support import run, unpinned

HERE = Path(__file__).parent
SUITES = HERE / "suites"
SERVERS = ("llamacpp", "rkllm")
TOPICS = {"chat", "stream", "tools", "structured", "reasoning", "embeddings", "errors", "cancellation"}
WITHOUT = {"anthropic": {"embeddings"}}
"""What the dialect of a client does not have."""
CLIENTS = ("anthropic", "langchain_openai", "litellm", "ollama", "openai", "pydantic_ai")
APART = {"litellm": "-litellm"}
"""Clients that have their own requirements*.txt."""
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false"}
"""What keeps the clients from talking to others than the nodes."""


@pytest.mark.system
@pytest.mark.timeout(900)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_client(client: str, servers: str, python_of: Callable[[str], Path], tmp_path: Path) -> None:
    python, report = python_of(APART.get(client, "")), tmp_path / "report.xml"
    command = (python, "-m", "pytest", "-q", f"test_{client}.py", f"--junitxml={report}")
    done = run(*command, cwd=SUITES, env={VARIABLE: servers, **OFFLINE}, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    cases = list(ET.parse(report).iter("testcase"))
    assert not [case for case in cases if len(case)], "nothing is skipped"
    names = "\n".join(case.attrib["name"] for case in cases)
    for server in SERVERS:
        topics = set(re.findall(rf"^test_([a-z]+)\w*\[{server}\b", names, re.MULTILINE))
        assert topics >= TOPICS - WITHOUT.get(client, set()), names


@pytest.mark.system
@pytest.mark.timeout(300)
def test_openai_for_javascript(servers: str, javascript: Path) -> None:
    """tests/js/openai.test.mjs"""
    done = run("node", "--test", "--test-reporter=tap", "openai.test.mjs", cwd=javascript, env={VARIABLE: servers})
    assert done.returncode == 0, done.stdout + done.stderr
    for server in SERVERS:
        topics = set(re.findall(rf"^ok \d+ - {server}: ([a-z]+)(?!.*#)", done.stdout, re.MULTILINE))
        assert topics >= TOPICS, done.stdout


def test_every_suite_is_run() -> None:
    assert {path.stem for path in SUITES.glob("test_*.py")} == {f"test_{client}" for client in CLIENTS}


@pytest.mark.parametrize("suffix", ["", "-litellm"])
def test_every_client_is_pinned(suffix: str) -> None:
    assert not unpinned(HERE, suffix)
