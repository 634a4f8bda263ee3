"""The rule files of Prometheus, as text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from exo.cluster.monitoring.alerting import AlertingRule, Thresholds, alerting_groups
from exo.cluster.monitoring.names import ALERTING_FILE, RECORDING_FILE
from exo.cluster.monitoring.recording import RECORDING_GROUPS, RecordingRule
from exo.cluster.monitoring.yaml_text import Commented, to_yaml

_HEADER = """\
# {title} of exo nodes. exo.cluster.monitoring writes this file: change the rules there, not here.
# Needs a job `exo` whose targets have a label `node`, as in prometheus.yml.
"""
_SPAN = re.compile(r"(?<=\[)(\d+)m(?=\])|(?<=offset )(\d+)m")


def recording_rules(*, pace: float = 1.0) -> str:
    """The file exo-recording.rules.yml. `pace` as for `alerting_rules`."""
    groups = {name: [_recording(rule, pace) for rule in rules] for name, rules in RECORDING_GROUPS.items()}
    return _file("Recording rules", groups)


def alerting_rules(thresholds: Thresholds | None = None, *, pace: float = 1.0) -> str:
    """The file exo-alerting.rules.yml; it needs the recorded series.

    `pace` multiplies every length of time: with 1/60 an alert takes seconds where it takes minutes.
    """
    alerts = alerting_groups(thresholds or Thresholds())
    groups = {name: [_alerting(rule, pace) for rule in rules] for name, rules in alerts.items()}
    return _file("Alerting rules", groups)


def rule_files() -> dict[str, str]:
    """Name and text of each file."""
    return {RECORDING_FILE: recording_rules(), ALERTING_FILE: alerting_rules()}


def _file(title: str, groups: Mapping[str, Sequence[Commented]]) -> str:
    return _HEADER.format(title=title) + to_yaml(
        {"groups": [{"name": name, "rules": rules} for name, rules in groups.items()]}
    )


def _recording(rule: RecordingRule, pace: float) -> Commented:
    return Commented(rule.meaning, {"record": rule.record, "expr": at_pace(rule.expression, pace)})


def _alerting(rule: AlertingRule, pace: float) -> Commented:
    return Commented(
        rule.when,
        {
            "alert": rule.alert,
            "expr": at_pace(rule.expression, pace),
            "for": _span(int(rule.lasting.removesuffix("m")), pace),
            "labels": {"severity": rule.severity},
            "annotations": {"summary": rule.summary, "description": rule.description},
        },
    )


def at_pace(expression: str, pace: float) -> str:
    """`expression` with the lengths of its windows and offsets, which are whole minutes, multiplied by `pace`."""
    return _SPAN.sub(lambda found: _span(int(found[1] or found[2]), pace), expression)


def _span(minutes: int, pace: float) -> str:
    return f"{minutes}m" if pace == 1 else f"{round(minutes * 60_000 * pace)}ms"
