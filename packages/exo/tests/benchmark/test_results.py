"""bench.json: written, and read again."""

from __future__ import annotations

import json

import pytest
from measured_server import measured, sample

from exo.benchmark.report import make_report
from exo.benchmark.results import SCHEMA, read_run
from exo.benchmark.writers import as_json
from exo.types import ConfigurationError


def test_what_was_written_is_read_again() -> None:
    run = measured([sample(), sample(error="no")], engine="dummy")
    assert read_run(as_json(make_report(run, run)), "bench.json") == run


def test_the_file_has_the_schema_the_sums_and_the_requests() -> None:
    found = json.loads(as_json(make_report(measured([sample()]))))
    assert found["schema"] == SCHEMA
    assert found["settings"]["models"] == ["one"]
    assert found["server"]["url"] == "http://server"
    assert found["samples"][0]["first_token"] == 0.5
    assert found["summary"][0]["first_token"]["median"] == 0.5
    assert found["comparison"] is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": "one"}', b'{"schema": 1}', b"\xff"])
def test_what_is_no_bench_json(content: bytes) -> None:
    with pytest.raises(ConfigurationError, match=r"old\.json is not a bench\.json"):
        read_run(content, "old.json")


def test_another_schema_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=f"old.json has the schema version 99, but this exo reads {SCHEMA}"):
        read_run(b'{"schema": 99, "all": "different"}', "old.json")
