"""What the nodes answer is in their own OpenAPI documents, whatever is asked: schemathesis tries."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from abuse.conftest import KEY, StartAbused
from support import own_environment, run, unpinned

HERE = Path(__file__).parent


@pytest.mark.system
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("command", "engine"), [("exo", "dummy"), ("rkllama", "rkllm")])
def test_every_answer_is_in_the_openapi_document(command: str, engine: str, start_abused: StartAbused) -> None:
    abused = start_abused(command, engine)
    paths = abused.node.http.get("/openapi.json").json()["paths"]
    operations = sum(len(methods) for methods in paths.values()) - 1  # the document itself is not tried
    schemathesis = own_environment(HERE).with_name("schemathesis")
    arguments = (
        "--config-file",
        HERE / "schemathesis.toml",
        "run",
        f"{abused.node.url}/openapi.json",
        "--header",
        f"Authorization: Bearer {KEY}",
    )
    done = run(schemathesis, *arguments, cwd=HERE, env={"ABUSE_MODEL": abused.model}, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"Tested: +{operations}$", done.stdout, re.MULTILINE), done.stdout
    assert abused.node.chat("hi").status_code == 200


def test_schemathesis_is_pinned() -> None:
    assert not unpinned(HERE)
