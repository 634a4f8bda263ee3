"""What the commands of `rkllama` show, and what they say of an address that is none."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from exo_rkllm.cli.main import main
from exo_rkllm.cli.shown import age, print_table, until

NOW = datetime(2025, 1, 2, 12, tzinfo=timezone.utc)


@pytest.fixture
def logs_as_before() -> Iterator[None]:
    """`run` sets up the logs."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        ("2025-01-02T09:00:00Z", "3 hours ago"),
        ("2025-01-01T12:00:00.123456789+00:00", "1 day ago"),
        ("2025-01-02T12:00:00Z", "less than a second ago"),
        ("0001-01-01T00:00:00Z", ""),  # what Ollama says of a time that it does not know
        ("2025-01-02T09:00:00", ""),
        ("", ""),
    ],
)
def test_ages(moment: str, shown: str) -> None:
    assert age(moment, NOW) == shown


def test_the_end_of_a_models_time() -> None:
    moments = ("2025-01-02T12:05:00Z", "2025-01-02T11:00:00Z", "2300-01-01T00:00:00Z", "0001-01-01T00:00:00Z")
    assert [until(moment, NOW) for moment in moments] == ["in 5 minutes", "now", "for ever", ""]


def test_a_table_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME", "SIZE"), [("long name", "1 B"), ("b", "")])
    print_table((), [("a", "1"), ("bc", "2")])
    print_table((), [])
    assert capsys.readouterr().out == "NAME       SIZE\nlong name  1 B\nb\na   1\nbc  2\n"


@pytest.mark.usefixtures("logs_as_before")
@pytest.mark.parametrize(
    ("host", "command"),
    [
        *((host, command) for host in ("x:y", "[::1", "ö..ö") for command in (["list"], ["run", "m", "Hello"])),
        ("a..b", ["rm", "m"]),
    ],
)
def test_an_address_that_is_none(
    host: str, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RKLLAMA_HOME", str(tmp_path))
    assert main([*command, "--host", host, "--port", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("rkllama: http://")
    assert host in line
    assert "--host" in line
