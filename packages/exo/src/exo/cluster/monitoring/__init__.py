"""Rules for Prometheus and the dashboard for Grafana, built by code so that they can be checked.

The files of deploy/prometheus and deploy/grafana are written by tools/render_deploy.py; a test holds them against this.
"""

from exo.cluster.monitoring.alerting import AlertingRule, Thresholds
from exo.cluster.monitoring.dashboard import dashboard
from exo.cluster.monitoring.names import ALERTING_FILE, DASHBOARD_FILE, NODE_JOB, PROXY_JOB, RECORDING_FILE
from exo.cluster.monitoring.recording import RecordingRule
from exo.cluster.monitoring.rules import alerting_rules, recording_rules, rule_files

__all__ = [
    "ALERTING_FILE",
    "DASHBOARD_FILE",
    "NODE_JOB",
    "PROXY_JOB",
    "RECORDING_FILE",
    "AlertingRule",
    "RecordingRule",
    "Thresholds",
    "alerting_rules",
    "dashboard",
    "recording_rules",
    "rule_files",
]
