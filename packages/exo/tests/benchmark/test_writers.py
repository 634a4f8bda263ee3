"""Markdown and CSV."""

from __future__ import annotations

import csv
import io

import pytest
from measured_server import measured, sample

from exo.benchmark.report import make_report
from exo.benchmark.writers import as_csv, as_markdown


def test_markdown_has_a_table_for_each_part() -> None:
    text = as_markdown(make_report(measured([sample(), sample(error="no")])))
    assert "| Math | one | 500 ms | 2.00 | 5 | 2.50 s | 1 of 2 |" in text
    assert "| --- | --- | ---: | ---: | ---: | ---: | ---: |" in text
    assert "## Errors" in text
    assert "> 1 of 2 requests failed" in text


def test_a_name_is_no_markdown() -> None:
    text = as_markdown(make_report(measured([sample(model="a|b\n# c <img src=x> [l](u) `d` **e**")])))
    assert r"| Math | a\|b \# c \<img src=x\> \[l\](u) \`d\` \*\*e\*\* |" in text


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_has_a_line_for_each_sum() -> None:
    math, mean = rows(as_csv(make_report(measured([sample(first_token=0.25), sample(first_token=0.75)]))))
    assert (math["part"], math["model"], math["name"], math["requests"]) == ("prompts", "one", "Math", "2")
    assert (math["first_token_median"], math["first_token_minimum"], math["first_token_maximum"]) == (
        "0.5",
        "0.25",
        "0.75",
    )
    assert mean["name"] == "mean"
    assert "first_token_ratio" not in math


def test_csv_has_the_ratios_of_a_comparison() -> None:
    report = make_report(measured([sample()]), measured([sample(first_token=1.0)]))
    assert [row["first_token_ratio"] for row in rows(as_csv(report))] == ["0.5", "0.5"]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_a_name_is_no_formula(name: str) -> None:
    assert rows(as_csv(make_report(measured([sample(model=name)]))))[0]["model"] == f"'{name}"


def test_a_name_with_commas_and_quotes_stays_one_cell() -> None:
    assert rows(as_csv(make_report(measured([sample(model='a,"b"')]))))[0]["model"] == 'a,"b"'
