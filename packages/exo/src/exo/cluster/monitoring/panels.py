"""Panels of a Grafana dashboard as data, and the JSON that Grafana imports (schema 39: Grafana 10.4 and later)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

COLUMNS = 24
SCHEMA_VERSION = 39
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

Unit = Literal["short", "none", "reqps", "s", "percentunit", "celsius", "hertz", "suffix: tok/s"]
"""Ids of Grafana's units; `suffix:` makes one of our own."""


@dataclass(frozen=True)
class Target:
    """A query. `legend` names its series, with `{{label}}` for the value of a label."""

    expression: str
    legend: str

    def as_json(self, number: int) -> dict[str, Any]:
        return {
            "refId": chr(ord("A") + number),
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": self.expression,
            "legendFormat": self.legend,
            "range": True,
            "instant": False,
        }


@dataclass(frozen=True)
class Step:
    """From `value` on a number has this colour; None is the beginning."""

    value: float | None
    color: str


@dataclass(frozen=True)
class Panel:
    """What is common to all kinds. `highest` ends the axis, which begins at 0."""

    title: str
    description: str
    unit: Unit
    targets: tuple[Target, ...]
    width: int = 8
    height: int = 8
    highest: float | None = None
    steps: tuple[Step, ...] = (Step(None, "green"),)

    kind = ""

    def as_json(self, number: int, x: int, y: int) -> dict[str, Any]:
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            "options": self._options(),
            "targets": [target.as_json(index) for index, target in enumerate(self.targets)],
        }

    def _defaults(self) -> dict[str, Any]:
        steps = [{"color": step.color, "value": step.value} for step in self.steps]
        limits = {"min": 0} if self.highest is None else {"min": 0, "max": self.highest}
        return {
            "unit": self.unit,
            **limits,
            "mappings": [],
            "thresholds": {"mode": "absolute", "steps": steps},
            "color": {"mode": "thresholds"},
        }

    def _options(self) -> dict[str, Any]:
        raise NotImplementedError


@dataclass(frozen=True)
class Stat(Panel):
    """One number, with its course behind it."""

    width: int = 4
    height: int = 4

    kind = "stat"

    def _options(self) -> dict[str, Any]:
        return {
            "colorMode": "value",
            "graphMode": "area",
            "justifyMode": "auto",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "textMode": "auto",
            "wideLayout": True,
        }


@dataclass(frozen=True)
class Graph(Panel):
    """Lines over time. `is_stacked` for shares of a whole."""

    is_stacked: bool = False

    kind = "timeseries"

    def _defaults(self) -> dict[str, Any]:
        return {
            **super()._defaults(),
            "color": {"mode": "palette-classic"},
            "custom": {
                "drawStyle": "line",
                "fillOpacity": 25 if self.is_stacked else 0,
                "lineWidth": 1,
                "showPoints": "auto",
                "spanNulls": False,
                "stacking": {"group": "A", "mode": "normal" if self.is_stacked else "none"},
            },
        }

    def _options(self) -> dict[str, Any]:
        return {
            "legend": {
                "calcs": ["lastNotNull", "max"],
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": True,
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        }


@dataclass(frozen=True)
class Timeline(Panel):
    """A bar for each series, coloured by `steps`; `texts` says what 0, 1 … mean."""

    texts: tuple[str, ...] = ()

    kind = "state-timeline"

    def _defaults(self) -> dict[str, Any]:
        options = {
            str(index): {"color": step.color, "index": index, "text": text}
            for index, (step, text) in enumerate(zip(self.steps, self.texts))
        }
        return {
            **super()._defaults(),
            "mappings": [{"type": "value", "options": options}],
            "custom": {"fillOpacity": 70, "lineWidth": 0},
        }

    def _options(self) -> dict[str, Any]:
        return {
            "alignValue": "left",
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False},
            "mergeValues": True,
            "rowHeight": 0.9,
            "showValue": "never",
            "tooltip": {"mode": "single", "sort": "none"},
        }


@dataclass(frozen=True)
class Row:
    """A heading and the panels below it, which fill the columns from left to right."""

    title: str
    panels: tuple[Panel, ...]


def laid_out(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The panels of a dashboard from top to bottom. A line is as high as its highest panel."""
    found: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        heading = {"h": 1, "w": COLUMNS, "x": 0, "y": y}
        found.append(
            {
                "id": len(found) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": heading,
                "panels": [],
            }
        )
        y += 1
        x = height = 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, height = 0, y + height, 0
            found.append(panel.as_json(len(found) + 1, x, y))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return found
