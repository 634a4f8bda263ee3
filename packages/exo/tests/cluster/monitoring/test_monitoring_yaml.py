from __future__ import annotations

import pytest

from exo.cluster.monitoring.yaml_text import Commented, Yaml, to_yaml


def test_the_shape_is_what_people_write() -> None:
    value: Yaml = {
        "global": {"scrape_interval": "15s"},
        "scrape_configs": [
            {"job_name": "exo", "static_configs": [{"targets": ["192.0.2.1:52415"], "labels": {"node": "board-1"}}]},
            Commented("the proxy", {"job_name": "haproxy", "params": {}, "honor_labels": True, "limit": 3}),
        ],
    }
    assert to_yaml(value) == (
        "global:\n"
        "  scrape_interval: 15s\n"
        "scrape_configs:\n"
        "  - job_name: exo\n"
        "    static_configs:\n"
        "      - targets:\n"
        '          - "192.0.2.1:52415"\n'
        "        labels:\n"
        "          node: board-1\n"
        "  # the proxy\n"
        "  - job_name: haproxy\n"
        "    params: {}\n"
        "    honor_labels: true\n"
        "    limit: 3\n"
    )


@pytest.mark.parametrize(
    "text", ["exo", "5m", "1500ms", "1h30m", "/etc/exo.key", 'up{job="exo"} == 0', "node:requests:rate5m", "a [b] (c)"]
)
def test_text_that_can_be_read_plainly_has_no_quotes(text: str) -> None:
    assert to_yaml({"key": text}) == f"key: {text}\n"


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "true", "No", "null", "12", "1.5", "1e3", "0x10", "12:30:00", "2020-01-01", "~", "-", "- a", "? a"),
        *(
            "a: b",
            "a:",
            "a #b",
            "#a",
            "&a",
            "*a",
            "!a",
            "|",
            ">",
            "%a",
            "@a",
            "`a",
            "{a",
            "[a",
            "'a",
            '"a',
            "a ",
            "a\tb",
        ),
        *("{{ $labels.node }} is down", "5m ago", "\x85", "a\u2028b"),
    ],
)
def test_text_that_would_be_read_as_something_else_is_quoted(text: str) -> None:
    written = to_yaml({"key": text})
    assert written.startswith('key: "')
    assert written.endswith('"\n')
    assert written.count("\n") == 1


def test_lines_stay_lines_and_long_text_is_folded() -> None:
    words = " ".join(["words-and-words"] * 12)
    assert to_yaml({"expr": "sum(\n  up\n)"}) == "expr: |-\n  sum(\n    up\n  )\n"
    first, *folded = to_yaml({"text": words}).splitlines()
    assert first == "text: >-"
    assert len(folded) == 2
    assert all(line.startswith("  words") and len(line) <= 120 for line in folded)
    assert " ".join(line.strip() for line in folded) == words


def test_lists_of_plain_values_and_empty_ones() -> None:
    assert to_yaml({"files": ["a.yml", "b.yml"], "none": []}) == "files:\n  - a.yml\n  - b.yml\nnone: []\n"
    assert to_yaml([{}, "a", 1.5]) == "- {}\n- a\n- 1.5\n"
