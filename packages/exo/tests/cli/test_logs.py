from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from exo.cli import logs


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    kept = (root.handlers[:], root.level)
    yield
    root.handlers[:] = kept[0]
    root.setLevel(kept[1])


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("exo.access", logging.INFO, "file", 1, message, None, None)
    made.created, made.msecs = 0.0, 5.0
    made.fields = fields
    return made


def test_text_quotes_what_could_forge_a_line() -> None:
    line = logs.TextFormatter().format(record("a\nb", path="/x y", code=200, bad="1\n2", quote='"', plain="/v1"))
    start = "1970-01-01T00:00:00.005Z INFO exo.access: a\\nb"
    assert line == start + ' path="/x y" code=200 bad="1\\n2" quote="\\"" plain=/v1'


def test_json_is_one_object_with_the_fields() -> None:
    entry = json.loads(logs.JsonFormatter().format(record("hello\n", status=200)))
    assert entry == {
        "time": "1970-01-01T00:00:00.005Z",
        "level": "INFO",
        "logger": "exo.access",
        "message": "hello\n",
        "status": 200,
    }


@pytest.mark.parametrize("formatter", [logs.TextFormatter(), logs.JsonFormatter()])
def test_tracebacks_are_kept(formatter: logging.Formatter) -> None:
    made = record("failed")
    try:
        _ = 1 / len("")
    except ZeroDivisionError:
        made.exc_info = sys.exc_info()
    assert "ZeroDivisionError" in formatter.format(made)


@pytest.mark.usefixtures("restored")
def test_set_up_writes_to_the_stderr_of_the_moment(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", as_json=False)
    logging.getLogger("exo.test").info("seen")
    logging.getLogger("exo.test").debug("not seen")
    logging.getLogger("httpx2").info("not seen")
    assert capsys.readouterr().err.endswith("exo.test: seen\n")
