from __future__ import annotations

import re

import pytest
from promql import family_of, metrics_of

from exo.cluster.monitoring import Thresholds, alerting_rules, recording_rules
from exo.cluster.monitoring.alerting import alerting_groups
from exo.cluster.monitoring.content import ROWS
from exo.cluster.monitoring.recording import RECORDING_GROUPS
from exo.cluster.monitoring.rules import at_pace

ALERTS = {rule.alert: rule for rules in alerting_groups(Thresholds()).values() for rule in rules}
RECORDED = {rule.record: rule for rules in RECORDING_GROUPS.values() for rule in rules}
WHAT_THE_ISSUE_NAMES = {
    *("ExoNodeDown", "ExoQueueGrowing", "ExoPadLoop", "ExoThrottled", "ExoWorkerRestarting", "ExoFirstTokenSlow"),
}


def test_there_is_an_alert_for_everything_that_was_asked_for() -> None:
    assert set(ALERTS) >= WHAT_THE_ISSUE_NAMES


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_is_wrong_and_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert re.fullmatch(r"Exo[A-Z][A-Za-z]+", name)
    assert re.fullmatch(r"[1-9]\d*m", rule.lasting)
    assert rule.severity in {"critical", "warning"}
    assert "{{ $" in rule.summary
    assert len(rule.description) > 80
    assert not re.search(r"  |\n", rule.summary + rule.description), "a fold stands for one blank"


def test_summaries_use_labels_that_the_expression_keeps() -> None:
    for rule in ALERTS.values():
        used = set(re.findall(r"\$labels\.(\w+)", rule.summary + rule.description))
        aggregated = re.search(r"\bby \(([^)]*)\)", rule.expression)
        if aggregated:
            assert used <= {label.strip() for label in aggregated[1].split(",")}, rule.alert


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_series_is_named_for_what_it_keeps(name: str) -> None:
    level, _, how = name.split(":")
    labels = {
        label for found in re.findall(r"\bby \(([^)]*)\)", RECORDED[name].expression) for label in found.split(", ")
    }
    assert labels - {"le"} == ({level} if level != "cluster" else set())
    windows = set(re.findall(r"\[(\w+)\]", RECORDED[name].expression))
    assert windows == ({"5m"} if how.endswith("rate5m") else set())


def test_every_recorded_series_is_used() -> None:
    used = {metric for rule in ALERTS.values() for metric in metrics_of(rule.expression)}
    used |= {
        metric for row in ROWS for panel in row.panels for t in panel.targets for metric in metrics_of(t.expression)
    }
    assert set(RECORDED) <= used


def test_recorded_series_that_are_used_are_recorded() -> None:
    used = {metric for rule in ALERTS.values() for metric in metrics_of(rule.expression)}
    assert {metric for metric in used if ":" in metric} <= set(RECORDED)


def test_the_files_are_the_same_each_time() -> None:
    assert recording_rules() == recording_rules()
    assert alerting_rules() == alerting_rules(Thresholds(), pace=1)


def test_thresholds_come_into_the_rules() -> None:
    own = alerting_rules(Thresholds(waiting_per_slot=7, failed_ratio=0.25, first_token_seconds=1.5))
    assert "> 7 * cluster:exo_slots:sum" in own
    assert own.count("> 0.25") == 2
    assert ":p95_rate5m > 1.5" in own


def test_pace_shortens_windows_offsets_and_the_time_that_a_rule_has_to_hold() -> None:
    expression = "rate(a:rate5m[5m]) >= avg_over_time(b[15m] offset 5m)"
    assert at_pace(expression, 1) == expression
    assert at_pace(expression, 1 / 60) == "rate(a:rate5m[5000ms]) >= avg_over_time(b[15000ms] offset 5000ms)"
    fast = alerting_rules(pace=1 / 60) + recording_rules(pace=1 / 60)
    assert not re.search(r"\[\d+m\]|offset \d+m\b|for: \d+m\b", fast)
    assert "for: 10000ms" in fast
    assert "record: node:exo_tokens_generated:rate5m\n" in fast


def test_metrics_named_in_descriptions_exist() -> None:
    words = {word for rule in ALERTS.values() for word in re.findall(r"\b(?:exo|rkllm)_\w+", rule.description)}
    expressions = [rule.expression for rule in RECORDED.values()]
    expressions += [target.expression for row in ROWS for panel in row.panels for target in panel.targets]
    known = {family_of(metric) for expression in expressions for metric in metrics_of(expression)}
    assert words <= known | {"exo_key_requests_total"}
