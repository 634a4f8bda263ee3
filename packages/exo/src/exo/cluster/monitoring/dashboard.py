"""The Grafana dashboard as a file: its variables, and the rows of content.py."""

from __future__ import annotations

import json
from typing import Any

from exo.cluster.monitoring.content import ROWS
from exo.cluster.monitoring.names import NODE_JOB
from exo.cluster.monitoring.panels import DATASOURCE, SCHEMA_VERSION, laid_out

UID = "exo-nodes"
FIRING = 'ALERTS{alertstate="firing",alertname=~"Exo.+"}'
"""Prometheus' own series of alerts: drawn into the graphs as annotations."""


def dashboard() -> str:
    """The file exo-dashboard.json."""
    return json.dumps(_dashboard(), indent=2, ensure_ascii=False) + "\n"


def _dashboard() -> dict[str, Any]:
    return {
        "id": None,
        "uid": UID,
        "title": "exo nodes",
        "description": "Requests, tokens, queues and boards of exo nodes. Generated: change exo.cluster.monitoring.",
        "tags": ["exo", "llm"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "fiscalYearStartMonth": 0,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "weekStart": "",
        "links": [],
        "annotations": {"list": [_alerts_as_annotations()]},
        "templating": {
            "list": [
                _datasource_variable(),
                _label_variable("node", "Node", f'label_values(up{{job="{NODE_JOB}"}}, node)'),
                _label_variable("model", "Model", "label_values(exo_model_info, model)"),
            ]
        },
        "panels": laid_out(ROWS),
    }


def _alerts_as_annotations() -> dict[str, Any]:
    return {
        "name": "Alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "expr": FIRING,
        "step": "30s",
        "titleFormat": "{{alertname}}",
        "textFormat": "{{node}} {{severity}}",
        "tagKeys": "",
        "useValueForTime": False,
    }


def _datasource_variable() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "regex": "",
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "skipUrlSync": False,
        "options": [],
        "current": {},
    }


def _label_variable(name: str, label: str, query: str) -> dict[str, Any]:
    """All, one or several values of a label. All is `.*`, which a series without the label matches as well."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "regex": "",
        "sort": 1,
        "hide": 0,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "skipUrlSync": False,
        "options": [],
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }
