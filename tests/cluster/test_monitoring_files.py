"""The files of deploy/prometheus and deploy/grafana are what the code makes, and Prometheus accepts them."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from promql import family_of, metrics_of

from exo.cluster.monitoring import NODE_JOB, PROXY_JOB, Thresholds, dashboard, rule_files
from exo.cluster.monitoring.alerting import alerting_groups
from exo.cluster.monitoring.content import ROWS
from exo.cluster.monitoring.recording import RECORDING_GROUPS
from support import REPOSITORY, fenced_blocks, run, run_well

DEPLOY = REPOSITORY / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
TOOL = REPOSITORY / "tools/render_deploy.py"
METRICS = (REPOSITORY / "docs/METRICS.md").read_text(encoding="utf-8")
PROMETHEUS_OWN = {"up", "ALERTS"}


def targets() -> list[str]:
    """Every expression of the dashboard."""
    return [target.expression for row in ROWS for panel in row.panels for target in panel.targets]


def test_the_files_are_what_the_code_makes() -> None:
    done = run(sys.executable, TOOL, "--check")
    assert (done.returncode, done.stdout) == (0, ""), "run tools/render_deploy.py"
    assert (DEPLOY / "grafana/exo-dashboard.json").read_text(encoding="utf-8") == dashboard()
    for name, text in rule_files().items():
        assert (PROMETHEUS / name).read_text(encoding="utf-8") == text


def test_the_tool_finds_and_mends_a_file_that_differs(tmp_path: Path) -> None:
    tool = tmp_path / "tools" / TOOL.name
    tool.parent.mkdir()
    shutil.copy(TOOL, tool)
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    rules = tmp_path / "deploy/prometheus/exo-alerting.rules.yml"
    rules.write_text(rules.read_text(encoding="utf-8").replace("critical", "warning"), encoding="utf-8")
    found = run(sys.executable, tool, "--check")
    assert (found.returncode, found.stdout) == (1, "differs: deploy/prometheus/exo-alerting.rules.yml\n")
    assert run_well(sys.executable, tool) == "written: deploy/prometheus/exo-alerting.rules.yml\n"
    assert run_well(sys.executable, tool, "--check") == ""
    assert run(sys.executable, tool, "--chekc").returncode == 2


def test_every_metric_of_rules_and_dashboard_is_documented() -> None:
    """Those of HAProxy are looked up in its exporter, in test_monitoring_live.py."""
    recorded = {rule.record: rule.expression for rules in RECORDING_GROUPS.values() for rule in rules}
    alerts = [rule.expression for rules in alerting_groups(Thresholds()).values() for rule in rules]
    named = {metric for one in [*recorded.values(), *alerts, *targets()] for metric in metrics_of(one)}
    documented = set(re.findall(r"^\| `((?:exo|rkllm)_\w+)` \|", METRICS, re.MULTILINE))
    own = {family_of(metric) for metric in named if not metric.startswith("haproxy_")}
    assert own <= documented | set(recorded) | PROMETHEUS_OWN
    assert len(own) > 20


def test_the_document_lists_the_recorded_series() -> None:
    told = re.findall(r"^\| `(\w+:\w+:\w+)` \| (.*) \|$", METRICS, re.MULTILINE)
    assert told == [(rule.record, rule.meaning) for rules in RECORDING_GROUPS.values() for rule in rules]


def test_the_document_lists_the_alerts() -> None:
    told = re.findall(r"^\| `(Exo\w+)` \| (\w+) \| (.*) \| (\w+) \|$", METRICS, re.MULTILINE)
    alerts = [rule for rules in alerting_groups(Thresholds()).values() for rule in rules]
    assert told == [(rule.alert, rule.severity, rule.when, rule.lasting) for rule in alerts]


def test_the_example_has_the_jobs_and_labels_that_the_rules_rely_on() -> None:
    example = (PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8")
    assert re.findall(r"job_name: (\w+)", example) == [NODE_JOB, PROXY_JOB]
    nodes = example.partition("job_name: exo")[2].partition("job_name:")[0]
    assert nodes.count("- targets:") == nodes.count("labels: {node: ") == 3
    assert re.findall(r"^  - (\S+)$", example, re.MULTILINE) == list(rule_files())


def test_the_readmes_name_every_file() -> None:
    for folder in ("prometheus", "grafana"):
        files = [file.name for file in (DEPLOY / folder).iterdir() if file.name != "README.md"]
        text = (DEPLOY / folder / "README.md").read_text(encoding="utf-8")
        assert files
        assert all(f"`{name}`" in text for name in files)


@pytest.mark.system
def test_the_configuration_is_valid_wherever_it_lies(tmp_path: Path) -> None:
    elsewhere = tmp_path / "prometheus"
    shutil.copytree(PROMETHEUS, elsewhere)
    for folder in (PROMETHEUS, elsewhere):
        told = run_well("promtool", "check", "config", "--lint=all", folder / "prometheus.yml", cwd=tmp_path)
        assert "2 rule files found" in told
    (elsewhere / "exo-alerting.rules.yml").unlink()
    assert run("promtool", "check", "config", elsewhere / "prometheus.yml").returncode != 0


@pytest.mark.system
def test_the_rules_are_valid() -> None:
    told = run_well("promtool", "check", "rules", "--lint=all", "--lint-fatal", *PROMETHEUS.glob("*.rules.yml"))
    for groups in (RECORDING_GROUPS, alerting_groups(Thresholds())):
        assert f"SUCCESS: {sum(map(len, groups.values()))} rules found" in told


@pytest.mark.system
def test_every_expression_of_the_dashboard_parses(tmp_path: Path) -> None:
    """As rules, since promtool parses those without a server."""
    parsed = [one.replace("$__rate_interval", "1m") for one in targets()]
    rules = [{"record": f"panel:{number}", "expr": one} for number, one in enumerate(parsed)]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"SUCCESS: {len(rules)} rules found" in run_well("promtool", "check", "rules", file)
    rules[0]["expr"] += ")"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    assert run("promtool", "check", "rules", file).returncode != 0


@pytest.mark.system
def test_the_command_of_the_readme_that_checks_is_one_of_promtool() -> None:
    (block,) = fenced_blocks(PROMETHEUS / "README.md", "sh")
    line = next(line for line in block.splitlines() if line.startswith("promtool "))
    run_well(*line.replace("/etc/prometheus", str(PROMETHEUS)).split())
