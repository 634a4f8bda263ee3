"""bench.json: written, and read again."""

from __future__ import annotations

import json

import pytest
from measured_server import measured, sample

from exo.benchmark.answer import LARGEST
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


def written(**fields: object) -> bytes:
    """A run of one request with these fields."""
    document = json.loads(as_json(make_report(measured([sample()]))))
    document["samples"][0] |= fields
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("field", "number"),
    [
        ("first_token", 1e308),
        ("first_answer", -1.0),
        ("total", LARGEST + 1.0),
        ("started", -1),
        ("load", 1e308),
        ("prompt_tokens", -1),
        ("cached_tokens", 10**30),
        ("completion_tokens", LARGEST + 1),
        ("repeat", 10**4000),
    ],
)
def test_numbers_that_cannot_be_true_are_refused(field: str, number: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"old\.json is not .*`\$\.samples\[0\]\.{field}`") as raised:
        read_run(written(**{field: number}), "old.json")
    assert len(raised.value.message) < 200


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"schema": 1, "odd": ' + b"[" * 100_000,
        b'{"schema": ' + b"9" * 5000 + b"}",
        b'{"schema": 1, "started": "\xff"}',
    ],
)
def test_what_is_made_to_break_a_reader_is_refused(content: bytes) -> None:
    with pytest.raises(ConfigurationError, match=r"old\.json is not a bench\.json"):
        read_run(content, "old.json")


def test_times_too_short_to_divide_by_are_no_rate() -> None:
    found = read_run(written(first_token=5e-324, total=1e-323, prompt_tokens=LARGEST), "old.json").samples[0]
    assert (found.tokens_per_s, found.prefill_tokens_per_s) == (None, None)


def test_a_byte_order_mark_is_no_mistake() -> None:
    run = measured([sample()])
    assert read_run(b"\xef\xbb\xbf" + as_json(make_report(run)), "old.json") == run


def test_texts_of_the_file_have_no_control_characters() -> None:
    found = read_run(written(model="a\x1b[2J", answered_by="\u202eb", error="c\nd"), "old.json").samples[0]
    assert (found.model, found.answered_by, found.error) == (r"a\x1b[2J", r"\u202eb", r"c\nd")


def test_another_schema_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=f"old.json has the schema version 99, but this exo reads {SCHEMA}"):
        read_run(b'{"schema": 99, "all": "different"}', "old.json")
